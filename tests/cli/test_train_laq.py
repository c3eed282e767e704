from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import ModelCard
from lerobot.utils.constants import ACTION
from safetensors.torch import load_file

from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.cli.train_laq import TrainLAQConfig, main, train_laq
from hlrp.commands import train_laq as train_laq_module
from hlrp.data.labels import find_labels
from hlrp.data.source_config import SourceConfig
from hlrp.laq import checkpoint
from hlrp.laq.batch import ClipBatch
from hlrp.laq.checkpoint import WEIGHTS_FILE, load_laq
from hlrp.laq.objective.task import LAQTask
from hlrp.storage.artefacts import CURVES_FILE
from power_cut import power_cut
from tiny_datasets import CAMERA, LENGTHS, create_dataset
from tiny_videos import write_video

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
    assert loaded.cameras == [CAMERA]
    assert loaded.extra["steps"] == 60
    card = json.loads((laq_path / "quality.json").read_text())
    assert card["clips"] > 0
    assert card["probe_r2"] is not None
    assert card["probe_r2_per_action"][3] is None  # an action that never varies


@pytest.mark.parametrize("quantizer", ["kmeans", "vq"])
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

    def interrupted(self: LAQTask, batch: ClipBatch, batch_idx: int) -> torch.Tensor:
        if self.global_step == 8:
            raise error
        return step(self, batch, batch_idx)

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


