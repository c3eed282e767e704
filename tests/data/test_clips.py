from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hlrp.data.clip_actions import episodes_with_actions
from hlrp.data.clip_starts import clip_is_valid
from hlrp.data.clips import ClipBatches
from hlrp.data.episode_split import TrainingSource, choose_labelled, chosen_episodes, split_episodes
from hlrp.data.frames import CachedFrames, StackedFrames
from hlrp.data.source_config import ClipAugmentation, IdleClips
from hlrp.data.sources import ClipSource
from hlrp.laq.batch import ClipBatch
from hlrp.latents import LatentSpec

BOUNDS = torch.tensor([[0, 12], [12, 32], [32, 35], [35, 50]])
ALL = torch.arange(4)
NO_AUGMENTATION = ClipAugmentation(reverse_probability=0, max_stretch=0)
FPS = 10.0


def episode_of(frame: Tensor) -> Tensor:
    return torch.bucketize(frame.contiguous(), BOUNDS[:, 1].contiguous(), right=True)


def source(*, fps: float = FPS, brightness: int = 0, dims: int = 2, cameras: int = 1) -> ClipSource:
    """Frame `i` is filled with `i`; its action is (`i`, 5, 5, …)."""
    frames = torch.arange(brightness, brightness + 50, dtype=torch.uint8)[:, None, None, None]
    actions = torch.full((50, dims), 5.0)
    actions[:, :1] = torch.arange(50)[:, None]
    return ClipSource(
        name=f"source of {fps:g} Hz",
        frames=StackedFrames([CachedFrames(frames.expand(-1, 3, 16, 16))] * cameras),
        bounds=BOUNDS,
        fps=fps,
        cameras=("top", "wrist")[:cameras],
        actions=actions if dims else None,
    )


def one(episodes: Tensor = ALL, labelled: tuple[int, ...] = ()) -> list[TrainingSource]:
    known = torch.tensor(labelled, dtype=torch.int64)
    return [TrainingSource(source=source(), episodes=episodes, labelled=known)]


def batches(
    sources: list[TrainingSource] | None = None,
    *,
    offset_s: float = 0.2,
    num_frames: int = 2,
    augmentation: ClipAugmentation | None = None,
    idle: IdleClips | None = None,
    labelled_clips: int = 0,
    codes_fixed_at: int | None = None,
    seed: int = 0,
) -> ClipBatches:
    return ClipBatches(
        sources or one(),
        LatentSpec(num_frames=num_frames, frame_offset_s=offset_s),
        batch_size=32,
        num_batches=40,
        labelled_clips=labelled_clips,
        seed=seed,
        augmentation=augmentation or ClipAugmentation(),
        idle=idle,
        codes_fixed_at=codes_fixed_at,
    )


def all_draws(data: ClipBatches, name: str) -> Tensor:
    return torch.cat([getattr(data.draws(step), name) for step in range(len(data))])


def assert_same(found: ClipBatch, wanted: ClipBatch) -> None:
    for name, value in vars(wanted).items():
        assert torch.equal(getattr(found, name), value), name


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
        batches(offset_s=1, num_frames=3)


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
        index = data.draws(step).index
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
        assert_same(data[step], wanted[step])
    assert not torch.equal(wanted[0].frames, wanted[1].frames)
    assert not torch.equal(wanted[0].views, wanted[1].views)


def test_another_seed_draws_other_clips() -> None:
    assert not torch.equal(batches(seed=0).draws(0).index, batches(seed=1).draws(0).index)


def test_without_augmentation_every_clip_has_the_nominal_offset_and_every_start_is_drawn() -> None:
    data = batches(augmentation=NO_AUGMENTATION, num_frames=3)
    index = all_draws(data, "index")
    assert (index.diff(dim=1) == 2).all()
    valid = clip_is_valid(BOUNDS, [0, 2, 4]).nonzero()[:, 0]
    assert torch.equal(index[:, 0].unique(), valid)


