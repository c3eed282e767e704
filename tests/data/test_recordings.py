"""Episodes that a quantizer was trained on are never measured as held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hlrp.data.episode_split import TrainingSource, split_episodes
from hlrp.data.recordings import choose_measured, describe_source, trained_sources
from hlrp.data.source_config import LabelledShare, SourceConfig
from hlrp.data.sources import ClipSource
from hlrp.data.training_sources import open_source, open_training_sources
from hlrp.latents import LatentSpec


@pytest.fixture(scope="module")
def source(image_dataset_root: Path) -> ClipSource:
    """Six recorded episodes with actions."""
    return open_source(SourceConfig(dataset_root=str(image_dataset_root)), image_size=(32, 32), cache_gib=0)


def trained(*sources: ClipSource, seed: int = 1) -> dict[str, Any]:
    """What a checkpoint keeps after a training that held out two of six episodes."""
    described = []
    for one in sources:
        train, _ = split_episodes(len(one.bounds), held_out=0.4, seed=seed)
        described.append(describe_source(TrainingSource(source=one, episodes=train), share=1 / len(sources)))
    return {"sources": described}


@pytest.mark.parametrize("draw", [{"seed": 0}, {"seed": 7}, {"held_out": 0.9}])
def test_the_same_recordings_bring_the_split_of_the_training(source: ClipSource, draw: dict[str, Any]) -> None:
    extra = trained(source)
    moved = replace(source, name="renamed")
    found = choose_measured(trained_sources(extra), moved, [0, 1], **{"held_out": 0.1, "seed": 0, **draw})
    assert found.basis == "held out"
    assert found.measured.tolist() == extra["sources"][0]["held_out_episodes"]
    assert sorted([*found.fit.tolist(), *found.measured.tolist()]) == list(range(6))


def test_every_source_of_a_mixture_is_recognized(source: ClipSource) -> None:
    films = replace(source, name="films", actions=None, cameras=())
    assert (
        choose_measured(trained_sources(trained(films, source)), source, [0, 1], held_out=0.1, seed=0).basis
        == "held out"
    )
    slower = replace(films, fps=5.0, bounds=source.bounds // 2)  # the same files, read at another rate
    assert (
        choose_measured(trained_sources(trained(source, films)), slower, [0, 1], held_out=0.1, seed=0).basis
        == "held out"
    )


def test_episodes_of_every_source_of_the_same_recordings_count_as_trained_on(source: ClipSource) -> None:
    def described(train: int, chosen: list[int]) -> dict[str, object]:
        part = TrainingSource(source=source, episodes=torch.tensor([train]), chosen=torch.tensor(chosen))
        return describe_source(part, share=0.5)

    known = trained_sources({"sources": [described(0, [0]), described(3, [3, 4])]})
    assert choose_measured(known, source, [0, 1], held_out=0.1, seed=0).measured.tolist() == [4]
    second = choose_measured(known, source, [0, 1], held_out=0.5, seed=0, episodes=[3, 5])
    assert second.basis == "trained on"
    assert choose_measured(known, source, [0, 1], held_out=0.5, seed=0, episodes=[2, 5]).basis == "held out"


def test_other_recordings_are_told_apart(source: ClipSource) -> None:
    assert source.actions is not None
    extra = trained(source)
    others = [
        replace(source, actions=source.actions + 1),
        replace(source, actions=None),
        replace(source, bounds=source.bounds[:5]),
        replace(source, fps=20.0),
        replace(source, bounds=torch.cat([source.bounds[:5], torch.tensor([[78, 90]])])),
    ]
    for other in others:
        found = choose_measured(trained_sources(extra), other, [0, 1], held_out=0.1, seed=0)
        assert found.basis == "another dataset"
        assert "other recordings (images)" in found.sentence
        assert "may have been trained on" in found.sentence


def test_films_of_another_duration_are_other_films_even_if_their_folder_has_the_same_name(source: ClipSource) -> None:
    films = replace(source, name="films", actions=None, cameras=())
    others = replace(films, fps=15.0, bounds=2 * source.bounds)
    found = choose_measured(trained_sources(trained(films)), others, [0, 1], held_out=0.1, seed=0)
    assert found.basis == "another dataset"
    extra = trained(films)
    del extra["sources"][0]["identity"]["duration_s"]  # as written by an earlier version
    slower = replace(films, fps=5.0, bounds=source.bounds // 2)
    assert choose_measured(trained_sources(extra), slower, [0, 1], held_out=0.1, seed=0).basis == "another dataset"
    assert choose_measured(trained_sources(extra), films, [0, 1], held_out=0.1, seed=0).basis == "held out"


def test_without_actions_the_name_must_be_the_same(source: ClipSource) -> None:
    films = replace(source, name="films", actions=None)
    assert choose_measured(trained_sources(trained(films)), films, [0, 1], held_out=0.1, seed=0).basis == "held out"
    renamed = choose_measured(
        trained_sources(trained(films)), replace(films, name="other"), [0, 1], held_out=0.1, seed=0
    )
    assert renamed.basis == "another dataset"


@pytest.mark.parametrize(
    ("extra", "basis"),
    [
        ({}, "unknown"),
        ({"sources": [{"name": "images", "held_out_episodes": [1]}]}, "unknown"),  # written by an earlier version
        ("nothing held out", "trained on"),
    ],
)
def test_what_cannot_be_known_and_what_was_trained_on_is_said(
    source: ClipSource, extra: dict[str, Any] | str, basis: str
) -> None:
    if isinstance(extra, str):
        extra = trained(source)
        extra["sources"][0]["held_out_episodes"] = []
    found = choose_measured(trained_sources(extra), source, [0, 1], held_out=0.4, seed=0)
    assert found.basis == basis
    assert "held out" not in f"{found.sentence} {found.short}"
    assert len(found.measured) == 2


@pytest.mark.parametrize("others", [[0, 1], None])
def test_no_episode_is_held_out_of_one_source_and_trained_on_in_another(
    image_dataset_root: Path, others: list[int] | None
) -> None:
    root = str(image_dataset_root)

    def opened(*choices: list[int] | None) -> list[TrainingSource]:
        return open_training_sources(
            [SourceConfig(dataset_root=root, episodes=chosen) for chosen in choices],
            LatentSpec(frame_offset_s=0.1),
            image_size=(32, 32),
            cache_gib=0,
            held_out=0.5,
            labelled=LabelledShare(),
            seed=0,
        )

    opened(others, others)
    opened([0, 1, 2], [3, 4, 5])
    with pytest.raises(ValueError, match="images is in two sources: its episodes"):
        opened([0, 1, 2, 3], others)
