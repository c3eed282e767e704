"""Actions that are read from a small square, whose motion is the action."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hlrp.data.frames import CachedFrames, StackedFrames
from hlrp.data.sources import ClipSource
from hlrp.inverse_dynamics.clips import ActionClips, ActionScale, make_folds, with_frames_between
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.inverse_dynamics.network import InverseDynamicsNetwork
from hlrp.inverse_dynamics.pseudo_actions import PseudoActions, pseudo_actions
from hlrp.inverse_dynamics.reading import read_actions
from hlrp.inverse_dynamics.training import new_network
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer

SIDE = 16
LENGTH = 20
EPISODES = 8
FAST = InverseDynamicsConfig(members=1, steps=60, batch_size=16, width=8, folds=2, max_shift=0.0, lr=3e-3)


def moving_square(seed: int = 0) -> ClipSource:
    """Episodes of a bright square that moves by its action, one pixel at most; the second dimension never varies."""
    draws = torch.Generator().manual_seed(seed)
    frames, actions = [], []
    for _ in range(EPISODES):
        place, velocity = torch.tensor([6.0, 6.0]), torch.rand(LENGTH, generator=draws) * 2 - 1
        for step in velocity.tolist():
            picture = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
            x, y = (int(value) for value in place.round())
            picture[:, y : y + 4, x : x + 4] = 220
            frames.append(picture)
            move = 1.0 if step > 0 else -1.0
            move = -move if not 2 <= place[0] + move <= 10 else move
            place[0] += move
            actions.append([move, 5.0])
    ends = torch.arange(1, EPISODES + 1) * LENGTH
    return ClipSource(
        name="square",
        frames=StackedFrames([CachedFrames(torch.stack(frames))]),
        bounds=torch.stack([ends - LENGTH, ends], dim=1),
        fps=10.0,
        cameras=("camera",),
        actions=torch.tensor(actions),
    )


def known_in(source: ClipSource, episodes: int) -> torch.Tensor:
    known = torch.zeros(EPISODES * LENGTH, dtype=torch.bool)
    known[: episodes * LENGTH] = True
    return known


def read(source: ClipSource, known: torch.Tensor, *, last: int = 2, **changes: object) -> PseudoActions:
    config = replace(FAST, **changes)
    return pseudo_actions(source, known, deltas=[0, last], image_size=(SIDE, SIDE), config=config, laq=None)


def test_actions_are_read_and_known_ones_stay_as_they_are() -> None:
    source = moving_square()
    known = known_in(source, 6)
    found = read(source, known, steps=200)
    assert source.actions is not None
    assert torch.equal(found.actions[known], source.actions[known])
    assert (found.confidence[known] == 1).all()
    assert torch.equal(found.known, known)
    right = (found.actions[~known, 0].sign() == source.actions[~known, 0]).float().mean()
    assert right > 0.75
    assert (found.actions[:, 1] == 5).all()  # a dimension that never varies keeps its value
    assert found.held_out.to_dict()["r2"] > 0.2


def test_values_of_unknown_actions_change_nothing() -> None:
    source = moving_square()
    known = known_in(source, 4)
    assert source.actions is not None
    spoiled = torch.where(known[:, None], source.actions, torch.nan)
    one, other = read(source, known, steps=5), read(replace(source, actions=spoiled), known, steps=5)
    assert torch.equal(one.actions, other.actions)
    assert torch.equal(one.confidence, other.confidence)


def test_the_last_frame_of_an_episode_repeats_the_action_before_it_and_has_no_confidence() -> None:
    found = read(moving_square(), known_in(moving_square(), 4), steps=5)
    last = torch.arange(5, EPISODES + 1) * LENGTH - 1
    assert (found.confidence[last] == 0).all()
    assert torch.equal(found.actions[last], found.actions[last - 1])
    assert (found.confidence[last - 1] > 0).all()


def test_a_dimension_that_differs_only_where_no_clip_shows_it_is_constant() -> None:
    source = moving_square()
    assert source.actions is not None
    flag = torch.zeros(EPISODES, LENGTH)
    flag[:, -1] = 1  # ends the episode
    found = read(
        replace(source, actions=torch.cat([source.actions, flag.view(-1, 1)], 1)), known_in(source, 4), steps=5
    )
    measured = found.held_out.to_dict()
    assert list(measured["r2_by_dimension"]) == ["0"]
    assert math.isfinite(measured["r2"])
    assert (found.actions[found.read, 2] == 0).all()
    assert torch.equal(found.actions[found.known, 2], flag.view(-1)[found.known])


def with_short_episodes(source: ClipSource) -> ClipSource:
    """`source` with its second episode cut into ten, which are as long as the clips of `read` without a frame."""
    starts = torch.cat([torch.tensor([0]), torch.arange(LENGTH, 2 * LENGTH, 2), torch.arange(2, EPISODES) * LENGTH])
    ends = torch.cat([starts[1:], torch.tensor([EPISODES * LENGTH])])
    return replace(source, bounds=torch.stack([starts, ends], 1))


def test_an_episode_shorter_than_a_clip_has_no_action() -> None:
    source = with_short_episodes(moving_square())
    known = known_in(source, 1) | (torch.arange(EPISODES * LENGTH) >= 4 * LENGTH)
    known[LENGTH] = True  # the first of the two frames of a short episode
    found = read(source, known, steps=5)
    lacking = (~found.has_action).nonzero()[:, 0].tolist()
    assert lacking == list(range(LENGTH + 2, 2 * LENGTH))
    assert torch.equal(found.actions[LENGTH + 1], found.actions[LENGTH])


def test_known_actions_outside_of_all_clips_are_no_training_data() -> None:
    source = with_short_episodes(moving_square())
    known = known_in(source, 2)
    assert read(source, known, steps=5).held_out.unit == "segments"  # one labelled episode that can be held out
    known[:LENGTH] = False
    with pytest.raises(ValueError, match="no clip of square holds a known action: a clip spans 3 frames"):
        read(source, known)


def test_the_same_seed_gives_the_same_actions() -> None:
    source = moving_square()
    known = known_in(source, 3)
    assert torch.equal(read(source, known, steps=5).actions, read(source, known, steps=5).actions)
    assert not torch.equal(read(source, known, steps=5).actions, read(source, known, steps=5, seed=1).actions)


def test_a_laq_gives_its_encoder_and_is_not_changed() -> None:
    source, laq = moving_square(), LatentActionQuantizer(replace(debug(), image_size=(SIDE, SIDE)))
    before = laq.fingerprint()
    found = pseudo_actions(
        source, known_in(source, 4), deltas=[0, 1], image_size=(SIDE, SIDE), config=replace(FAST, steps=3), laq=laq
    )
    assert laq.fingerprint() == before
    assert found.actions.isfinite().all()


@pytest.mark.parametrize(
    ("deltas", "frames", "expected"),
    [
        ([0, 8], 2, [0, 8]),
        ([0, 8], 3, [0, 4, 8]),
        ([0, 8], 4, [0, 3, 5, 8]),
        ([0, 3, 6], 5, [0, 2, 3, 4, 6]),
        ([0, 2], 10**9, [0, 1, 2]),
    ],
)
def test_a_clip_has_the_frames_of_the_laq_and_those_between(
    deltas: list[int], frames: int, expected: list[int]
) -> None:
    assert with_frames_between(deltas, frames) == expected
    assert with_frames_between([0, 1], frames) == [0, 1]  # too short for any frame between


def test_the_encoder_of_the_laq_sees_its_own_frames_alone() -> None:
    seen = []

    class Encoder(torch.nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            seen.append(frames)
            return frames.mean((-1, -2))

    sizes = {"image_size": (16, 16), "num_frames": 3, "num_cameras": 1, "chunk_steps": 4, "action_dim": 2}
    network = InverseDynamicsNetwork(
        **sizes, width=8, dropout=0.0, encoder=Encoder(), encoder_frames=[0, 2], encoder_width=2 * 3
    )
    frames = torch.rand(5, 3, 3, 1, 16, 16)
    assert network(frames).shape == (5, 4, 2)
    assert torch.equal(seen[0], frames[:, [0, 2]])


def test_folds_are_episodes_where_every_task_has_two_and_segments_elsewhere() -> None:
    source = moving_square()
    known = known_in(source, 4)
    tasks = [str(number // LENGTH % 2) for number in range(EPISODES * LENGTH)]
    folds = make_folds(source.bounds, known, tasks, count=3, segment=2, seed=0)
    assert folds.unit == "episodes"
    by_episode = folds.number.view(EPISODES, LENGTH)
    assert (by_episode[:4] == by_episode[:4, :1]).all()
    assert sorted(by_episode[[0, 2], 0].tolist()) == sorted(by_episode[[1, 3], 0].tolist()) == [0, 1]
    assert (by_episode[4:] == -1).all()

    single = make_folds(source.bounds, known_in(source, 2), tasks, count=3, segment=2, seed=0)
    assert single.unit == "segments"
    assert single.number[:8].tolist() == [0, 0, 1, 1, 2, 2, 0, 0]


def test_a_held_out_action_is_in_no_target() -> None:
    source = moving_square()
    clips = ActionClips(source, known_in(source, 2), [0, 2])
    held_out = torch.zeros(len(clips.known), dtype=torch.bool)
    held_out[5:9] = True
    starts = clips.training_starts(held_out)
    _, usable = clips.targets(starts, ~held_out)
    index = starts[:, None] + clips.steps
    assert not held_out[index[usable]].any()
    assert 6 not in starts.tolist()  # both actions of this clip are held out
    assert usable.any(1).all()


def test_a_frame_that_a_single_clip_shows_is_as_unsure_as_the_others() -> None:
    source = moving_square()
    clips = ActionClips(source, known_in(source, 2), [0, 2, 4])
    network = new_network(clips, FAST, None, laq_deltas=[0, 4], image_size=(SIDE, SIDE)).eval()
    wanted = torch.arange(EPISODES * LENGTH) < LENGTH
    found = read_actions([network], clips, wanted, title="")
    shown_once, several = found.spread[[0, LENGTH - 2]], found.spread[1 : LENGTH - 2]
    torch.testing.assert_close(shown_once, several.square().mean().sqrt().expand(2))


def test_clips_of_one_action_get_their_confidence_from_the_members() -> None:
    source = moving_square()
    found = read(source, known_in(source, 4), last=1, members=2, steps=20)
    assert len(found.confidence[found.read].unique()) > 5
    assert len(np.unique(found.held_out.confidence)) > 5  # of as many models, so that both spreads are alike


def test_scale_restores_actions_and_keeps_constants() -> None:
    actions = torch.tensor([[1.0, 3.0], [3.0, 3.0]])
    scale = ActionScale.of(actions)
    assert scale.varies.tolist() == [True, False]
    torch.testing.assert_close(scale.restore(scale.standardize(actions)), actions)


def test_a_joint_that_is_held_at_an_angle_keeps_it_however_many_frames_show_it() -> None:
    for frames in (10, 99, 1000):
        actions = torch.stack([torch.linspace(0, 1, frames), torch.full((frames,), 90.3)], dim=1)
        scale = ActionScale.of(actions)
        assert scale.varies.tolist() == [True, False]
        assert (scale.restore(scale.standardize(actions))[:, 1] == actions[:, 1]).all()


@pytest.mark.parametrize(("known", "message"), [(0, "no frame with a known action"), (1, "cannot be divided")])
def test_too_few_known_actions_are_refused(known: int, message: str) -> None:
    source = moving_square()
    mask = torch.zeros(EPISODES * LENGTH, dtype=torch.bool)
    mask[:known] = True
    with pytest.raises(ValueError, match=message if known == 0 else "same|divided"):
        read(source, mask)