def test_reversal_and_stretching_occur_as_often_as_asked() -> None:
    data = batches(augmentation=ClipAugmentation(reverse_probability=0.5, reverse_until=1.0, max_stretch=2.0))
    gaps = all_draws(data, "index").diff(dim=1)[:, 0]
    assert set(gaps.tolist()) == set(range(-4, 5))
    moved = gaps[gaps != 0]
    assert (moved < 0).double().mean() == pytest.approx(0.5, abs=0.08)
    assert (gaps == 0).double().mean() == pytest.approx(0.2, abs=0.08)


def test_the_last_part_of_a_run_plays_forwards_only() -> None:
    data = batches(augmentation=ClipAugmentation(reverse_probability=1.0, reverse_until=0.5))
    backwards = [bool((data.draws(step).index.diff(dim=1) < 0).all()) for step in range(len(data))]
    half = len(data) // 2
    assert backwards == [True] * half + [False] * (len(data) - half)


def test_clips_are_reversed_again_once_codes_are_fixed() -> None:
    # Otherwise the decoder, which alone learns from then on, would guess the motion from frame t without the codes.
    data = batches(augmentation=ClipAugmentation(reverse_probability=1.0, reverse_until=0.5), codes_fixed_at=32)
    backwards = [bool((data.draws(step).index.diff(dim=1) < 0).all()) for step in range(len(data))]
    half = len(data) // 2
    assert half < 32 < len(data)
    assert backwards == [True] * half + [False] * (32 - half) + [True] * (len(data) - 32)


def test_only_the_given_episodes_are_drawn_from() -> None:
    data = batches(one(torch.tensor([1, 3])))
    assert set(episode_of(all_draws(data, "index")).unique().tolist()) == {1, 3}


def test_a_batch_holds_the_pixels_of_its_frames() -> None:
    data = batches()
    assert torch.equal(data[3].frames[:, :, 0, 0, 0, 0].long(), data.draws(3).index)


def test_views_are_uniform_over_their_range() -> None:
    views = all_draws(batches(), "views")
    assert views.min() >= -1
    assert views.max() <= 1
    torch.testing.assert_close(views.mean(dim=0), torch.zeros(4), atol=0.06, rtol=0)
    torch.testing.assert_close(views.var(dim=0), torch.full((4,), 1 / 3), atol=0.04, rtol=0)


# ---- Parts of a batch ----


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_the_parts_of_a_batch_are_the_batch(parts: int) -> None:
    data = batches([replace(one(labelled=(1,))[0]), *two_rates()])
    whole = data[5]
    for index in range(parts):
        part = data.part(5, index, parts)
        assert_same(part, ClipBatch(*(value.chunk(parts)[index] for value in vars(whole).values())))


def test_a_part_reads_no_frame_of_the_others() -> None:
    class Counted(CachedFrames):
        seen = 0

        def read(self, index: Tensor) -> Tensor:
            self.seen += index.numel()
            return super().read(index)

    plain = source()
    counted = Counted(plain.frames.read(torch.arange(50)[:, None])[:, 0, 0])
    batches([TrainingSource(source=replace(plain, frames=StackedFrames([counted])), episodes=ALL)]).part(0, 1, 4)
    assert counted.seen == 2 * 32 // 4


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=32 does not divide into 3 equal parts"):
        batches().part(0, 0, 3)


# ---- Several sources ----


def two_rates(weights: tuple[float | None, float | None] = (None, None)) -> list[TrainingSource]:
    return [
        TrainingSource(source=source(fps=10), episodes=ALL, weight=weights[0]),
        TrainingSource(source=source(fps=20, brightness=100, dims=0), episodes=torch.tensor([1]), weight=weights[1]),
    ]


