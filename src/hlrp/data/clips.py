"""Training clips of stage 1: which clips exist, split of episodes, and batches whose order depends on the seed only.

A clip consists of the frames t, t+offset, …; all of them are in one episode. Shapes: e episodes, n frames, b clips,
t frames of a clip, m usable clips of a source, s sources, l labelled and v held-out episodes, d action dimensions. In a
`ClipBatch`: n transitions, a action values of each, c h w a frame.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from hlrp.data.dataset import episode_of_frame
from hlrp.data.frames import are_in_memory
from hlrp.data.source_config import ClipAugmentation, IdleClips
from hlrp.data.sources import ClipSource
from hlrp.laq.batch import ClipBatch
from hlrp.latents import LatentSpec
from hlrp.runtime.checks import require_number
from hlrp.runtime.progress import progress
from hlrp.training.step_batches import part_rows

logger = logging.getLogger(__name__)


def clip_is_valid(bounds: Int[Tensor, "e 2"], deltas: list[int]) -> Bool[Tensor, " n"]:
    """Whether the clip that starts at each frame ends within the episode of this frame.

    Args:
        bounds: Start and end of every episode: its first frame, and one after its last frame.
        deltas: Frames of a clip, relative to its first frame.

    Raises:
        ValueError: If no episode is long enough for a single clip.
    """
    ends = torch.repeat_interleave(bounds[:, 1], bounds[:, 1] - bounds[:, 0])
    valid = torch.arange(len(ends)) + max(deltas) < ends
    if not valid.any():
        longest = int((bounds[:, 1] - bounds[:, 0]).max())
        raise ValueError(
            f"a clip spans {max(deltas) + 1} frames but the longest episode has {longest}; use a shorter offset"
        )
    return valid


def have_room(source: ClipSource, deltas: list[int]) -> Bool[Tensor, " e"]:
    """Whether each episode has a scene that is long enough for a clip."""
    scenes, ends = source.scenes, source.bounds[:, 1].contiguous()
    starts = scenes[scenes[:, 1] - scenes[:, 0] > max(deltas), 0].contiguous()
    has_room = torch.zeros(len(ends), dtype=torch.bool)
    has_room[torch.searchsorted(ends, starts, right=True)] = True
    return has_room


def split_episodes(
    num_episodes: int, *, held_out: float, seed: int, usable: Bool[Tensor, " e"] | None = None
) -> tuple[Int[Tensor, " _"], Int[Tensor, " v"]]:
    """Split episodes at random into training episodes and held-out episodes.

    Args:
        num_episodes: Number of episodes to split.
        held_out: Share of the usable episodes to hold out, in (0, 1). At least one is held out and at least one is
            trained on; a single usable episode is trained on, and none is held out.
        seed: Seed of the random split.
        usable: Which episodes may be held out, such as those long enough for a clip; default: all.

    Returns:
        Numbers of the training episodes and of the held-out episodes, ascending.

    Raises:
        ValueError: If `held_out` is not in (0, 1), or there is no episode.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must be between 0 and 1, got {held_out}")
    if num_episodes < 1:
        raise ValueError("need at least one episode, got none")
    order = torch.randperm(num_episodes, generator=torch.Generator().manual_seed(seed))
    candidates = order if usable is None else order[usable[order]]
    count = min(max(round(len(candidates) * held_out), 1), max(len(candidates) - 1, 0))
    test = candidates[:count].sort().values
    every = torch.arange(num_episodes)
    return every[~torch.isin(every, test)], test


