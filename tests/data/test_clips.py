from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from hlrp.data.clips import ClipAugmentation, ClipBatches, clip_is_valid, split_episodes
from hlrp.data.frames import CachedFrames

BOUNDS = torch.tensor([[0, 12], [12, 32], [32, 35], [35, 50]])
NO_AUGMENTATION = ClipAugmentation(reverse_probability=0, max_stretch=0)


def episode_of(frame: Tensor) -> Tensor:
    return torch.bucketize(frame.contiguous(), BOUNDS[:, 1].contiguous(), right=True)


def batches(
    *,
    bounds: Tensor = BOUNDS,
    offset: int = 2,
    num_frames: int = 2,
    augmentation: ClipAugmentation | None = None,
    seed: int = 0,
) -> ClipBatches:
    frames = CachedFrames(torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2))
    return ClipBatches(
        frames,
        bounds,
        offset=offset,
        num_frames=num_frames,
        batch_size=32,
        num_batches=40,
        seed=seed,
        augmentation=augmentation or ClipAugmentation(),
    )


@pytest.mark.parametrize("deltas", [[0, 1], [0, 2, 4], [0, 10]])
def test_a_clip_is_valid_exactly_where_all_its_frames_lie_in_one_episode(deltas: list[int]) -> None:
    valid = clip_is_valid(BOUNDS, deltas)
    assert len(valid) == 50
    for start in range(50):
        end = start + deltas[-1]
        inside = end < 50 and episode_of(torch.tensor(start)) == episode_of(torch.tensor(end))
        assert bool(valid[start]) == bool(inside), start


def test_an_offset_longer_than_every_episode_is_refused() -> None:
    assert clip_is_valid(BOUNDS, [0, 19]).sum() == 1
    with pytest.raises(ValueError, match="a clip spans 21 frames but the longest episode has 20; use a shorter offset"):
        clip_is_valid(BOUNDS, [0, 20])
    with pytest.raises(ValueError, match="a clip spans 21 frames but the longest episode has 20"):
        batches(offset=10, num_frames=3)


@pytest.mark.parametrize("num_frames", [2, 3])
@pytest.mark.parametrize("max_stretch", [0.0, 0.5, 1.5, 4.0])
@pytest.mark.parametrize("reverse", [0.0, 0.5, 1.0])
def test_no_clip_leaves_its_episode_at_any_step_whatever_the_augmentation(
    num_frames: int, max_stretch: float, reverse: float
) -> None:
    data = batches(
        num_frames=num_frames,
        augmentation=ClipAugmentation(reverse_probability=reverse, max_stretch=max_stretch),
    )
    for step in range(len(data)):
        index = data.index(step)
        assert index.shape == (32, num_frames)
        assert index.min() >= 0
        assert index.max() < 50
        assert (episode_of(index) == episode_of(index[:, :1])).all()
        gaps = index.diff(dim=1)
        assert (gaps == gaps[:, :1]).all()  # evenly spaced


def test_a_batch_is_the_same_whatever_was_read_before_it() -> None:
    wanted = [batches()[step] for step in range(10)]
    data, order = batches(), list(range(10))
    random.Random(0).shuffle(order)
    for step in order:
        torch.rand(3)
        assert torch.equal(data[step], wanted[step])
    assert not torch.equal(wanted[0], wanted[1])


def test_another_seed_draws_other_clips() -> None:
    assert not torch.equal(batches(seed=0).index(0), batches(seed=1).index(0))


def test_without_augmentation_every_clip_has_the_nominal_offset_and_every_start_is_drawn() -> None:
    data = batches(augmentation=NO_AUGMENTATION, num_frames=3)
    index = torch.cat([data.index(step) for step in range(len(data))])
    assert (index.diff(dim=1) == 2).all()
    valid = clip_is_valid(BOUNDS, [0, 2, 4]).nonzero()[:, 0]
    assert torch.equal(index[:, 0].unique(), valid)


def test_reversal_and_stretching_occur_as_often_as_asked() -> None:
    data = batches(augmentation=ClipAugmentation(reverse_probability=0.5, reverse_until=1.0, max_stretch=2.0))
    gaps = torch.cat([data.index(step).diff(dim=1)[:, 0] for step in range(len(data))])
    assert set(gaps.tolist()) == set(range(-4, 5))
    moved = gaps[gaps != 0]
    assert (moved < 0).double().mean() == pytest.approx(0.5, abs=0.08)
    assert (gaps == 0).double().mean() == pytest.approx(0.2, abs=0.08)


def test_the_last_part_of_a_run_plays_forwards_only() -> None:
    data = batches(augmentation=ClipAugmentation(reverse_probability=1.0, reverse_until=0.5))
    backwards = [bool((data.index(step).diff(dim=1) < 0).all()) for step in range(len(data))]
    half = len(data) // 2
    assert backwards == [True] * half + [False] * (len(data) - half)


def test_only_the_given_episodes_are_drawn_from() -> None:
    data = batches(bounds=BOUNDS[[1, 3]])
    frames = torch.cat([data.index(step) for step in range(len(data))])
    assert set(episode_of(frames).unique().tolist()) == {1, 3}


def test_a_batch_holds_the_pixels_of_its_frames() -> None:
    data = batches()
    assert torch.equal(data[3][:, :, 0, 0, 0].long(), data.index(3))


@pytest.mark.parametrize(
    ("num_episodes", "held_out", "count"), [(10, 0.1, 1), (10, 0.34, 3), (2, 0.01, 1), (3, 0.99, 2)]
)
def test_a_split_covers_every_episode_once(num_episodes: int, held_out: float, count: int) -> None:
    train, test = split_episodes(num_episodes, held_out=held_out, seed=3)
    assert len(test) == count
    assert len(train) >= 1
    assert sorted(train.tolist() + test.tolist()) == list(range(num_episodes))
    again = split_episodes(num_episodes, held_out=held_out, seed=3)
    assert torch.equal(again[0], train)
    assert torch.equal(again[1], test)


def test_another_seed_holds_out_other_episodes() -> None:
    found = {tuple(split_episodes(20, held_out=0.2, seed=seed)[1].tolist()) for seed in range(5)}
    assert len(found) > 1


@pytest.mark.parametrize("held_out", [0.0, 1.0, -0.5])
def test_a_share_of_nothing_or_everything_is_refused(held_out: float) -> None:
    with pytest.raises(ValueError, match=f"held_out must be between 0 and 1, got {held_out}"):
        split_episodes(5, held_out=held_out, seed=0)


def test_a_single_episode_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="need at least two episodes to hold one out, got 1"):
        split_episodes(1, held_out=0.5, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reverse_probability": 1.5}, r"reverse_probability must be in \[0, 1\], got 1.5"),
        ({"max_stretch": -1.0}, r"max_stretch must be 0 \(off\) or more, got -1.0"),
    ],
)
def test_an_impossible_augmentation_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipAugmentation(**changes)