def test_the_offset_is_as_many_seconds_in_every_source_and_pixels_come_from_theirs() -> None:
    data = batches(two_rates(), augmentation=NO_AUGMENTATION)
    draws, batch = data.draws(0), data[0]
    assert set(draws.source.tolist()) == {0, 1}
    assert torch.equal(draws.index.diff(dim=1)[:, 0], torch.where(draws.source == 0, 2, 4))
    assert torch.equal(batch.frames[:, :, 0, 0, 0, 0].long(), draws.index + 100 * draws.source[:, None])


@pytest.mark.parametrize(
    ("weights", "share"), [((None, None), 16 / (10 + 18 + 1 + 13 + 16)), ((1.0, 3.0), 0.75), ((0.2, 0.2), 0.5)]
)
def test_sources_are_drawn_by_weight_or_by_their_number_of_clips(
    weights: tuple[float | None, float | None], share: float
) -> None:
    found = all_draws(batches(two_rates(weights)), "source").double().mean()
    assert found == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(
    ("weights", "message"),
    [((1.0, None), r"give every source a weight or none, got \[1.0, None\]"), ((1.0, 0.0), "must be above 0")],
)
def test_weights_that_say_nothing_are_refused(weights: tuple[float | None, float | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(two_rates(weights))


def test_sources_must_have_as_many_cameras() -> None:
    sources = [*one(), TrainingSource(source=source(cameras=2), episodes=ALL)]
    with pytest.raises(ValueError, match=r"all sources must have as many cameras, got: .* has 1, .* has 2; name"):
        batches(sources)


# ---- Few known actions ----


def test_clips_of_labelled_episodes_carry_standardized_actions_of_every_transition() -> None:
    data = batches(one(labelled=(0, 3)), num_frames=3, augmentation=NO_AUGMENTATION)
    statistics = data.action_statistics
    assert statistics is not None
    known = torch.cat([torch.arange(12.0), torch.arange(35.0, 50.0)])
    torch.testing.assert_close(statistics.mean, torch.stack([known.mean(), torch.tensor(5.0)]))
    torch.testing.assert_close(statistics.std, torch.stack([known.std(correction=0), torch.tensor(1.0)]))
    assert data.action_size == 2 * 2

    draws, batch = data.draws(0), data[0]
    assert torch.equal(batch.labelled, torch.isin(episode_of(draws.index[:, 0]), torch.tensor([0, 3])))
    assert set(batch.labelled.tolist()) == {True, False}
    assert batch.actions.shape == (32, 2, 4)
    assert (batch.actions[~batch.labelled] == 0).all()
    values = batch.actions.unflatten(2, (2, 2)) * statistics.std + statistics.mean
    wanted = draws.index[:, :-1, None] + torch.arange(2)
    torch.testing.assert_close(values[batch.labelled][..., 0], wanted[batch.labelled].float())


def test_clips_that_are_reversed_or_stretched_are_never_labelled() -> None:
    data = batches(one(labelled=(0, 1, 2, 3)), augmentation=ClipAugmentation(reverse_until=1.0, max_stretch=2.0))
    gaps, labelled = all_draws(data, "index").diff(dim=1)[:, 0], all_draws(data, "labelled")
    assert torch.equal(labelled, gaps == 2)
    assert labelled.any()


def test_without_labels_there_are_no_actions_at_all() -> None:
    data = batches()
    assert data.action_size == 0
    assert data[0].actions.shape == (32, 1, 0)
    assert not data[0].labelled.any()


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_every_part_of_a_batch_holds_its_share_of_labelled_clips_as_they_were_recorded(parts: int) -> None:
    every_way = ClipAugmentation(reverse_probability=1.0, reverse_until=1.0, max_stretch=2.0)
    data = batches(one(labelled=(2,)), augmentation=every_way, labelled_clips=4)
    for step in range(5):
        draws = data.draws(step)
        assert int(draws.labelled.sum()) == 4
        assert (episode_of(draws.index[draws.labelled, 0]) == 2).all()
        assert (draws.index[draws.labelled].diff(dim=1) == 2).all()
        assert [int(data.part(step, number, parts).labelled.sum()) for number in range(parts)] == [4 // parts] * parts


def test_labelled_clips_fill_at_most_half_of_a_batch() -> None:
    data = batches(one(labelled=(2,)), labelled_clips=1000)
    seen = [episode_of(data.draws(step).index[:, 0]) for step in range(len(data))]
    assert set(torch.cat(seen).tolist()) == set(ALL.tolist()), "all episodes are seen, not the labelled one alone"
    assert all(int((episodes == 2).sum()) >= 16 for episodes in seen)


def test_the_other_clips_do_not_depend_on_the_number_of_labelled_ones() -> None:
    few, none = (batches(one(labelled=(2,)), labelled_clips=count) for count in (4, 0))
    kept = torch.ones(len(few.draws(0).index), dtype=torch.bool)
    kept[torch.arange(4) * len(kept) // 4] = False
    assert torch.equal(few.draws(0).index[kept], none.draws(0).index[kept])
    assert not torch.equal(few.draws(0).index, none.draws(0).index)


def test_without_labelled_episodes_no_place_is_kept_for_labelled_clips() -> None:
    asked, plain = (batches(one(), labelled_clips=count) for count in (4, 0))
    assert torch.equal(asked.draws(0).index, plain.draws(0).index)


def test_clips_of_a_source_without_actions_are_unlabelled() -> None:
    sources = two_rates()
    sources[0] = replace(sources[0], labelled=ALL)
    data = batches(sources, augmentation=NO_AUGMENTATION)
    assert torch.equal(data[0].labelled, data.draws(0).source == 0)
    assert data[0].actions.shape == (32, 1, 4)


def test_labelled_sources_of_another_action_size_are_refused() -> None:
    sources = [TrainingSource(source=source(dims=dims), episodes=ALL, labelled=ALL) for dims in (2, 7)]
    with pytest.raises(
        ValueError, match=r"must agree on the actions of a transition, got .*2 actions of 7; label only"
    ):
        batches(sources)


def test_labels_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"episodes \[3, 9\] of .* held out or do not exist; choose among \[0, 1\]"):
        batches(one(torch.tensor([0, 1]), labelled=(1, 3, 9)))
    with pytest.raises(ValueError, match="has no actions, so none of its episodes can be labelled"):
        batches([TrainingSource(source=source(dims=0), episodes=ALL, labelled=ALL)])


def test_a_clip_with_an_action_that_is_not_finite_is_unlabelled_and_counts_in_no_statistics() -> None:
    part = one(labelled=(0, 3))[0]
    assert part.source.actions is not None
    part.source.actions[5, 1], part.source.actions[40, 0] = torch.nan, torch.inf
    data = batches([part], num_frames=3, augmentation=NO_AUGMENTATION)
    assert data.action_statistics is not None
    known = [*range(5), *range(6, 12), *range(35, 40), *range(41, 50)]
    torch.testing.assert_close(data.action_statistics.mean[0], torch.tensor(known, dtype=torch.float32).mean())
    index, labelled = all_draws(data, "index"), all_draws(data, "labelled")
    lost = torch.stack([(index[:, 0] <= frame) & (frame < index[:, -1]) for frame in (5, 40)]).any(0)
    assert torch.equal(labelled, torch.isin(episode_of(index[:, 0]), torch.tensor([0, 3])) & ~lost)
    assert lost.any()
    assert all(data[step].actions.isfinite().all() for step in range(len(data)))


def test_labelled_episodes_without_a_finite_action_are_refused() -> None:
    part = one(labelled=(2,))[0]
    assert part.source.actions is not None
    part.source.actions[32:35] = torch.nan
    assert episodes_with_actions(part.source, ALL).tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match=r"every action of the labelled episodes \[2\] of .* is NaN or infinite"):
        batches([part])


def test_held_out_episodes_are_those_of_the_choice() -> None:
    part = TrainingSource(source=source(), episodes=torch.tensor([1]), chosen=torch.tensor([1, 3]))
    assert part.held_out.tolist() == [3]
    assert chosen_episodes(4, None, name="data").tolist() == [0, 1, 2, 3]
    assert chosen_episodes(4, [3, 1], name="data").tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"episodes has \[4, 9\], and data the episodes 0 to 3"):
        chosen_episodes(4, [9, 1, 4], name="data")


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.01, 1), (0.5, 5), (1.0, 10)])
def test_a_fraction_of_the_episodes_is_labelled(fraction: float, count: int) -> None:
    episodes = torch.arange(3, 13)
    chosen = choose_labelled(episodes, fraction=fraction, seed=0)
    assert len(chosen.unique()) == count
    assert torch.isin(chosen, episodes).all()
    assert torch.equal(choose_labelled(episodes, fraction=fraction, seed=0), chosen)


