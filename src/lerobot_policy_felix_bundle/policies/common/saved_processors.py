"""Check the processor pipelines saved with a policy before LeRobot loads them.

LeRobot imports and calls whatever class a pipeline names, and only then checks that it is a processor step. So a folder
that was downloaded could start any program. Only steps that are registered in this process pass these checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lerobot.processor import ProcessorStepRegistry
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hlrp.storage.artefacts import COPY_AGAIN, read_json, reading

PIPELINES = {
    f"{POLICY_PREPROCESSOR_DEFAULT_NAME}.json": "normalizer_processor",
    f"{POLICY_POSTPROCESSOR_DEFAULT_NAME}.json": "unnormalizer_processor",
}
"""Files of the pipelines, each with its required step: without this step, actions would have another scale."""


def require_safe_pipelines(folder: Path) -> None:
    """Raise unless the pipelines in `folder` have registered steps alone, and agree with each other.

    A file that is missing passes, since LeRobot names it; new pipelines are built for a policy without any.

    Raises:
        FileNotFoundError: If the file with the state of a step is missing.
        ValueError: If a file is damaged, a step is not registered, or both pipelines have different statistics.
    """
    states: list[dict[str, Tensor]] = []
    for name, needed in PIPELINES.items():
        if (folder / name).is_file():
            with reading(folder / name):
                steps = _steps(read_json(folder / name))
                if needed not in [step["registry_name"] for step in steps]:
                    raise ValueError(f"it has no step {needed}")
            states.append({key: value for step in steps for key, value in _state(folder, step).items()})
    if len(states) == 2:
        _require_same_statistics(*states, folder=folder)


def _steps(pipeline: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    steps = pipeline.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError("steps must be a list of JSON objects")
    for number, step in enumerate(steps):
        name, known = step.get("registry_name"), ProcessorStepRegistry.list()
        if "class" in step or name not in known:
            raise ValueError(
                f"step {number} names {step.get('class', name)!r}, which is no registered processor step, and nothing "
                "that a file names is imported or called; import its module first if you trust it"
            )
    return steps


def _state(folder: Path, step: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a step, by name; empty if the step has none."""
    name = step.get("state_file")
    if name is None:
        return {}
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"a pipeline in {folder} names the state file {name!r}, expected the name of a file in it")
    if not (folder / name).is_file():
        raise FileNotFoundError(f"{folder} has no {name}; {COPY_AGAIN}")
    try:
        state = load_file(folder / name)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / name} is damaged; {COPY_AGAIN}") from error
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{folder / name} holds {key} with values that are not finite; {COPY_AGAIN}")
    return state


def _require_same_statistics(before: Mapping[str, Tensor], after: Mapping[str, Tensor], *, folder: Path) -> None:
    for name in sorted(before.keys() & after.keys()):
        if not torch.equal(before[name].flatten(), after[name].flatten()):  # LeRobot stores some counts in two shapes
            raise ValueError(
                f"the two pipelines in {folder} have different statistics ({name}), so one of their files is damaged "
                f"or of another policy; {COPY_AGAIN}"
            )
