"""Options of every command and policy: naming one leaves the others as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import draccus
import pytest

from hlrp.cli.collect_demos import CollectDemosConfig
from hlrp.cli.import_lapa import ImportLapaConfig
from hlrp.cli.inspect_latents import InspectConfig
from hlrp.cli.precompute_latent_codes import PrecomputeConfig
from hlrp.cli.train_foundation import TrainFoundationConfig
from hlrp.cli.train_laq import TrainLAQConfig
from hlrp.demo.road import DemoConfig
from hlrp.foundation.backends import BackendConfig
from hlrp.sim.configuration_light_metaworld import LightMetaworldConfig
from lerobot_policy_felix_bundle import (
    HLRPActionExpertDirectConfig,
    HLRPActionExpertLatentConfig,
    HLRPDiffusionConfig,
    HLRPVLAConfig,
    HLRPVLADirectConfig,
)

COMMANDS = [
    CollectDemosConfig,
    TrainLAQConfig,
    PrecomputeConfig,
    TrainFoundationConfig,
    InspectConfig,
    ImportLapaConfig,
    DemoConfig,
]
LEROBOT = [
    HLRPVLADirectConfig,
    HLRPActionExpertDirectConfig,
    HLRPActionExpertLatentConfig,
    HLRPVLAConfig,
    HLRPDiffusionConfig,
    LightMetaworldConfig,
]
REQUIRED = {CollectDemosConfig: {"output_dir": "demos"}}


def decoded(kind: type, values: dict[str, Any]) -> Any:
    """A configuration as the command line's `values` make it, without the detour through text."""
    return draccus.decode(kind, {**REQUIRED.get(kind, {}), **values})


def named_alone(value: object) -> Iterator[dict[str, Any]]:
    """Nested dictionaries that each name one innermost entry of a configuration, with the value it has."""
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    assert isinstance(value, dict)
    for name, entry in value.items():
        if is_dataclass(entry) or (isinstance(entry, dict) and entry and not any(map(is_dataclass, entry.values()))):
            yield from ({name: inner} for inner in named_alone(entry))
        else:
            yield {name: draccus.encode(entry)}


@pytest.mark.parametrize("kind", [*COMMANDS, *LEROBOT])
def test_naming_one_option_leaves_the_others_at_their_defaults(kind: type) -> None:
    default = decoded(kind, {})
    for values in named_alone(default):
        assert decoded(kind, values) == default, f"{kind.__name__}: {values}"


@pytest.mark.parametrize("name", sorted(BackendConfig.get_known_choices()))
def test_every_kind_of_backend_is_trained_with_the_same_augmentation(name: str) -> None:
    default = TrainFoundationConfig().backend
    config = decoded(TrainFoundationConfig, {"backend": {"type": name}})
    assert config.backend.random_shift_px == default.random_shift_px == 2
    for values in named_alone(config.backend):
        again = decoded(TrainFoundationConfig, {"backend": {"type": name, **values}})
        assert again == config, f"{name}: {values}"


def test_flags_of_nested_options_on_a_command_line(tmp_path: Path) -> None:
    config = draccus.parse(TrainFoundationConfig, args=["--optimizer.weight_decay=0", "--backend.dtype=bfloat16"])
    assert config.optimizer.lr == TrainFoundationConfig().optimizer.lr == 2e-3
    assert config.backend.random_shift_px == 2
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"optimizer": {"warmup_steps": 7}, "views": {"max_shift": 0.2}}))
    laq = draccus.parse(TrainLAQConfig, config_path=file, args=["--optimizer.weight_decay=0"])
    assert (laq.optimizer.lr, laq.optimizer.warmup_steps) == (TrainLAQConfig().optimizer.lr, 7)
    assert laq.views.max_contrast == TrainLAQConfig().views.max_contrast