@dataclass(frozen=True, kw_only=True)
class TrainingSource:
    """One source of a training run, with its training episodes and the episodes whose actions are used."""

    source: ClipSource
    episodes: Int[Tensor, " e"]
    """Training episodes."""
    weight: float | None = None
    """Weight of this source in the mix of clips; if None for all sources, every usable clip is drawn equally often."""
    labelled: Int[Tensor, " l"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """Training episodes whose actions the quantizer may learn from."""
    chosen: Int[Tensor, " _"] | None = None
    """Episodes that the run uses for training or validation; None: all episodes of the source."""

    @property
    def held_out(self) -> Int[Tensor, " v"]:
        """Episodes that the run uses, but not for training."""
        every = torch.arange(len(self.source.bounds)) if self.chosen is None else self.chosen
        return every[~torch.isin(every, self.episodes)]


@dataclass(frozen=True)
class ActionStatistics:
    """Mean and standard deviation by which the actions of a `ClipBatch` were standardized."""

    mean: Float[Tensor, " d"]
    """Mean over the labelled training frames, in dataset units."""
    std: Float[Tensor, " d"]
    """Standard deviation over the labelled training frames, in dataset units; 1 for a dimension that never varies."""
    chunk_steps: int
    """Number of actions in one transition."""

    @property
    def size(self) -> int:
        """Action values a of one transition: chunk steps times action dimensions."""
        return self.chunk_steps * len(self.mean)

    def to_dict(self) -> dict[str, object]:
        """The statistics as plain values, for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "chunk_steps": self.chunk_steps}


@dataclass(frozen=True)
class ClipDraws:
    """Random choices for the clips of a batch: which frames, and how they are augmented."""

    source: Int[Tensor, " b"]
    """Number of the source of each clip."""
    index: Int[Tensor, "b t"]
    """Absolute frame indices of each clip in its source, in the order of the clip; descending in reversed clips."""
    views: Float[Tensor, "b 4"]
    """`ClipBatch.views`, uniform in [-1, 1]."""
    labelled: Bool[Tensor, " b"]
    """Whether the actions of a clip are known and fit its frames: false for reversed and stretched clips."""

    def part(self, index: int, parts: int) -> ClipDraws:
        """Rows of part `index` of `parts`.

        Raises:
            ValueError: If the number of clips is not a multiple of `parts`.
        """
        rows = part_rows(len(self.index), index, parts)
        return ClipDraws(*(value[rows] for value in vars(self).values()))


class ClipBatches(Dataset[ClipBatch]):
    """Training batches by step number: batch `i` depends on the seed and on `i` only, not on batches read before.

    Args:
        sources: Sources of clips, all with the same number of cameras.
        spec: Number of frames of a clip, and the seconds between them; each source converts seconds by its frame rate.
        batch_size: Clips b of a batch.
        num_batches: Steps of the run.
        seed: Seed of all random choices.
        augmentation: Random reversal and stretching of clips.
        idle: Sampling of clips without motion; default: like all other clips.

    Raises:
        ValueError: If a source has no usable clip, only some sources have a weight, or the sources differ in their
            number of cameras or in their labelled actions.
    """

    def __init__(
        self,
        sources: Sequence[TrainingSource],
        spec: LatentSpec,
        *,
        batch_size: int,
        num_batches: int,
        seed: int,
        augmentation: ClipAugmentation,
        idle: IdleClips | None = None,
    ) -> None:
        _require_same_cameras([part.source for part in sources])
        self._sources = [part.source for part in sources]
        self._num_transitions = spec.num_transitions
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._seed = seed
        self._augmentation = augmentation

        offsets = [spec.offset_frames(source.fps) for source in self._sources]
        starts = [clip_starts(part.source, spec.frame_deltas(part.source.fps), part.episodes) for part in sources]
        counts = torch.tensor([len(start) for start in starts])
        self._offsets = torch.tensor(offsets)
        self._starts = torch.cat(starts)
        self._source_of_clip = torch.repeat_interleave(torch.arange(len(starts)), counts)
        self._room = torch.cat(
            [_frames_left(source.scenes)[start] for source, start in zip(self._sources, starts, strict=True)]
        )
        self._is_labelled = torch.cat(
            [
                _shows_actions(part, start, spec.frame_deltas(part.source.fps)[-1])
                for part, start in zip(sources, starts, strict=True)
            ]
        )
        weights = [
            idle_weights(source, start, spec.frame_deltas(source.fps)[-1], idle or IdleClips())
            for source, start in zip(self._sources, starts, strict=True)
        ]
        shares = source_shares([part.weight for part in sources], counts)
        self.shares: list[float] = shares.tolist()
        """Share of the clips that come from each source; the shares sum to 1."""
        self._cumulative = torch.cat(
            [share * weight / weight.sum() for share, weight in zip(shares, weights, strict=True)]
        ).cumsum(0)
        self.action_statistics = action_statistics(sources, offsets)
        """Statistics of the actions of labelled training frames; None if no episode is labelled."""

    def __len__(self) -> int:
        return self._num_batches

    @property
    def action_size(self) -> int:
        """Action values a of one transition; 0 if no episode is labelled."""
        return 0 if self.action_statistics is None else self.action_statistics.size

    def draws(self, step: int) -> ClipDraws:
        """Random choices for the clips of batch `step`."""
        # Python's hash of integers, unlike that of strings, is the same in every process.
        generator = torch.Generator().manual_seed(hash((self._seed, step)) % 2**63)
        b, augmentation = self._batch_size, self._augmentation
        # All numbers are drawn whether or not they are used, so that an option does not change the other choices.
        place, stretch, turn = torch.rand(3, b, generator=generator, dtype=torch.float64)
        views = torch.rand(b, 4, generator=generator) * 2 - 1

        clip = torch.searchsorted(self._cumulative, place * self._cumulative[-1], right=True)
        clip = clip.clamp_max(len(self._starts) - 1)  # the product may round up to the whole
        source = self._source_of_clip[clip]
        nominal = self._offsets[source]
        stride = nominal
        if augmentation.max_stretch > 0:
            longest = (nominal * augmentation.max_stretch).round().long().clamp_min(1)
            stride = torch.minimum((stretch * (longest + 1)).long(), self._room[clip] // self._num_transitions)
        index = self._starts[clip, None] + stride[:, None] * torch.arange(self._num_transitions + 1)
        settled = step >= augmentation.reverse_until * self._num_batches
        backwards = turn < (0.0 if settled else augmentation.reverse_probability)
        return ClipDraws(
            source,
            torch.where(backwards[:, None], index.flip(1), index),
            views,
            self._is_labelled[clip] & ~backwards & (stride == nominal),
        )

    def __getitem__(self, step: int) -> ClipBatch:
        return self.part(step, 0, 1)

    def part(self, step: int, index: int, parts: int) -> ClipBatch:
        """Part `index` of `parts` of batch `step`; see `StepBatches.part`.

        Raises:
            ValueError: If the batch size is not a multiple of `parts`.
        """
        draws = self.draws(step).part(index, parts)
        return ClipBatch(self._frames(draws), draws.views, self._actions(draws), draws.labelled)

    def _frames(self, draws: ClipDraws) -> UInt8[Tensor, "b t c h w"]:
        rows = [(draws.source == number).nonzero()[:, 0] for number in range(len(self._sources))]
        found = [
            source.frames.read(draws.index[some]) for source, some in zip(self._sources, rows, strict=True) if len(some)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)[torch.cat(rows).argsort()]

    def _actions(self, draws: ClipDraws) -> Float[Tensor, "b n a"]:
        actions = torch.zeros(len(draws.index), self._num_transitions, self.action_size)
        if self.action_statistics is None:
            return actions
        for number, source in enumerate(self._sources):
            rows = (draws.labelled & (draws.source == number)).nonzero()[:, 0]
            if source.actions is None or not len(rows):
                continue
            steps = draws.index[rows, :-1, None] + torch.arange(int(self._offsets[number]))
            known = (source.actions[steps] - self.action_statistics.mean) / self.action_statistics.std
            actions[rows] = known.flatten(2)
        return actions


def clip_starts(source: ClipSource, deltas: list[int], episodes: Int[Tensor, " e"]) -> Int[Tensor, " m"]:
    """Frames of `episodes` at which a clip starts that contains no scene cut and ends within its episode.

    Raises:
        ValueError: If there is no such frame.
    """
    if not len(episodes):
        raise ValueError(
            f"no episode of {source.name} is left to measure on: it takes two that are long enough for a clip, one to "
            "train or fit on and one to hold out"
        )
    usable = clip_is_valid(source.scenes, deltas) & torch.isin(episode_of_frame(source.bounds), episodes)
    if not usable.any():
        raise ValueError(
            f"none of the {len(episodes)} chosen episodes of {source.name} is long enough for a clip; use a shorter "
            "offset or another seed"
        )
    return usable.nonzero()[:, 0]


def log_cuts(source: ClipSource, deltas: list[int]) -> None:
    """Log how many clips are left out because they contain a scene cut; log nothing if there are no cuts."""
    if not len(source.cuts):
        return
    whole = clip_is_valid(source.bounds, deltas)
    across = whole & ~clip_is_valid(source.scenes, deltas)
    logger.info(
        f"{source.name}: {len(source.cuts)} scene cuts; {int(across.sum())} of {int(whole.sum())} clips lie across one "
        "and are left out (find_scene_cuts=false keeps them)"
    )


def choose_labelled(episodes: Int[Tensor, " e"], *, fraction: float, seed: int) -> Int[Tensor, " l"]:
    """Choose a random share `fraction` of `episodes`: at least one, or none if `fraction` is 0.

    Raises:
        ValueError: If `fraction` is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"labelled_fraction must be in [0, 1], got {fraction}")
    count = max(round(len(episodes) * fraction), 1) if fraction else 0
    order = torch.randperm(len(episodes), generator=torch.Generator().manual_seed(seed))
    return episodes[order[:count]].sort().values


