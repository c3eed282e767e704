from __future__ import annotations

import errno
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.datasets.dataset_tools import delete_episodes
from safetensors.torch import load_file

from hlrp.cli.train_foundation import TrainFoundationConfig, main, train_foundation
from hlrp.commands.train_foundation import _open
from hlrp.data.dataset import open_dataset
from hlrp.data.labelled_frames import OrderedBatches
from hlrp.data.labels import load_labels, save_labels
from hlrp.data.observation_sources import HeldOut, ObservationConfig, open_for_online_labels, open_labelled
from hlrp.data.recordings import describe_observations
from hlrp.foundation import checkpoint
from hlrp.foundation.backends import QwenVLChatConfig, SmolLatentHeadBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import METRICS_FILE, WEIGHTS_FILE, load_foundation
from hlrp.foundation.lora import LoRASettings
from hlrp.foundation.predictions import predict_codes
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.laq.checkpoint import load_laq
from hlrp.measure.code_accuracy import code_accuracy
from hlrp.report.pages.foundation_page import PAGE_FILE
from hlrp.storage.artefacts import CURVES_FILE
from power_cut import power_cut
from tiny_datasets import CAMERA

STEPS = 10
FIGURES = {"teacher_forced_accuracy", "decoded_accuracy", "exact_sequence_accuracy", "constant_guess_accuracy"}


@pytest.fixture
def config(labelled_dataset_root: Path, tmp_path: Path) -> TrainFoundationConfig:
    """A few steps of the embedded debug model, with shifted images, on the labelled recordings."""
    return TrainFoundationConfig(
        dataset_root=str(labelled_dataset_root),
        output_dir=str(tmp_path / "out" / "vla"),
        backend=QwenVLChatConfig(embedded_size="debug", image_size=(32, 32), random_shift_px=2),
        steps=STEPS,
        batch_size=8,
        save_every=4,
        device="cpu",
    )


@pytest.fixture
def tiny_flags(config: TrainFoundationConfig) -> list[str]:
    return [
        f"--dataset_root={config.dataset_root}",
        "--output_dir=vla",
        "--backend.embedded_size=debug",
        "--backend.image_size=[32,32]",
        "--steps=2",
        "--batch_size=4",
        "--device=cpu",
    ]


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["hlrp-train-foundation", *flags])
    main()


def test_a_run_saves_a_checkpoint_that_loads_and_predicts(
    config: TrainFoundationConfig, laq_path: Path, tmp_path: Path
) -> None:
    figures = train_foundation(config)
    assert set(figures) >= FIGURES
    assert all(0 <= figures[name] <= 1 for name in FIGURES)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vla"]
    assert (tmp_path / "out" / "vla" / CURVES_FILE).is_file()

    laq = load_laq(laq_path)
    loaded = load_foundation(config.output_dir)
    assert loaded.description.laq_fingerprint == laq.fingerprint
    assert loaded.description.latent_spec == laq.model.spec
    assert loaded.description.extra["cameras"] == [CAMERA]
    assert loaded.description.extra["validation"] == figures
    batch = FoundationBatch(torch.rand(3, 1, 3, 32, 32), ["Move the square to the right"] * 3)
    codes = loaded.backend.predict(batch).codes
    assert codes.shape == (3, 4)
    assert codes.min() >= 0
    assert codes.max() < laq.model.spec.codebook_size