def test_an_impossible_fraction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"labelled_fraction must be in \[0, 1\], got 1.5"):
        choose_labelled(torch.arange(3), fraction=1.5, seed=0)


# ---- Idle clips ----


@pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
def test_idle_clips_are_drawn_as_rarely_as_asked(weight: float) -> None:
    """The second episode stands still: 18 of the 42 clips."""
    frames = torch.arange(50, dtype=torch.uint8)
    frames[12:32] = 12
    still = replace(source(), frames=StackedFrames([CachedFrames(frames[:, None, None, None].expand(-1, 3, 16, 16))]))
    data = batches(
        [TrainingSource(source=still, episodes=ALL)], augmentation=NO_AUGMENTATION, idle=IdleClips(weight=weight)
    )
    idle = (episode_of(all_draws(data, "index")[:, 0]) == 1).double().mean()
    assert idle == pytest.approx(18 * weight / (18 * weight + 24), abs=0.05)


def test_streamed_frames_are_searched_for_idle_clips_once_a_second() -> None:
    class Streamed:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def read(self, index: Tensor) -> Tensor:
            self.seen += index[:, 0].tolist()
            return source().frames.read(index)[:, :, 0]

    frames = Streamed()
    sources = [TrainingSource(source=replace(source(), frames=StackedFrames([frames])), episodes=ALL)]
    batches(sources, idle=IdleClips(weight=0.5))
    assert len(frames.seen) == 5  # of 42 clips at 10 Hz


