"""All action experts, and their options. A new expert of this repository is added in this file and nowhere else.

LeRobot's commands import this file for the options, so experts import slow or optional packages when they are built.
This file must not use `from __future__ import annotations`, because LeRobot reads the types of the fields.
"""

from dataclasses import dataclass, fields

from hlrp.experts.diffusion import DiffusionExpert, DiffusionOptions
from hlrp.experts.flow import FlowExpert, FlowOptions
from hlrp.experts.interface import ActionExpert

EXPERTS: dict[str, type[ActionExpert]] = {"diffusion": DiffusionExpert, "flow": FlowExpert}
"""Action experts by the value of the option `expert`."""


_OPTIONS: dict[str, type] = {"diffusion": DiffusionOptions, "flow": FlowOptions}
"""Options of the experts of this repository. An expert of another package may use any of them."""


def register_expert(name: str, expert: type[ActionExpert]) -> None:
    """Make `expert` known to the policies' option `expert` under `name`.

    Raises:
        ValueError: If `name` already belongs to another expert.
    """
    if EXPERTS.get(name, expert) is not expert:
        raise ValueError(f"the name {name!r} already belongs to {EXPERTS[name].__qualname__}; choose another one")
    EXPERTS[name] = expert


@dataclass
class ExpertOptions(DiffusionOptions, FlowOptions):
    """Options of all experts, side by side, since the flags of LeRobot's policies are flat."""

    expert: str = "diffusion"
    """Type of the action expert. diffusion: LeRobot's FiLM-conditioned UNet. flow: a flow-matching transformer."""
    num_inference_steps: int | None = 10
    """Denoising steps of the expert at inference. None: as many as num_train_timesteps (diffusion expert only)."""


def options_of_other_experts(expert: str) -> list[str]:
    """Options that the expert of this name does not use, because they belong to others."""
    if expert not in _OPTIONS:
        return []
    return [option.name for name, options in _OPTIONS.items() if name != expert for option in fields(options)]


def shaping_options() -> tuple[str, ...]:
    """Options that determine the shapes of an expert's weights."""
    return tuple(dict.fromkeys(name for expert in EXPERTS.values() for name in expert.shaping_options))


def block_names() -> tuple[str, ...]:
    """Class names of the repeated blocks of all experts."""
    return tuple(name for expert in EXPERTS.values() for name in expert.block_names)