def test_an_interrupted_and_resumed_run_ends_with_the_very_same_weights_and_figures(
    config: TrainFoundationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = train_foundation(config)
    parts = replace(config, output_dir=str(tmp_path / "parts"))
    with power_cut(monkeypatch, VLABackendModule, at_step=6):
        train_foundation(parts)
    assert not Path(parts.output_dir).exists()

    resumed = train_foundation(replace(parts, resume=True))
    assert resumed == figures
    one, other = (load_file(Path(folder) / WEIGHTS_FILE) for folder in (config.output_dir, parts.output_dir))
    torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_figures_are_of_the_weights_that_are_saved(config: TrainFoundationConfig) -> None:
    sources, _ = _open(config)
    held_out = list(OrderedBatches([source.held_out for source in sources], batch_size=config.batch_size))
    adapters = replace(config.backend, lora=LoRASettings(rank=2))
    for name, backend in {"whole": config.backend, "adapters": adapters}.items():
        each = replace(config, steps=6, validate_every=4, output_dir=f"{config.output_dir}-{name}", backend=backend)
        told = train_foundation(each)
        quality = json.loads((Path(each.output_dir) / METRICS_FILE).read_text())["quality"]
        saved = code_accuracy(predict_codes(load_foundation(each.output_dir).backend, held_out), codebook_size=16)
        assert (told["decoded_accuracy"], told["calibration_error"]) == pytest.approx(
            (saved.decoded_accuracy, saved.calibration_error), abs=1e-5
        )
        assert (quality["decoded_accuracy"], quality["calibration_error"]) == pytest.approx(
            (saved.decoded_accuracy, saved.calibration_error), abs=1e-5
        )


def test_a_run_is_resumed_on_the_labels_and_with_the_settings_it_began_with(
    config: TrainFoundationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with power_cut(monkeypatch, VLABackendModule):
        train_foundation(config)
    again = replace(config, resume=True, validate_every=2)
    with pytest.raises(ValueError, match=r"--backend\.random_shift_px was 2 in the interrupted run and is 0 now"):
        train_foundation(replace(again, backend=replace(config.backend, random_shift_px=0)))
    labels = load_labels(Path(config.dataset_root or "") / "latents", with_vectors=True)
    others = replace(labels, codes=torch.where(labels.codes < 0, labels.codes, 15 - labels.codes))
    save_labels(others, tmp_path / "labels")
    with pytest.raises(ValueError, match="the fingerprint of the content of source 1 was"):
        train_foundation(replace(again, labels_path=str(tmp_path / "labels")))
    assert set(train_foundation(again)) >= FIGURES


def test_a_full_disk_leaves_nothing_half_written_and_the_training_can_be_kept(
    config: TrainFoundationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, steps=4)

    def write_half(model: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_weights", write_half)
        with pytest.raises(OSError, match="No space left"):
            train_foundation(config)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vla.training"]
    assert set(train_foundation(replace(config, resume=True))) >= FIGURES
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vla"]


def test_the_loss_falls(config: TrainFoundationConfig, tmp_path: Path) -> None:
    train_foundation(replace(config, steps=40, batch_size=16))
    lines = (Path(config.output_dir) / CURVES_FILE).read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    losses = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("is_online", [False, True])
def test_frames_are_of_the_chosen_episodes_alone(
    config: TrainFoundationConfig, laq_path: Path, is_online: bool
) -> None:
    one = ObservationConfig(dataset_root=config.dataset_root, episodes=[4, 1, 2])
    held_out = HeldOut(share=0.4, frames=1024, seed=0)
    settings: dict[str, Any] = {"image_size": (32, 32), "cache_gib": 1.0}
    if is_online:
        source = open_for_online_labels(one, load_laq(laq_path), held_out, **settings)
    else:
        source = open_labelled(one, held_out, **settings, with_vectors=False)
    trained, tested = ({*source.episode[pool.index].tolist()} for pool in (source.train, source.held_out))
    assert trained | tested == {1, 2, 4}
    assert len(tested) == 1
    assert not trained & tested
    described = describe_observations(source, share=1.0)
    assert (described["episodes"], described["held_out_episodes"]) == (3, [*tested])


def test_the_command_prints_a_table(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, *tiny_flags, f"--cameras=[{CAMERA}]")
    assert "decoded accuracy" in capsys.readouterr().out
    assert json.loads((tmp_path / "vla" / "foundation.json").read_text())["extra"]["steps"] == 2


def test_no_episode_is_held_out_of_one_source_and_trained_on_in_another(
    config: TrainFoundationConfig, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(config.dataset_root or "", moved)

    def both(*episodes: list[int] | None) -> list[ObservationConfig]:
        roots = (config.dataset_root, str(moved))
        return [
            ObservationConfig(dataset_root=root, episodes=chosen) for root, chosen in zip(roots, episodes, strict=True)
        ]

    settings = {"dataset_root": None, "held_out": 0.5, "steps": 1}
    with pytest.raises(
        ValueError, match=r"is in two sources: its episodes \[.*\] are held out of one and trained on in"
    ):
        train_foundation(replace(config, sources=both([0, 1, 2], [1, 2, 3, 4]), **settings))
    train_foundation(replace(config, sources=both([0, 1, 2], [3, 4, 5]), **settings))


def test_the_report_lies_beside_the_weights(config: TrainFoundationConfig) -> None:
    train_foundation(replace(config, steps=2))
    metrics = json.loads((Path(config.output_dir) / METRICS_FILE).read_text())
    assert 0 <= metrics["quality"]["decoded_accuracy"] <= 1
    assert metrics["quality"]["last_code_frames"] > 0
    assert metrics["language"]["reason"] is not None or 0 <= metrics["language"]["changed_share"] <= 1
    page = (Path(config.output_dir) / PAGE_FILE).read_text()
    assert "<img" in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_card_and_report_name_the_batches_of_a_dataset_smaller_than_one(config: TrainFoundationConfig) -> None:
    train_foundation(replace(config, steps=1, episodes=[0, 1], batch_size=500))
    folder = Path(config.output_dir)
    size = json.loads((folder / "foundation.json").read_text())["extra"]["batch_size"]
    assert 1 < size < 20
    page = (folder / PAGE_FILE).read_text()
    assert f"1 steps of {size} frames" in page
    assert "1 of 2 episodes, seed 0; not from the LAQ" in page  # `held_out` is 10 %


def test_labels_made_while_training_teach_what_labels_on_the_disk_teach(
    config: TrainFoundationConfig, laq_path: Path, tmp_path: Path
) -> None:
    train_foundation(config)
    online = replace(config, laq_path=str(laq_path), output_dir=str(tmp_path / "out" / "online"))
    train_foundation(online)
    one, other = (load_file(Path(folder) / WEIGHTS_FILE) for folder in (config.output_dir, online.output_dir))
    torch.testing.assert_close(other, one)
    described = [load_foundation(folder).description for folder in (config.output_dir, online.output_dir)]
    assert described[0].laq_fingerprint == described[1].laq_fingerprint
    assert [one.extra["labels"] for one in described] == ["precomputed", "online"]


def test_several_datasets_with_weights_train_one_model(
    config: TrainFoundationConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_flags: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = config.dataset_root
    both = ", ".join(
        f"{{dataset_repo_id: {name}, dataset_root: {root}, weight: {n}}}" for name, n in (("a", 2), ("b", 1))
    )
    run(monkeypatch, *(flag for flag in tiny_flags if "dataset_root" not in flag), f"--sources=[{both}]")
    extra = load_foundation("vla").description.extra
    assert extra["datasets"] == ["a", "b"]
    assert [round(source["share"], 3) for source in extra["sources"]] == [0.667, 0.333]
    card = Path("vla/README.md").read_text()
    assert "| a | 67% | 6 | 1 |" in card
    assert str(root) not in card


def test_the_other_backend_and_its_vectors_train_from_the_command_line(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, *tiny_flags, "--backend.type=smol_latent_head", "--backend.vector_loss_weight=0.5")
    backend = load_foundation("vla").backend
    assert isinstance(backend, SmolLatentHeadBackend)
    found = backend.predict(FoundationBatch(torch.rand(2, 1, 3, 32, 32), ["move"] * 2))
    assert found.vectors is not None
    assert found.vectors.shape == (2, 4, backend.spec.code_dim)


def test_adapters_are_folded_into_the_checkpoint(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, *tiny_flags, "--backend.lora.rank=2")
    assert not any("lora" in name for name in load_file("vla/model.safetensors"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--backend.freeze_backbone=true", "--trainer.strategy=fsdp"], "fsdp shards what is trained"),
        (["--laq_path=nowhere"], "nowhere is not a LAQ checkpoint"),
        (["--sources=[{dataset_root: a}]"], "name all datasets, labels, cameras and episodes inside sources"),
        (["--episodes=[0,6]"], "episodes has [6], and images the episodes 0 to 5"),
        (["--episodes=[]"], "episodes is empty, which would leave nothing to train on"),
        (["--dataset_root=nowhere"], "nowhere is not a LeRobotDataset"),
        (["--labels_path=nowhere"], "nowhere has no labels.json, so this is not a folder of latent labels"),
        (["--cameras=[wrist]"], f"has no camera 'wrist'; it has {CAMERA}"),
        (["--steps=0"], "steps must be 1 or more, got 0"),
        (["--held_out=2"], "held_out must be in (0, 1), got 2.0"),
        (["--backend.dtype=int8"], "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        (["--backend.embedded_size=giant"], "giant"),
        (["--resume=true"], "nothing to resume"),
        (["--device=tpu9"], "this machine has no device 'tpu9'"),
    ],
)
def test_a_mistake_ends_in_one_line_status_2_and_nothing_left_behind(
    tiny_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, *tiny_flags, *flags)
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_labels_is_refused_with_what_to_do(
    config: TrainFoundationConfig, image_dataset_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"no latent labels for .* hlrp-precompute-latent-codes"):
        train_foundation(replace(config, dataset_root=str(image_dataset_root)))
    assert list(tmp_path.iterdir()) == []


def test_labels_of_a_dataset_that_lost_an_episode_since_are_refused(
    config: TrainFoundationConfig, labelled_dataset_root: Path, tmp_path: Path
) -> None:
    dataset = open_dataset("local/x", labelled_dataset_root)
    delete_episodes(dataset, [1], output_dir=tmp_path / "shorter", repo_id="local/shorter")
    shorter = replace(
        config,
        dataset_root=str(tmp_path / "shorter"),
        labels_path=str(labelled_dataset_root / "latents"),
    )
    with pytest.raises(ValueError, match="of another version of this dataset"):
        train_foundation(shorter)
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_refused_before_the_dataset_is_opened(
    config: TrainFoundationConfig, tmp_path: Path
) -> None:
    (tmp_path / "out" / "vla").mkdir(parents=True)
    (tmp_path / "out" / "vla" / "thesis").touch()
    with pytest.raises(FileExistsError, match="vla already exists"):
        train_foundation(replace(config, dataset_root="nowhere"))