def source_shares(weights: Sequence[float | None], counts: Int[Tensor, " s"]) -> Float64[Tensor, " s"]:
    """Share of the samples that come from each source: in proportion to `weights`, or to `counts` if none is given.

    Raises:
        ValueError: If only some sources have a weight, or a weight is not positive.
    """
    given = [weight for weight in weights if weight is not None]
    if given and len(given) < len(weights):
        raise ValueError(f"give every source a weight or none, got {list(weights)}")
    require_number("the weight of a source", given, above=0)
    shares = torch.tensor(given, dtype=torch.float64) if given else counts.double()
    return shares / shares.sum()


def idle_weights(source: ClipSource, starts: Int[Tensor, " m"], length: int, idle: IdleClips) -> Float64[Tensor, " m"]:
    """Sampling weight of each clip that starts at `starts` and ends `length` frames later: lower for idle clips.

    The motion of a clip is the mean difference between its first and last frame. If frames are not in memory, only one
    clip per second is measured, and the clips after it get the same motion, to save decoding time.
    """
    if idle.weight == 1:
        return torch.ones(len(starts), dtype=torch.float64)
    every = 1 if are_in_memory(source.frames) else max(round(source.fps), 1)
    measured = starts[::every]
    motion = torch.cat(
        [
            _motion(source.frames.read(some[:, None] + torch.tensor([0, length])))
            for some in progress(measured.split(256), "measuring motion")
        ]
    ).repeat_interleave(every)[: len(starts)]
    is_idle = motion <= motion.kthvalue(max(round(idle.share * len(motion)), 1)).values
    return torch.where(is_idle, idle.weight, 1.0).double()


