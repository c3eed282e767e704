from __future__ import annotations

import csv
import errno
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hlrp.cli.train_laq import TrainLAQConfig, main, train_laq
from hlrp.laq import checkpoint
from hlrp.laq.checkpoint import WEIGHTS_FILE, load_laq
from hlrp.laq.task import LAQTask
from hlrp.training import CURVES_FILE
from tiny_datasets import CAMERA, create_dataset

STEPS = 12


@pytest.fixture
def config(image_dataset_root: Path, tmp_path: Path) -> TrainLAQConfig:
    """A few steps on the recorded images."""
    return TrainLAQConfig(
        dataset_root=str(image_dataset_root),
        output_dir=str(tmp_path / "out" / "laq"),
        preset="debug",
        steps=STEPS,
        batch_size=8,
        save_every=5,
        device="cpu",
    )


def weights(config: TrainLAQConfig) -> dict[str, torch.Tensor]:
    return load_file(Path(config.output_dir) / WEIGHTS_FILE)


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["hlrp-train-laq", *flags])
    main()


def test_the_loss_falls_and_the_run_leaves_a_checkpoint_with_its_card_and_curve(
    laq_path: Path, image_dataset_root: Path
) -> None:
    assert sorted(path.name for path in laq_path.parent.iterdir()) == ["laq"]
    with (laq_path / CURVES_FILE).open() as file:
        losses = [float(row["train/reconstruction"]) for row in csv.DictReader(file)]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]

    loaded = load_laq(laq_path)
    assert loaded.camera == CAMERA
    assert loaded.extra["steps"] == 60
    card = json.loads((laq_path / "quality.json").read_text())
    assert card["clips"] > 0
    assert card["probe_r2"] is not None
    assert card["probe_r2_per_action"][3] is None  # an action that never varies


