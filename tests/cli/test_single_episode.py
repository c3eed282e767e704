"""One episode, or one film, trains: nothing is held out, and nothing is measured in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from hlrp.cli.inspect_latents import InspectConfig, inspect_latents
from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.cli.train_foundation import TrainFoundationConfig, train_foundation
from hlrp.cli.train_laq import TrainLAQConfig, train_laq
from hlrp.foundation.backends import QwenVLChatConfig
from hlrp.foundation.checkpoint import load_foundation
from hlrp.laq.checkpoint import load_laq
from tiny_datasets import create_dataset
from tiny_videos import write_video

NO_METRICS = "No metrics: only one episode has {}, so it was trained on and none was held out."


def laq_config(folder: Path, **settings: str) -> TrainLAQConfig:
    return TrainLAQConfig(output_dir=str(folder), preset="debug", steps=2, batch_size=4, device="cpu", **settings)


def test_a_dataset_of_one_episode_and_one_too_short_to_measure_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, laq, vla = tmp_path / "data", tmp_path / "laq", tmp_path / "vla"
    create_dataset(root, lengths=(1, 9), with_actions=False)
    assert train_laq(laq_config(laq, dataset_root=str(root))) is None
    room, labels = NO_METRICS.format("room for a clip"), NO_METRICS.format("labels")
    assert room in capsys.readouterr().out
    assert room in (laq / "README.md").read_text()
    assert load_laq(laq).extra["sources"][0]["held_out_episodes"] == []

    precompute_latent_codes(PrecomputeConfig(laq_path=str(laq), dataset_root=str(root), device="cpu"))
    figures = train_foundation(
        TrainFoundationConfig(
            dataset_root=str(root),
            output_dir=str(vla),
            backend=QwenVLChatConfig(embedded_size="debug", image_size=(32, 32)),
            steps=2,
            batch_size=4,
            device="cpu",
        )
    )
    assert figures == {}
    assert labels in capsys.readouterr().out
    assert labels in (vla / "README.md").read_text()
    assert load_foundation(vla).description.extra["validation"] == {}

    with pytest.raises(ValueError, match="has one episode with room for a clip of 2 frames, and measuring needs two"):
        inspect_latents(InspectConfig(laq_path=str(laq), dataset_root=str(root), device="cpu"))


def test_one_film_trains(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_video(tmp_path / "films" / "one.mp4", 12)
    assert train_laq(laq_config(tmp_path / "laq", video_dir=str(tmp_path / "films"))) is None
    assert (tmp_path / "laq" / "model.safetensors").is_file()


def test_a_tolerance_goes_with_every_dataset_and_with_no_film() -> None:
    with pytest.raises(ValueError, match="tolerance_s goes with a dataset"):
        TrainLAQConfig(video_dir="films", tolerance_s=0.1)
    for config in (TrainLAQConfig, TrainFoundationConfig, PrecomputeConfig, InspectConfig):
        assert config(tolerance_s=0.1).tolerance_s == 0.1
        with pytest.raises(ValueError, match=r"tolerance_s must be above 0, got 0\.0"):
            config(tolerance_s=0.0)
