"""The section `sources` of the stage 1 benchmark: its films, and linear maps from one source to another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.laq_sources import FILMS, SourcesRun, between_sources, film_episodes, run, write_films
from brightness_laq import BrightnessLAQ, brightness_clips
from hlrp.cli.train_laq import TrainLAQConfig, train_laq
from hlrp.data.dataset import open_dataset
from hlrp.data.source_config import SourceConfig
from hlrp.data.video_folder import open_video_source
from hlrp.measure.laq_quality import QualityClips
from tiny_datasets import LENGTHS, SIZE


def clips_of(*, sign: float = 1.0) -> QualityClips:
    """Clips whose actions follow the codes; with `sign` -1 a brighter frame is the opposite action."""
    clips, codes = brightness_clips(80, 2)
    chunks = sign * (codes[:, :1, None] - 2.0).expand(-1, 4, 1)
    return QualityClips(
        fit=clips[:40].split(16),
        held_out=clips[40:].split(16),
        episode=torch.arange(40) % 4,
        pictures=clips[40:72],
        fit_actions=chunks[:40],
        held_out_actions=chunks[40:],
    )


def test_codes_with_one_meaning_predict_the_actions_of_every_source() -> None:
    scores = between_sources(BrightnessLAQ(), {"arm": clips_of(), "film": clips_of()})
    for kind in ("codes", "vectors"):
        for row in scores[kind].values():
            assert list(row.values()) == pytest.approx([1, 1], abs=1e-2)
    for row in scores["pixels"].values():
        assert all(value is not None and value < 0.5 for value in row.values())


def test_codes_that_mean_the_opposite_on_another_source_are_found_out() -> None:
    scores = between_sources(BrightnessLAQ(), {"arm": clips_of(), "mirrored": clips_of(sign=-1.0)})
    for one, other in (("arm", "mirrored"), ("mirrored", "arm")):
        assert scores["codes"][one][one] == pytest.approx(1, abs=1e-2)
        found = scores["codes"][one][other]
        assert found is not None
        assert found < -1


def test_films_are_the_later_episodes_of_each_task(image_dataset_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    write_films(image_dataset_root, folder, first=1)
    # The six episodes take turns with two tasks, so that 0 and 1 are the first ones.
    assert film_episodes(open_dataset("local/demos", image_dataset_root), first=1) == [2, 3, 4, 5]
    films = open_video_source(folder, image_size=(SIZE, SIZE), cache_gib=1)
    assert (films.bounds[:, 1] - films.bounds[:, 0]).tolist() == list(LENGTHS[2:])
    assert films.episode_names[0] == "episode_0002.mp4"
    assert films.actions is None


def test_a_trained_quantizer_is_measured_between_a_dataset_and_films(image_dataset_root: Path, tmp_path: Path) -> None:
    settings = SourcesRun(
        (image_dataset_root,), image_dataset_root, tmp_path / FILMS, tmp_path / "laq", steps=2, first_film=1
    )
    write_films(settings.recording, settings.films, first=1)
    sources = [SourceConfig(dataset_root=str(image_dataset_root)), SourceConfig(video_dir=str(settings.films))]
    train_laq(
        TrainLAQConfig(
            sources=sources, output_dir=str(settings.folder / "laq_0"), preset="debug", steps=2, device="cpu"
        )
    )
    result = run(settings)
    names = [image_dataset_root.name, FILMS]
    for kind in ("codes", "vectors", "pixels"):
        assert list(result[kind]) == names
        for row in result[kind].values():
            assert all(isinstance(row[name], float) for name in names)
    share, chance = result["transferred_codes"][FILMS][names[0]]
    assert 0 <= share <= 1
    assert 0 <= chance <= 1
    with pytest.raises(ValueError, match="--steps was 2"):
        run(replace(settings, steps=3))