@pytest.mark.parametrize("quantizer", ["fsq", "vq"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_and_resumed_run_ends_with_the_very_same_weights(
    config: TrainLAQConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantizer: str,
    error: type[BaseException],
) -> None:
    config = replace(config, quantizer=quantizer)
    train_laq(config)
    parts = replace(config, output_dir=str(tmp_path / "parts"))
    step = LAQTask.training_step

    def interrupted(self: LAQTask, frames: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == 8:
            raise error
        return step(self, frames, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LAQTask, "training_step", interrupted)
        patch.setattr("signal.signal", lambda *_: None)  # Lightning would ignore Ctrl+C from here on
        with pytest.raises((RuntimeError, SystemExit)):
            train_laq(parts)
    assert not Path(parts.output_dir).exists()

    torch.manual_seed(123)
    train_laq(replace(parts, resume=True))
    torch.testing.assert_close(weights(parts), weights(config), rtol=0, atol=0)
    assert load_laq(parts.output_dir).fingerprint == load_laq(config.output_dir).fingerprint
    assert not Path(f"{parts.output_dir}.training").exists()


def test_frames_in_memory_and_on_demand_train_the_same_model(config: TrainLAQConfig, tmp_path: Path) -> None:
    train_laq(config)
    streamed = replace(config, output_dir=str(tmp_path / "streamed"), cache_gib=0)
    train_laq(streamed)
    torch.testing.assert_close(weights(streamed), weights(config), rtol=0, atol=0)


def test_another_seed_trains_another_model(config: TrainLAQConfig, tmp_path: Path) -> None:
    other = replace(config, output_dir=str(tmp_path / "other"), seed=1)
    train_laq(config)
    train_laq(other)
    assert load_laq(other.output_dir).fingerprint != load_laq(config.output_dir).fingerprint


def test_three_frames_one_slot_and_no_augmentation_train_from_the_command_line(
    config: TrainLAQConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        monkeypatch,
        f"--dataset_root={config.dataset_root}",
        f"--output_dir={config.output_dir}",
        f"--camera={CAMERA}",
        "--preset=debug",
        "--quantizer=vq",
        "--codebook_size=5",
        "--code_seq_len=1",
        "--num_frames=3",
        "--frame_offset_s=0.2",
        "--augmentation.reverse_probability=0",
        "--augmentation.max_stretch=0",
        "--optimizer.lr=0.001",
        "--steps=2",
        "--batch_size=4",
        "--device=cpu",
    )
    spec = load_laq(config.output_dir).model.spec
    assert (spec.codebook_size, spec.code_seq_len, spec.num_frames, spec.frame_offset_s) == (5, 1, 3, 0.2)
    assert "probe R² from codes" in capsys.readouterr().out


def test_videos_without_actions_are_enough(config: TrainLAQConfig, tmp_path: Path) -> None:
    create_dataset(tmp_path / "video", video=True, lengths=(6, 6, 6), with_actions=False)
    quality = train_laq(replace(config, dataset_root=str(tmp_path / "video"), steps=2))
    assert quality.probe_r2 is None
    assert quality.clips == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset_root=nowhere"], "nowhere is not a LeRobotDataset: expected nowhere/meta/info.json"),
        (["--camera=wrist"], f"has no camera 'wrist'; it has {CAMERA}"),
        (["--frame_offset_s=2"], "a clip spans 21 frames but the longest episode has 20; use a shorter offset"),
        (["--frame_offset_s=0.01"], "frame_offset_s=0.01 is under one frame at 10"),
        (["--held_out=1"], "held_out must be between 0 and 1, got 1.0"),
        (["--preset=huge"], "preset must be one of debug, small, base, got 'huge'"),
        (["--codebook_size=1"], "codebook_size must be at least 2, got 1"),
        (["--codebook_size=34"], "fsq cannot spread codebook_size=34"),
        (["--image_size=40"], "must be a multiple of patch_size 16"),
        (["--steps=0"], "steps and batch_size must be positive, got 0 and 64"),
        (["--resume=true"], "nothing to resume"),
        (["--quantizer=rvq"], "invalid choice: 'rvq'"),
        (["--step=5"], "unrecognized arguments: --step=5"),
        (["--device=tpu9"], "this machine has no device 'tpu9'; use "),
    ],
)
def test_a_mistake_ends_in_one_line_status_2_and_nothing_left_behind(
    config: TrainLAQConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        run(
            monkeypatch,
            f"--dataset_root={config.dataset_root}",
            "--output_dir=laq",
            "--preset=debug",
            *flags,
        )
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in error
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_before_the_dataset_is_opened(config: TrainLAQConfig, tmp_path: Path) -> None:
    (tmp_path / "out" / "laq").mkdir(parents=True)
    (tmp_path / "out" / "laq" / "thesis").touch()
    with pytest.raises(FileExistsError, match="laq already exists; remove it or choose another folder"):
        train_laq(replace(config, dataset_root="nowhere"))


def test_held_out_episodes_too_short_for_a_clip_are_refused_before_training(
    config: TrainLAQConfig, tmp_path: Path
) -> None:
    create_dataset(tmp_path / "data", lengths=(12, 2))
    config = replace(config, dataset_root=str(tmp_path / "data"), frame_offset_s=0.3, held_out=0.5)
    held_out_short = next(
        seed for seed in range(20) if torch.randperm(2, generator=torch.Generator().manual_seed(seed))[0] == 1
    )
    with pytest.raises(ValueError, match="no held-out episode is long enough for a clip"):
        train_laq(replace(config, seed=held_out_short))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_half_written_and_the_training_can_be_kept(
    config: TrainLAQConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, save_every=STEPS)

    def write_half(model: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_model", write_half)
        with pytest.raises(OSError, match="No space left"):
            train_laq(config)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["laq.training"]
    train_laq(replace(config, resume=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["laq"]


def test_the_installed_command_reports_a_mistake_in_one_line(tmp_path: Path) -> None:
    command = shutil.which("hlrp-train-laq", path=str(Path(sys.executable).parent))
    assert command is not None
    found = subprocess.run(
        [command, f"--dataset_root={tmp_path / 'missing'}", f"--output_dir={tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 2
    assert found.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'missing'} is not a LeRobotDataset")
    assert "Traceback" not in found.stderr
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == []
