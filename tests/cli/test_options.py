"""Options of every command and policy: their defaults, their help, and the values that are refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, get_args, get_type_hints

import draccus
import pytest
from draccus.wrappers.docstring import get_attribute_docstring

from hlrp.cli.collect_demos import CollectDemosConfig
from hlrp.cli.import_lapa import ImportLapaConfig
from hlrp.cli.inspect_latents import InspectConfig
from hlrp.cli.precompute_latent_codes import PrecomputeConfig
from hlrp.cli.train_foundation import TrainFoundationConfig
from hlrp.cli.train_laq import TrainLAQConfig
from hlrp.demo.config import DemoConfig
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
OURS = ("hlrp", "lerobot_policy_felix_bundle")
REQUIRED = {CollectDemosConfig: {"output_dir": "demos"}, ImportLapaConfig: {"frame_offset_s": 1.0}}


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


def nested_kinds(kind: type) -> Iterator[type]:
    """`kind` and every configuration inside it: nested, items of a list, or one of a choice."""
    yield kind
    for hint in get_type_hints(kind).values():
        for inner in (hint, *get_args(hint)):
            if inner is BackendConfig:
                for choice in BackendConfig.get_known_choices().values():
                    yield from nested_kinds(choice)
            elif is_dataclass(inner) and isinstance(inner, type) and inner.__module__.split(".")[0] in OURS:
                yield from nested_kinds(inner)


def defining_class(kind: type, name: str) -> type:
    return next(base for base in kind.__mro__ if name in vars(base).get("__annotations__", {}))


@pytest.mark.parametrize("kind", [*COMMANDS, *LEROBOT])
def test_every_option_is_explained(kind: type) -> None:
    unexplained = [
        f"{one.__name__}.{f.name}"
        for one in nested_kinds(kind)
        for f in fields(one)
        if (owner := defining_class(one, f.name)).__module__.split(".")[0] in OURS
        and not get_attribute_docstring(owner, f.name).docstring_below
    ]
    assert not unexplained


@pytest.mark.parametrize("kind", COMMANDS)
def test_help_shows_the_defaults(kind: type) -> None:
    with pytest.raises(SystemExit), redirect_stdout(StringIO()) as text:
        draccus.parse(kind, args=["--help"])
    entries = {entry.split()[0]: entry for entry in re.split(r"\n  --", text.getvalue())[1:]}
    for name, value in vars(decoded(kind, {})).items():
        if not is_dataclass(value):
            assert "(default:" in " ".join(entries[name].split()), name
            assert name in REQUIRED.get(kind, {}) or str(value)[:8] in " ".join(entries[name].split()), name


def test_help_and_mistakes_are_answered_before_anything_heavy_is_imported() -> None:
    script = """
import contextlib, importlib, io, sys
commands = ["collect_demos", "train_laq", "precompute_latent_codes", "train_foundation", "inspect_latents",
            "import_lapa", "demo"]
for name in commands:
    main = importlib.import_module(f"hlrp.cli.{name}").main
    for argument in ("--help", "--no_such_option=1", "--seed=-1" if name != "import_lapa" else "--num_frames=1"):
        sys.argv = [name, "--output_dir=x", argument]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            with contextlib.suppress(SystemExit):
                main()
print(*sorted({"torch", "lightning", "lerobot", "transformers", "mujoco", "datasets"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
