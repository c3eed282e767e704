"""`hlrp-check-leak` names what a policy sees and may not, and passes policies that see nothing of the future."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import draccus.wrappers.docstring
import pytest
import torch
from lerobot.configs import PreTrainedConfig

from hlrp.cli.check_leak import check_leak
from hlrp.cli.check_leak import main as check_leak_command
from hlrp.commands.lerobot_training import build_training
from hlrp.foundation.backends.embedded import embedded_size
from hlrp.foundation.backends.smolvlm.embedded_model import tiny_smol_processor, tiny_smolvlm_config
from hlrp.measure.leak.result import LeakReport, Row, Verdict
from hlrp.options.check_leak import CheckLeakConfig
from policy_workshop import SMALL, SPEC, Workshop, make_workshop
from tiny_datasets import CAMERA, FPS, SIZE, create_dataset

# To write the help of every field, draccus parses sources anew for each command: seconds, which nobody reads here.
draccus.wrappers.docstring.get_attribute_docstring = functools.cache(draccus.wrappers.docstring.get_attribute_docstring)

STATE = "observation.state"
LEAK, NOT_SEEN = Verdict.LEAK, Verdict.NOT_SEEN
PEEKING = ("--policy.discover_packages_path=peeking_plugin", "--policy.type=peeking")
OFFSET = SPEC.offset_frames(FPS)


@pytest.fixture(scope="module")
def workshop(image_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(image_dataset_root, tmp_path_factory.mktemp("workshop"))


@pytest.fixture(autouse=True)
def registered_policies() -> Iterator[None]:
    """Policies that a test registers are unknown again after it."""
    before = dict(PreTrainedConfig._choice_registry)
    yield
    for name in [name for name in sys.modules if name.startswith("peeking_plugin")]:
        del sys.modules[name]
    PreTrainedConfig._choice_registry.clear()
    PreTrainedConfig._choice_registry.update(before)


def dataset_flags(root: Path) -> list[str]:
    return ["--policy.device=cpu", "--dataset.repo_id=local/moving_square", f"--dataset.root={root}"]


def checked(root: Path, *flags: str, **options: Any) -> LeakReport:
    return check_leak(CheckLeakConfig(**{"samples": 4, **options}), [*dataset_flags(root), *flags])


def verdicts(report: LeakReport, column: str) -> dict[tuple[str, str], Verdict]:
    """Verdict of the loss or the action by key and change."""
    return {(row.key, row.change): getattr(row, column) for row in report.rows}


# ---- A policy that looks where it may not ----


def test_a_policy_that_sees_only_the_current_frame_is_clean(image_dataset_root: Path) -> None:
    report = checked(image_dataset_root, *PEEKING)
    assert report.leaks == ()
    assert not report.blind
    action, loss = verdicts(report, "action"), verdicts(report, "loss")
    assert loss["action", "from t on"] is Verdict.TARGET
    assert action["action", "from t on"] is NOT_SEEN
    assert action[STATE, "at t"] is loss[STATE, "at t"] is Verdict.USED
    assert action[CAMERA, "at t"] is Verdict.NOT_USED


@pytest.mark.parametrize(
    ("peeks", "key", "change", "loss", "action"),
    [
        ("window", STATE, "after t", LEAK, LEAK),
        ("loss", STATE, "after t", LEAK, NOT_SEEN),
        ("action", "action", "from t on", Verdict.TARGET, LEAK),
        ("needs_action", "action", "left out", Verdict.NOT_TESTED, LEAK),
        ("index", "index", "of another frame", Verdict.LOOKED_UP, LEAK),
        ("batch", "other items of the batch", "replaced", Verdict.NOT_TESTED, LEAK),
    ],
)
def test_a_policy_that_peeks_is_caught_and_the_key_is_named(
    image_dataset_root: Path, peeks: str, key: str, change: str, loss: Verdict, action: Verdict
) -> None:
    report = checked(image_dataset_root, *PEEKING, f"--policy.peeks={peeks}")
    assert verdicts(report, "loss")[key, change] is loss
    assert verdicts(report, "action")[key, change] is action
    assert {row.key for row in report.leaks} <= {key, "everything above"}
    assert f"{key} ({change})" in report.sentence
    assert report.sentence.startswith("leak: ")


def test_later_values_that_are_declared_to_be_targets_may_be_seen_by_the_loss(image_dataset_root: Path) -> None:
    flags = (*PEEKING, "--policy.peeks=target")
    assert verdicts(checked(image_dataset_root, *flags), "loss")[STATE, "after t"] is LEAK
    report = checked(image_dataset_root, *flags, target_keys=[STATE])
    assert verdicts(report, "loss")[STATE, "after t"] is Verdict.TARGET
    assert verdicts(report, "loss")[f"{STATE}_is_pad", "after t"] is Verdict.TARGET
    assert report.leaks == ()
    with pytest.raises(ValueError, match=r"target_keys names observation\.images\.side, of which this policy"):
        checked(image_dataset_root, *flags, target_keys=["observation.images.side"])


def test_a_policy_whose_action_depends_on_nothing_is_not_said_to_be_clean() -> None:
    control = Row(STATE, "at t", Verdict.USED, Verdict.NOT_USED)
    report = LeakReport((Row(STATE, "after t", NOT_SEEN, NOT_SEEN), control), ("select_action, frame t",))
    assert "says nothing about it" in report.sentence
    assert report.to_dict()["blind"] is True
    sees = replace(control, action=Verdict.USED)
    assert LeakReport((sees,), report.ways).sentence.startswith("no leak: neither the action nor the training loss")


def test_a_policy_of_chance_is_refused(image_dataset_root: Path) -> None:
    with pytest.raises(ValueError, match=r"two runs from the same random state differ \(training loss\)"):
        checked(image_dataset_root, *PEEKING, "--policy.peeks=chance")


def test_the_result_is_the_same_for_the_same_seed_and_the_random_state_stays(image_dataset_root: Path) -> None:
    reports = [checked(image_dataset_root, *PEEKING, "--policy.peeks=batch", seed=3) for _ in range(2)]
    assert reports[0] == reports[1]


# ---- Policies of LeRobot ----


ACT = (
    "--policy.type=act",
    "--policy.chunk_size=4",
    "--policy.n_action_steps=2",
    "--policy.dim_model=16",
    "--policy.n_heads=2",
    "--policy.dim_feedforward=16",
    "--policy.latent_dim=4",
    "--policy.n_encoder_layers=1",
    "--policy.n_vae_encoder_layers=1",
    "--policy.pretrained_backbone_weights=null",
)
DIFFUSION = (
    "--policy.type=diffusion",
    "--policy.horizon=8",
    "--policy.n_action_steps=4",
    "--policy.down_dims=[8,16]",
    "--policy.resize_shape=[64,64]",
    "--policy.pretrained_backbone_weights=null",
    "--policy.use_group_norm=true",
    "--policy.num_train_timesteps=4",
    "--policy.spatial_softmax_num_keypoints=4",
)


@pytest.mark.parametrize("flags", [ACT, DIFFUSION], ids=["act", "diffusion"])
def test_act_and_diffusion_are_clean(image_dataset_root: Path, flags: tuple[str, ...]) -> None:
    report = checked(image_dataset_root, *flags)
    assert report.leaks == ()
    assert verdicts(report, "action")[CAMERA, "at t"] is Verdict.USED
    assert verdicts(report, "loss")[CAMERA, "at t"] is Verdict.USED


def test_smolvla_is_clean(image_dataset_root: Path, tmp_path: Path) -> None:
    processor = tiny_smol_processor()
    tiny_smolvlm_config(embedded_size("debug"), processor, (SIZE, SIZE)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    names = {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "extra_special_tokens": names}))
    report = checked(
        image_dataset_root,
        "--policy.type=smolvla",
        f"--policy.vlm_model_name={tmp_path}",
        f"--policy.resize_imgs_with_padding=[{SIZE},{SIZE}]",
        "--policy.chunk_size=4",
        "--policy.n_action_steps=2",
        "--policy.num_steps=2",
        "--policy.num_vlm_layers=2",
        "--policy.max_state_dim=8",
        "--policy.max_action_dim=8",
    )
    assert report.leaks == ()
    assert verdicts(report, "action")[CAMERA, "at t"] is Verdict.USED


# ---- The policies of this project ----


def written(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(list(value) if isinstance(value, tuple) else value)


def our_flags(workshop: Workshop, kind: str) -> list[str]:
    settings = {"vla_checkpoint_path": workshop.foundation, "chunk_size": 4, "n_action_steps": 2, **SMALL[kind]}
    return [f"--policy.type={kind}", *(f"--policy.{name}={written(value)}" for name, value in settings.items())]


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("hlrp_vla_direct", "precomputed"),
        ("hlrp_vla_direct", "online"),
        ("hlrp_action_expert_latent", "precomputed"),
        pytest.param("hlrp_action_expert_direct", "precomputed", marks=pytest.mark.slow),
        pytest.param("hlrp_vla", "precomputed", marks=pytest.mark.slow),
        pytest.param("hlrp_diffusion", "precomputed", marks=pytest.mark.slow),
        pytest.param("hlrp_diffusion", "online", marks=pytest.mark.slow),
    ],
)
def test_our_policies_see_latent_labels_in_the_loss_alone(
    workshop: Workshop, kind: str, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    online = ("--policy.latent_targets=online", f"--policy.laq_checkpoint_path={workshop.laq}",
              f"--policy.teacher_offsets=[{OFFSET}]")  # fmt: skip
    report = checked(
        workshop.dataset_root,
        *our_flags(workshop, kind),
        "--policy.freeze_vla=false",
        "--policy.latent_loss_weight=1",
        *(online if source == "online" else ()),
    )
    action, loss = verdicts(report, "action"), verdicts(report, "loss")
    assert report.leaks == ()
    assert loss["latent labels", "label"] is Verdict.TARGET
    assert action["latent labels", "label"] is NOT_SEEN
    assert "learns nothing" not in caplog.text  # true of the labels that the check changes, not of the policy's own
    assert action[STATE, "at t"] is Verdict.USED
    if source == "online":
        assert loss[CAMERA, "after t"] is Verdict.TARGET
        assert action[CAMERA, "after t"] is NOT_SEEN


def test_a_policy_that_is_loaded_is_left_as_it_was(workshop: Workshop, tmp_path: Path) -> None:
    from lerobot.policies.factory import make_pre_post_processors

    policy = workshop.policy()
    policy.save_pretrained(tmp_path / "saved")
    for processor in make_pre_post_processors(policy.config, dataset_stats=workshop.dataset.meta.stats):
        processor.save_pretrained(tmp_path / "saved")
    before = {file: file.read_bytes() for file in (tmp_path / "saved").rglob("*") if file.is_file()}
    torch.manual_seed(5)
    report = checked(workshop.dataset_root, f"--policy.path={tmp_path / 'saved'}")
    assert report.leaks == ()
    assert before == {file: file.read_bytes() for file in (tmp_path / "saved").rglob("*") if file.is_file()}


# ---- The command ----


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["hlrp-check-leak", *arguments])
    try:
        check_leak_command()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    return 0


def test_the_command_ends_with_0_if_clean_and_with_1_and_one_sentence_if_leaking(
    image_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*dataset_flags(image_dataset_root), *PEEKING, "--samples=4", f"--json={tmp_path / 'leak.json'}"]
    assert run_command(monkeypatch, *flags) == 0
    out = capsys.readouterr().out
    assert "no leak: neither the action nor the training loss depends on anything that it may not" in out
    assert json.loads((tmp_path / "leak.json").read_text())["clean"] is True

    assert run_command(monkeypatch, *flags, "--policy.peeks=window") == 1
    captured = capsys.readouterr()
    sentence = (
        f"leak: the action chosen by this policy depends on {STATE} (after t) and its training loss depends on "
        f"{STATE} (after t)"
    )
    assert captured.err.splitlines()[-1] == sentence
    assert any(line.startswith(STATE) and "SEEN" in line for line in captured.out.splitlines())
    result = json.loads((tmp_path / "leak.json").read_text())
    assert result["clean"] is False
    assert {"key": STATE, "change": "after t", "loss": "SEEN", "action": "SEEN"} in result["rows"]


def test_the_command_checks_a_saved_act(
    image_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lerobot.policies.factory import make_pre_post_processors

    flags = dataset_flags(image_dataset_root)
    training = build_training([*flags, *ACT])
    training.policy.save_pretrained(tmp_path)
    for processor in make_pre_post_processors(training.policy.config, dataset_stats=training.dataset.meta.stats):
        processor.save_pretrained(tmp_path)
    assert run_command(monkeypatch, *flags, f"--policy.path={tmp_path}", "--samples=4") == 0
    assert "no leak" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--policy.type=act", "--samples=1"), "error: samples must be 2 or more, got 1"),
        (("--policy.type=act", "--samples=500"), "error: the check needs 1000 frames that are not the last"),
        ((), "error: --policy.type or --policy.path is missing; name policy and dataset as for lerobot-train"),
        (("--policy.type=act", "--policy.chunk_size=few"), "error: `policy`: Could not decode"),
    ],
)
def test_a_mistake_is_one_line(
    image_dataset_root: Path,
    flags: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = [flag for flag in ACT[1:] if flags and "=few" not in flags[-1]]
    place = [flag for flag in dataset_flags(image_dataset_root) if flags or "policy" not in flag]
    assert run_command(monkeypatch, *place, *flags, *small) == 2
    captured = capsys.readouterr()
    assert [line.startswith(says) for line in captured.err.splitlines() if line.startswith("error")] == [True]
    assert captured.out == ""


def test_a_dataset_without_actions_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create_dataset(tmp_path / "data", lengths=(5,), with_actions=False)
    assert run_command(monkeypatch, *dataset_flags(tmp_path / "data"), *ACT) == 2
    assert "has no actions, which a policy is trained on" in capsys.readouterr().err