def action_statistics(sources: Sequence[TrainingSource], offsets: Sequence[int]) -> ActionStatistics | None:
    """Mean and standard deviation of the actions of all labelled episodes; None if no episode is labelled.

    Raises:
        ValueError: If labelled episodes have no actions or are not trained on, or sources differ in the number of
            actions of a transition or in their dimensions.
    """
    seen: list[Float[Tensor, "_ d"]] = []
    shapes: dict[tuple[int, int], str] = {}
    for part, offset in zip(sources, offsets, strict=True):
        if not len(part.labelled):
            continue
        if part.source.actions is None:
            raise ValueError(f"{part.source.name} has no actions, so none of its episodes can be labelled")
        unknown = part.labelled[~torch.isin(part.labelled, part.episodes)].tolist()
        if unknown:
            raise ValueError(
                f"episodes {unknown} of {part.source.name} cannot be labelled: they are held out or do not exist; "
                f"choose among {part.episodes.tolist()}"
            )
        actions = part.source.actions[torch.isin(episode_of_frame(part.source.bounds), part.labelled)]
        seen.append(actions[actions.isfinite().all(1)])
        if not len(seen[-1]):
            raise ValueError(
                f"every action of the labelled episodes {part.labelled.tolist()} of {part.source.name} is NaN or "
                "infinite; label episodes whose actions were recorded"
            )
        shapes[offset, seen[-1].shape[1]] = part.source.name
    if not seen:
        return None
    if len(shapes) > 1:
        differing = "; ".join(f"{name}: {steps} actions of {dims}" for (steps, dims), name in shapes.items())
        raise ValueError(
            f"labelled sources must agree on the actions of a transition, got {differing}; label only sources of one "
            "robot and frame rate"
        )
    actions = torch.cat(seen)
    std = actions.std(dim=0, correction=0)
    return ActionStatistics(actions.mean(dim=0), torch.where(std > 1e-6, std, 1.0), next(iter(shapes))[0])