def test_a_signal_after_the_last_step_keeps_the_training_and_tells_how_to_go_on(
    config: TrainLAQConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flags = [f"--dataset_root={config.dataset_root}", f"--output_dir={config.output_dir}", "--preset=debug"]
    flags += ["--steps=2", "--batch_size=4", "--device=cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(train_laq_module, "evaluate_laq", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as exit_:
            run(patch, *flags)
    assert exit_.value.code == 143
    told, _, command = caplog.messages[-1].partition("\n")
    assert told == "the state of the run is saved; continue it with"
    assert command.split() == ["hlrp-train-laq", *flags, "--resume=true"]
    run(monkeypatch, *flags, "--resume=true")
    assert load_laq(config.output_dir).extra["steps"] == 2


def test_a_run_is_resumed_on_the_data_and_with_the_settings_it_began_with(
    config: TrainLAQConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with power_cut(monkeypatch, LAQTask):
        train_laq(config)
    again = replace(config, resume=True, num_workers=0, save_every=7, cache_gib=1)
    for changes, message in [
        (
            {"seed": 1},
            "--seed was 0 in the interrupted run and is 1 now; resume with what it was begun with",
        ),
        ({"codebook_size": 8}, "--codebook_size was 16 in the interrupted run and is 8 now"),
        ({"frame_offset_s": 0.2, "held_out": 0.5}, "--frame_offset_s was 0.1 .* now; --held_out was 0.1"),
        ({"optimizer": replace(config.optimizer, lr=1.0)}, "--optimizer.lr was 0.0015 .* is 1.0 now"),
        ({"sources": [SourceConfig(dataset_root="x")], "dataset_root": None}, r"--sources\[0\].weight was not set"),
        ({"steps": STEPS - 1}, f"is at step {STEPS} already and cannot end at step {STEPS - 1}"),
    ]:
        with pytest.raises(ValueError, match=message):
            train_laq(replace(again, **changes))
    for name, lengths, seed in (("grown", (*LENGTHS, 12), 0), ("recorded again", LENGTHS, 1)):
        create_dataset(tmp_path / name, lengths=lengths, seed=seed)
        with pytest.raises(ValueError, match=r"of source 1 was .* in the interrupted run and is .* now") as caught:
            train_laq(replace(again, dataset_root=str(tmp_path / name)))
        number = "the number of episodes of source 1 was 6 in the interrupted run and is 7 now"
        assert (number in str(caught.value)) == (name == "grown")

    shutil.copytree(config.dataset_root or "", tmp_path / "moved")
    assert train_laq(replace(again, dataset_root=str(tmp_path / "moved"))) is not None


def test_a_run_that_is_resumed_with_more_steps_trains_its_encoder_again_and_fits_its_codes_later(
    config: TrainLAQConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with power_cut(monkeypatch, LAQTask):
        train_laq(config)
    state = torch.load(Path(f"{config.output_dir}.training") / "last.ckpt", weights_only=True)["state_dict"]
    assert state["model.quantizer.fitted"]
    train_laq(replace(config, resume=True, steps=2 * STEPS))
    model = load_laq(config.output_dir).model
    assert model.quantizer.is_final
    assert not torch.equal(model.encoder.slots, state["model.encoder.slots"])
    assert not torch.equal(model.quantizer.mean, state["model.quantizer.mean"])


def test_a_run_is_not_resumed_with_so_few_steps_that_its_codes_are_never_fitted(
    config: TrainLAQConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with power_cut(monkeypatch, LAQTask, at_step=config.save_every):
        train_laq(config)
    with pytest.raises(ValueError, match=r"at step 5 already and has no fitted codes, which are due at step 4 .* more"):
        train_laq(replace(config, resume=True, steps=config.save_every))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_encoder_stays_as_it_is_once_the_codes_are_fitted(
    config: TrainLAQConfig, monkeypatch: pytest.MonkeyPatch, ema_decay: float
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    step = LAQTask.training_step

    def watched(self: LAQTask, batch: ClipBatch, batch_idx: int) -> torch.Tensor:
        loss = step(self, batch, batch_idx)
        if self.model.quantizer.is_final:
            seen.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})
        return loss

    monkeypatch.setattr(LAQTask, "training_step", watched)
    train_laq(replace(config, trainer=replace(config.trainer, ema_decay=ema_decay)))
    assert len(seen) == round(config.code_fit_share * STEPS)
    changed = {name for name, value in weights(config).items() if not torch.equal(value, seen[0][name])}
    assert {name.split(".")[0] for name in changed if "until_fitted" not in name} == {"decoder"}


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
    assert "latent quality (held-out episodes)" in capsys.readouterr().out


def lose_actions(root: Path, frames: Sequence[int]) -> None:
    """Make the actions at `frames` NaN, as where a robot's tracking was lost."""
    [file] = (root / "data").rglob("*.parquet")
    table = pq.read_table(file)
    rows = table.column(ACTION).to_pylist()
    for frame in frames:
        rows[frame] = [torch.nan] * 4
    place = table.column_names.index(ACTION)
    pq.write_table(table.set_column(place, table.field(place), [pa.array(rows, table.field(place).type)]), file)


def test_a_choice_of_episodes_is_split_and_recorded_and_lost_actions_are_no_labels(
    config: TrainLAQConfig, image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(image_dataset_root, tmp_path / "lost"))
    lose_actions(root, [*range(12, 92, 5), *range(60, 78)])  # and all of episode 4
    caplog.set_level("INFO")
    train_laq(replace(config, dataset_root=str(root), episodes=[1, 2, 4, 5], labelled_fraction=1.0, held_out=0.25))
    assert "30 of 92 frames of lost have an action that is NaN or infinite" in caplog.text
    loaded = load_laq(config.output_dir)
    [source] = loaded.extra["sources"]
    assert source["chosen_episodes"] == [1, 2, 4, 5]
    assert len(source["held_out_episodes"]) == 1
    assert {*source["labelled_episodes"]} == {1, 2, 5} - {*source["held_out_episodes"]}
    assert all(value.isfinite().all() for value in weights(config).values())


def test_codes_are_fitted_to_the_actions_of_labelled_clips_alone(
    config: TrainLAQConfig, image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    root = Path(shutil.copytree(image_dataset_root, tmp_path / "lost"))
    lose_actions(root, range(60, 78))
    train_laq(replace(config, dataset_root=str(root), labelled_fraction=1.0, fit_codes_to="actions"))
    [fitted] = re.findall(r"codes fitted to the actions of (\d+) of (\d+) transitions", caplog.text)
    assert 0 < int(fitted[0]) < int(fitted[1])
    assert bool(load_laq(config.output_dir).model.quantizer.is_final)
    create_dataset(tmp_path / "video", video=True, lengths=(6, 6, 6), with_actions=False)
    without = replace(config, dataset_root=str(tmp_path / "video"), output_dir=str(tmp_path / "without"))
    with pytest.raises(ValueError, match=r"labelled"):
        train_laq(replace(without, labelled_fraction=1.0, fit_codes_to="actions"))


def test_videos_without_actions_are_enough(config: TrainLAQConfig, tmp_path: Path) -> None:
    create_dataset(tmp_path / "video", video=True, lengths=(6, 6, 6), with_actions=False)
    quality = train_laq(replace(config, dataset_root=str(tmp_path / "video"), steps=2))
    assert quality is not None
    assert quality.probe.probe_r2 is None
    assert quality.clips == 5


def make_films(folder: Path) -> Path:
    """Two mp4 files and one webm of other rates; no robot in sight."""
    write_video(folder / "one.mp4", 20)
    write_video(folder / "two.mp4", 15, size=64)
    write_video(folder / "three.webm", 24, fps=20)
    return folder


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_a_folder_of_videos_is_enough(config: TrainLAQConfig, tmp_path: Path, cache_gib: float) -> None:
    films = make_films(tmp_path / "films")
    config = replace(config, dataset_root=None, video_dir=str(films), steps=2, cache_gib=cache_gib, held_out=0.3)
    quality = train_laq(config)
    assert quality is not None
    assert quality.probe.probe_r2 is None
    loaded = load_laq(config.output_dir)
    assert loaded.cameras == []
    assert loaded.extra["sources"][0]["name"] == "films"
    assert len(loaded.extra["sources"][0]["held_out_episodes"]) == 1


def test_two_cameras_and_few_labels_end_in_a_checkpoint_that_labels_both(
    config: TrainLAQConfig, tmp_path: Path
) -> None:
    cameras = [CAMERA, "observation.images.wrist"]
    root = str(tmp_path / "two")
    create_dataset(tmp_path / "two", cameras=cameras)
    config = replace(config, dataset_root=root, cameras=cameras, labelled_fraction=0.3, idle_weight=0.5, steps=2)
    train_laq(config)
    loaded = load_laq(config.output_dir)
    assert loaded.cameras == cameras
    assert (loaded.model.config.num_cameras, loaded.model.config.action_dim) == (2, 4)
    assert len(loaded.extra["sources"][0]["labelled_episodes"]) == 2
    assert len(loaded.extra["action_statistics"]["mean"]) == 4
    precompute_latent_codes(PrecomputeConfig(laq_path=config.output_dir, dataset_root=root, device="cpu"))
    labels = find_labels(root)
    assert (labels.metadata.camera, labels.metadata.further_cameras) == (cameras[0], cameras[1:])
    with pytest.raises(ValueError, match="this LAQ was trained on 2 cameras, got 1; name 2 with cameras"):
        precompute_latent_codes(
            PrecomputeConfig(
                laq_path=config.output_dir, dataset_root=root, camera=CAMERA, output_dir=str(tmp_path / "o")
            )
        )


@pytest.mark.parametrize("from_file", [False, True])
def test_several_sources_are_named_on_the_command_line_or_in_a_file(
    config: TrainLAQConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_file: bool
) -> None:
    films = make_films(tmp_path / "films")
    sources = (
        f"[{{dataset_root: {config.dataset_root}, weight: 2, cameras: [{CAMERA}]}}, {{video_dir: {films}, weight: 1}}]"
    )
    (tmp_path / "laq.yaml").write_text(f"sources: {sources}\n")
    named = f"--config_path={tmp_path / 'laq.yaml'}" if from_file else f"--sources={sources}"
    run(monkeypatch, named, f"--output_dir={config.output_dir}", "--preset=debug", "--steps=2", "--device=cpu")
    loaded = load_laq(config.output_dir)
    assert loaded.cameras == [CAMERA]
    assert [source["name"] for source in loaded.extra["sources"]] == ["images", "films"]
    pairs = [(pair["codes_of"], pair["frames_of"]) for pair in loaded.extra["across_sources"]]
    assert pairs == [("1: images", "2: films"), ("2: films", "1: images")]
    assert all(0 <= pair["transfer_consistency"] <= 1 for pair in loaded.extra["across_sources"])
    assert all(source["held_out_episodes"] for source in loaded.extra["sources"])
    card = (Path(config.output_dir) / "README.md").read_text()
    assert "| images | 67% | 6 | 1 |" in card
    assert "| films | 33% | 3 | 1 |" in card
    assert "codes read back" in card
    assert str(tmp_path) not in card
    assert "local/" not in card
    assert (ModelCard(card).data.license, ModelCard(card).data.datasets) == ("apache-2.0", None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset_root=nowhere"], "nowhere is not a LeRobotDataset: expected nowhere/meta/info.json"),
        (["--camera=wrist"], f"has no camera 'wrist'; it has {CAMERA}"),
        (["--frame_offset_s=2"], "a clip spans 21 frames but the longest episode has 20; use a shorter offset"),
        (["--frame_offset_s=0.01"], "frame_offset_s=0.01 is under one frame at 10"),
        (["--held_out=1"], "held_out must be in (0, 1), got 1.0"),
        (["--preset=huge"], "preset must be one of debug, tiny, small, base, lapa, got 'huge'"),
        (["--codebook_size=1"], "codebook_size must be 2 or more, got 1"),
        (["--codebook_size=34"], "fsq cannot spread codebook_size=34"),
        (["--image_size=40"], "must be a multiple of patch_size 16"),
        (["--steps=0"], "steps must be 1 or more, got 0"),
        (["--resume=true"], "nothing to resume"),
        (["--video_dir=films"], "video_dir and dataset_root exclude each other: plain videos are no dataset"),
        (["--video_fps=5"], "video_fps goes with video_dir; a dataset has its own frame rate"),
        (["--skip_bad_videos=true"], "skip_bad_videos goes with video_dir"),
        (["--episodes=[0,1,77]"], "episodes has [77], and images the episodes 0 to 5"),
        (["--episodes=[]"], "episodes is empty, which would leave nothing to train on"),
        (["--episodes=[1,2,1]"], "episodes must be different numbers from 0 on, got [1, 2, 1]"),
        (["--sources=[{dataset_root: a, episodes: [-1]}]"], "episodes must be different numbers from 0 on, got [-1]"),
        (["--sources=[{video_dir: films}]"], "name all datasets, cameras, episodes and video folders inside sources"),
        (["--camera=a", "--cameras=[b]"], "name one camera with camera or several with cameras, not both"),
        (["--labelled_episodes=[77]"], "episodes [77] of images cannot be labelled"),
        (["--labelled_fraction=0.1", "--labelled_episodes=[1]"], "labelled_episodes names episodes of a single source"),
        (["--idle_weight=0"], "idle_weight must be above 0, got 0.0"),
        (["--quantizer=lfq"], "quantizer must be one of kmeans, fsq, nsvq, vq, simvq, rvq, continuous, got 'lfq'"),
        (["--fit_codes_to=robot"], "fit_codes_to must be video or actions, got 'robot'"),
        (["--fit_codes_to=actions"], "fit_codes_to=actions needs the quantizer kmeans and labelled episodes"),
        (["--step=5"], "unrecognized arguments: --step=5"),
        (["--device=tpu9"], "this machine has no device 'tpu9'; use "),
        (
            ["--log_json=none/log.jsonl"],
            "the folder of log_json none/log.jsonl does not exist; create it",
        ),
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


def test_episodes_too_short_for_a_clip_are_refused_before_training(config: TrainLAQConfig, tmp_path: Path) -> None:
    create_dataset(tmp_path / "data", lengths=(3, 2))
    config = replace(config, dataset_root=str(tmp_path / "data"), frame_offset_s=0.3)
    with pytest.raises(ValueError, match="a clip spans 4 frames but the longest episode has 3; use a shorter offset"):
        train_laq(config)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing_half_written_and_the_training_can_be_kept(
    config: TrainLAQConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, save_every=STEPS)

    def write_half(model: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_weights", write_half)
        with pytest.raises(OSError, match="No space left"):
            train_laq(config)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["laq.training"]
    train_laq(replace(config, resume=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["laq"]
