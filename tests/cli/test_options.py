"""Options of every command and policy: their defaults, their help, and the values that are refused."""

from __future__ import annotations

import json
import math
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
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies.act.configuration_act import ACTConfig

from hlrp.cli.check_leak import CheckLeakConfig
from hlrp.cli.collect_demos import CollectDemosConfig
from hlrp.cli.combine_datasets import CombineDatasetsConfig
from hlrp.cli.import_lapa import ImportLapaConfig
from hlrp.cli.inspect_latents import InspectConfig
from hlrp.cli.precompute_latent_codes import PrecomputeConfig
from hlrp.cli.precompute_latent_codes import main as label_command
from hlrp.cli.pseudo_label import PseudoLabelConfig
from hlrp.cli.train_foundation import TrainFoundationConfig
from hlrp.cli.train_laq import TrainLAQConfig
from hlrp.cli.train_laq import main as train_laq_command
from hlrp.cli.view_labels import ViewLabelsConfig
from hlrp.demo.config import DemoConfig
from hlrp.foundation.backends import BackendConfig
from hlrp.runtime.number_options import bools_are_no_numbers
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
    CombineDatasetsConfig,
    PseudoLabelConfig,
    CheckLeakConfig,
    ViewLabelsConfig,
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
REQUIRED = {
    CollectDemosConfig: {"output_dir": "demos"},
    ImportLapaConfig: {"frame_offset_s": 1.0},
    PseudoLabelConfig: {"output_dir": "completed"},
    CombineDatasetsConfig: {"output_dir": "all", "sources": [{"video_dir": "films", "instruction": "Open the door"}]},
}


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
            "import_lapa", "demo", "combine_datasets", "check_leak"]
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


def not_finite(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The innermost entry of `values` replaced by NaN, in every place where it holds a float."""
    ((name, value),) = values.items()
    if isinstance(value, dict):
        return [{name: inner} for inner in not_finite(value)] if len(value) == 1 else []
    if isinstance(value, list):
        return [{name: [math.nan, *value[1:]]}] if value and isinstance(value[0], float) else []
    return [{name: math.nan}] if isinstance(value, float) else []


@pytest.mark.parametrize("kind", [*COMMANDS, *LEROBOT])
def test_not_a_number_is_refused_wherever_a_number_is_asked_for(kind: type) -> None:
    for values in named_alone(decoded(kind, {})):
        for wrong in not_finite(values):
            with pytest.raises(draccus.ParsingError) as refused:
                decoded(kind, wrong)
            assert "nan" in str(refused.value.__cause__ or refused.value), wrong


def with_a_bool(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The innermost entry of `values` replaced by `true`, in every place where it holds a number."""
    ((name, value),) = values.items()
    if isinstance(value, dict):
        return [{name: inner} for inner in with_a_bool(value)] if len(value) == 1 else []
    if isinstance(value, list):
        return [{name: [True, *value[1:]]}] if value and type(value[0]) in (int, float) else []
    return [{name: True}] if type(value) in (int, float) else []


@pytest.mark.parametrize("kind", COMMANDS)
def test_true_is_refused_wherever_a_number_is_asked_for(kind: type) -> None:
    wrong = [wrong for values in named_alone(decoded(kind, {})) for wrong in with_a_bool(values)]
    assert wrong
    for values in wrong:
        with bools_are_no_numbers(), pytest.raises(draccus.ParsingError, match="expected a number, got true"):
            decoded(kind, values)


def test_lerobots_own_options_are_read_as_before() -> None:
    with bools_are_no_numbers():
        pass
    # LeRobot declares this option as an int, and saves it as false.
    assert decoded(ACTConfig, {"replace_final_stride_with_dilation": False}) is not None


@pytest.mark.parametrize("value", [True, [1, False]])
def test_true_is_refused_for_a_number_that_may_be_left_out(value: object) -> None:
    for kind, name in (
        (TrainLAQConfig, "image_size"),
        (InspectConfig, "episodes"),
    ):
        with bools_are_no_numbers(), pytest.raises(draccus.ParsingError):
            decoded(kind, {name: value})
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got True"):
        TrainLAQConfig(batch_size=True)


@pytest.mark.parametrize(
    ("kind", "wrong", "says"),
    [
        (TrainLAQConfig, {"save_every": 0}, "save_every must be 1 or more"),
        (TrainLAQConfig, {"sources": [{"video_dir": "x", "weight": math.nan}]}, "weight must be finite and above 0"),
        (TrainLAQConfig, {"video_dir": "x", "video_fps": -3.0}, "video_fps must be above 0"),
        (TrainLAQConfig, {"image_size": 0}, "image_size must be 1 or more"),
        (TrainLAQConfig, {"cache_gib": -1.0}, "cache_gib must be 0 or more"),
        (TrainLAQConfig, {"num_workers": -1}, "num_workers must be 0 or more"),
        (TrainLAQConfig, {"codebook_size": 1}, "codebook_size must be 2 or more"),
        (TrainLAQConfig, {"idle_weight": 0.0}, "idle_weight must be above 0"),
        (TrainLAQConfig, {"held_out": 1.0}, r"held_out must be in \(0, 1\)"),
        (TrainLAQConfig, {"seed": -1}, "seed must be 0 or more"),
        (TrainLAQConfig, {"trainer": {"gates": [{"metric": "x", "at_step": 1, "at_most": math.nan}]}}, "at_most of"),
        (TrainFoundationConfig, {"validate_every": 0}, "validate_every must be 1 or more"),
        (TrainFoundationConfig, {"optimizer": {"lr": -1e-3}}, "lr must be above 0"),
        (TrainFoundationConfig, {"backend": {"image_size": [0, 64]}}, "image_size must be 1 or more"),
        (TrainFoundationConfig, {"backend": {"embedded_size": "huge"}}, "embedded_size must be one of debug, demo"),
        (TrainFoundationConfig, {"sources": [{"weight": 0.0}]}, "weight must be above 0"),
        (TrainLAQConfig, {"batch_size": 1}, "needs two or more; got batch_size=1"),
        (TrainLAQConfig, {"batch_size": 8, "trainer": {"accumulate": 8}}, "got batch_size=8 and trainer.accumulate=8"),
        (InspectConfig, {"labeller_steps": 0}, "labeller_steps must be 1 or more"),
        (PrecomputeConfig, {"batch_size": 0}, "batch_size must be 1 or more"),
        (ImportLapaConfig, {"frame_offset_s": math.inf}, "frame_offset_s must be finite"),
        (CollectDemosConfig, {"num_workers": -1}, "num_workers must be 0 or more"),
        (DemoConfig, {"image_size": 70}, "must be a multiple of patch_size 16"),
        (HLRPVLADirectConfig, {"image_size": [0, 0]}, "image_size must be 1 or more"),
        (HLRPActionExpertLatentConfig, {"kernel_size": 0}, "kernel_size must be 1 or more"),
        (LightMetaworldConfig, {"episode_length": 501}, r"episode_length must be in \[1, 500\]"),
    ],
)
def test_an_impossible_option_is_refused_when_it_is_read(kind: type, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(draccus.ParsingError) as refused:
        decoded(kind, wrong)
    assert re.search(says, str(refused.value.__cause__ or refused.value))


@pytest.mark.parametrize("kind", [TrainLAQConfig, TrainFoundationConfig])
@pytest.mark.parametrize("single", [{"dataset_repo_id": "a/b"}, {"dataset_root": "a"}, {"episodes": [0]}])
def test_a_single_dataset_beside_several_is_never_passed_over(kind: type, single: dict[str, Any]) -> None:
    with pytest.raises(draccus.ParsingError) as refused:
        decoded(kind, {"sources": [{"dataset_root": "x"}], **single})
    assert "inside sources" in str(refused.value.__cause__ or refused.value)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            ["--policy.type=hlrp_vla_direct", "--policy.chunk_size=8", "--policy.n_action_steps=99"],
            "n_action_steps must be",
        ),
        (["--policy.type=hlrp_vla", "--policy.laq_decoder_type=x"], "laq_decoder_type must be one of learned"),
        (["--policy.type=hlrp_diffusion", "--policy.torch_dtype=x"], "torch_dtype must be one of bf16"),
        (["--policy.type=hlrp_action_expert_latent", "--policy.expert=x"], "expert must be one of diffusion, flow"),
        (["--policy.type=hlrp_action_expert_direct", "--policy.num_denoising_steps=0"], "num_denoising_steps must be"),
        (["--env.type=hlrp_metaworld", "--env.fps=30"], "fps must be 80"),
    ],
)
def test_a_command_of_lerobot_ends_with_our_reason(flags: list[str], says: str) -> None:
    with pytest.raises(draccus.ParsingError, match=says) as refused:
        draccus.parse(TrainPipelineConfig, args=["--dataset.repo_id=x", *flags])
    assert "Couldn't instantiate" not in str(refused.value)


def test_a_configuration_made_in_python_raises_an_ordinary_error() -> None:
    with pytest.raises(ValueError, match="n_action_steps must be between 1 and chunk_size"):
        HLRPVLADirectConfig(n_action_steps=99, chunk_size=8)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.yaml", b"", "holds nothing, expected options by name"),
        ("list.yaml", b"- steps", "holds a list"),
        ("number.json", b"3", "holds a int"),
        ("broken.yaml", b"steps: [", "cannot be read"),
        ("broken.json", b"{", "cannot be read"),
        ("noise.yaml", b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_file_of_options_that_holds_none_is_named(
    name: str,
    content: bytes,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_bytes(content)
    for flags in ([f"--config_path={tmp_path / name}"], ["--config_path", str(tmp_path / name)]):
        monkeypatch.setattr(sys, "argv", ["hlrp-train-laq", "--steps=1", *flags])
        with pytest.raises(SystemExit) as ended:
            train_laq_command()
        assert ended.value.code == 2
        assert f"error: config_path {tmp_path / name} {says}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--optimizer.lr=-1", "error: lr must be above 0, got -1.0"),
        ("--batch_size=true", "error: `batch_size`: expected a number, got true"),
        (
            "--image_size=true",
            "error: `image_size`: Could not decode the value into any of the given types: int: expec",
        ),
        ("--optimizer.lr=fast", "error: `optimizer.lr`: Couldn't parse 'fast' into a float"),
        ("--sources=[{weight: -1, video_dir: x}]", "error: weight must be above 0, got -1.0"),
        ("--sources=[{", "error: while parsing a flow node"),
    ],
)
def test_a_command_of_ours_ends_with_the_innermost_reason(
    flag: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hlrp-train-laq", flag])
    with pytest.raises(SystemExit) as ended:
        train_laq_command()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(says)


@pytest.mark.parametrize(
    "flag", ["--laq_path=!include {}", "--cameras=[!include {}]", "--laq_path=include {}", "--laq_path=include/{}"]
)
def test_no_option_reads_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    (tmp_path / "secret").write_text("hunter2")
    monkeypatch.setattr(sys, "argv", ["hlrp-precompute-latent-codes", flag.format(tmp_path / "secret")])
    with pytest.raises(SystemExit) as stop:
        label_command()
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert "no option reads another file" in printed.err
    assert "hunter2" not in printed.err + printed.out