@pytest.mark.parametrize("changes", [{"weight": 0.0}, {"share": 1.0}, {"share": 0.0}])
def test_impossible_idle_clips_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"idle_(weight|share) must be (above 0|in)"):
        IdleClips(**changes)


# ---- The split ----


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


def test_a_single_episode_is_trained_on() -> None:
    train, test = split_episodes(1, held_out=0.5, seed=0)
    assert train.tolist() == [0]
    assert test.tolist() == []
    with pytest.raises(ValueError, match="need at least one episode, got none"):
        split_episodes(0, held_out=0.5, seed=0)


@pytest.mark.parametrize("seed", range(4))
def test_an_episode_too_short_to_measure_on_is_never_held_out(seed: int) -> None:
    usable = torch.tensor([False, True, False, True, False])
    train, test = split_episodes(5, held_out=0.9, seed=seed, usable=usable)
    assert len(test) == 1
    assert usable[test].all()
    assert usable[train].any()
    alone = split_episodes(5, held_out=0.9, seed=seed, usable=torch.arange(5) == 3)
    assert alone[0].tolist() == [0, 1, 2, 3, 4]
    assert alone[1].tolist() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reverse_probability": 1.5}, r"reverse_probability must be in \[0, 1\], got 1.5"),
        ({"max_stretch": -1.0}, r"max_stretch must be 0 or more, got -1.0"),
    ],
)
def test_an_impossible_augmentation_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipAugmentation(**changes)
