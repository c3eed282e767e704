"""Every command that turns an offset in seconds into frames says how many, and loads its LAQ by its name on the hub."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from hlrp.cli.common import run_cli
from hlrp.cli.inspect_latents import InspectConfig, inspect_latents
from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.cli.train_foundation import TrainFoundationConfig, train_foundation
from hlrp.data.source_config import LabelledShare, SourceConfig
from hlrp.data.training_sources import open_training_sources
from hlrp.foundation.backends import QwenVLChatConfig
from hlrp.latents import LatentSpec, log_offset
from hub_cache import cache_model
from tiny_videos import write_video


@pytest.fixture(autouse=True)
def _informed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.fixture
def laq_name(laq_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A LAQ of offset 0.1 s that is no folder, but in the hub's cache."""
    return cache_model(laq_path, "someone/laq", tmp_path / "cache", monkeypatch)


def test_what_a_command_says_is_printed_whatever_libraries_did_to_the_root_logger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    monkeypatch.setattr(logging.getLogger("hlrp"), "level", logging.NOTSET)
    run_cli(lambda: log_offset(LatentSpec(frame_offset_s=0.3), 10.0, of="films"))
    assert printed.getvalue() == "films: an offset of 0.3 s is 3 frames at 10 fps, 0.3 s\n"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged about offsets: the sources, and how many frames each takes."""
    return [line.partition(" at ")[0] for line in caplog.messages if "an offset of" in line]


def test_training_names_the_frames_of_every_source_and_warns_where_they_deviate(
    image_dataset_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "films" / "a.mp4", 12, fps=5)
    write_video(tmp_path / "films" / "b.mp4", 12, fps=5)
    open_training_sources(
        [SourceConfig(dataset_root=str(image_dataset_root)), SourceConfig(video_dir=str(tmp_path / "films"))],
        LatentSpec(frame_offset_s=0.3),
        image_size=(32, 32),
        cache_gib=1,
        held_out=0.5,
        labelled=LabelledShare(),
        seed=0,
    )
    first, second = said(caplog)
    assert first.endswith("an offset of 0.3 s is 3 frames")
    assert second == "films: an offset of 0.3 s is 2 frames"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line.startswith("films: in whole frames") for line in warnings] == [True]


def test_labelling(image_dataset_root: Path, laq_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    precompute_latent_codes(
        PrecomputeConfig(
            laq_path=laq_name, dataset_root=str(image_dataset_root), output_dir=str(tmp_path / "out"), device="cpu"
        )
    )
    assert [line.endswith("an offset of 0.1 s is 1 frames") for line in said(caplog)] == [True]


def test_inspecting(laq_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / "films" / f"{name}.mp4", 16)
    (tmp_path / "films" / "d.mp4").write_bytes(b"no video at all")
    config = InspectConfig(laq_path=laq_name, video_dir=str(tmp_path / "films"), skip_bad_videos=True, device="cpu")
    inspect_latents(config)
    assert said(caplog) == ["films: an offset of 0.1 s is 1 frames"]


@pytest.mark.parametrize("is_online", [False, True])
def test_training_a_foundation_model(
    labelled_dataset_root: Path, laq_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, is_online: bool
) -> None:
    config = TrainFoundationConfig(
        dataset_root=str(labelled_dataset_root),
        output_dir=str(tmp_path / "vla"),
        backend=QwenVLChatConfig(embedded_size="debug", image_size=(32, 32)),
        steps=1,
        batch_size=4,
        device="cpu",
    )
    train_foundation(replace(config, laq_path=laq_name) if is_online else config)
    assert [line.endswith("an offset of 0.1 s is 1 frames") for line in said(caplog)] == [True]