def _shows_actions(part: TrainingSource, start: Int[Tensor, " m"], length: int) -> Bool[Tensor, " m"]:
    """For each frame in `start`: whether its episode is labelled and the `length` actions from it on are all finite."""
    labelled = torch.isin(episode_of_frame(part.source.bounds)[start], part.labelled)
    if part.source.actions is None:
        return labelled
    finite = part.source.actions.isfinite().all(1)
    return labelled & finite[start[:, None] + torch.arange(length)].all(1)


def episodes_with_actions(source: ClipSource, episodes: Int[Tensor, " e"]) -> Int[Tensor, " _"]:
    """Episodes among `episodes` that have at least one finite action; none if the source has no actions."""
    if source.actions is None:
        return episodes[:0]
    return episodes[torch.isin(episodes, episode_of_frame(source.bounds)[source.actions.isfinite().all(1)])]


def chosen_episodes(num_episodes: int, numbers: Sequence[int] | None, *, name: str) -> Int[Tensor, " _"]:
    """Numbers of the episodes that a run uses, in ascending order; all episodes if `numbers` is None.

    Args:
        num_episodes: Number of episodes in the dataset.
        numbers: Chosen episode numbers, checked by `require_episode_numbers`.
        name: Name of the dataset, for the error message.

    Raises:
        ValueError: If the dataset lacks one of the chosen episodes.
    """
    if numbers is None:
        return torch.arange(num_episodes)
    lost = sorted(number for number in numbers if number >= num_episodes)
    if lost:
        raise ValueError(f"episodes has {lost}, and {name} the episodes 0 to {num_episodes - 1}")
    return torch.tensor(sorted(numbers), dtype=torch.int64)


def _require_same_cameras(sources: Sequence[ClipSource]) -> None:
    counts = {source.num_cameras: source.name for source in sources}
    if len(counts) > 1:
        differing = ", ".join(f"{name} has {count}" for count, name in counts.items())
        raise ValueError(f"all sources must have as many cameras, got: {differing}; name the cameras of each")


def _frames_left(bounds: Int[Tensor, "e 2"]) -> Int[Tensor, " n"]:
    """Number of frames after each frame in its episode (or scene, if `bounds` are those of scenes)."""
    lengths = bounds[:, 1] - bounds[:, 0]
    return torch.repeat_interleave(bounds[:, 1], lengths) - 1 - torch.arange(int(lengths.sum()))


def _motion(clips: UInt8[Tensor, "b t c h w"]) -> Float[Tensor, " b"]:
    """Mean absolute difference, in [0, 255], between first and last frame, averaged to 16x16 pixels against noise."""
    ends = rearrange(clips[:, [0, -1]].float(), "b two c h w -> (b two) c h w")
    first, last = rearrange(F.adaptive_avg_pool2d(ends, 16), "(b two) c h w -> two b (c h w)", two=2)
    return (first - last).abs().mean(dim=1)
