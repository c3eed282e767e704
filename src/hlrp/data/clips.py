"""Training batches of clips, stage 1; the batch of a step depends on the seed and the step number only.

Shapes: g action values of one transition, h*a.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from hlrp.data.clip_actions import action_statistics, has_labelled_actions
from hlrp.data.clip_draws import ClipDraws, idle_weights, reversed_clips, source_shares, stretched_offsets
from hlrp.data.clip_starts import clip_starts, frames_left
from hlrp.data.episode_split import TrainingSource
from hlrp.data.source_config import ClipAugmentation, IdleClips
from hlrp.data.sources import ClipSource
from hlrp.laq.batch import ClipBatch
from hlrp.latents import LatentSpec

logger = logging.getLogger(__name__)


class ClipBatches(Dataset[ClipBatch]):
    """Training batches by step number: batch `i` depends on the seed and on `i` only, not on batches read before.

    Args:
        sources: Sources of clips, all with the same number of cameras.
        spec: Number of frames of a clip, and the seconds between them; each source converts seconds by its frame rate.
        batch_size: Clips b of a batch.
        num_batches: Steps of the run.
        seed: Seed of all random choices.
        augmentation: Random reversal and stretching of clips.
        labelled_clips: Clips of every batch that are labelled, if any episode is: sampled from the labelled clips
            alone, neither reversed nor stretched; at most half of the batch. The others are sampled from all clips.
        idle: Sampling of clips without motion; default: like all other clips.
        codes_fixed_at: Step from which the codes do not change and only the decoder learns; see `reversed_clips`.

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
        labelled_clips: int = 0,
        idle: IdleClips | None = None,
        codes_fixed_at: int | None = None,
    ) -> None:
        _require_same_cameras([part.source for part in sources])
        self._sources = [part.source for part in sources]
        self._num_transitions = spec.num_transitions
        self._batch_size = batch_size
        self._num_batches = num_batches
        self._seed = seed
        self._augmentation = augmentation
        self._codes_fixed_at = codes_fixed_at

        deltas = [spec.frame_deltas(source.fps) for source in self._sources]
        spans = [int(clip[-1]) for clip in deltas]
        starts = [clip_starts(part.source, clip, part.episodes) for part, clip in zip(sources, deltas, strict=True)]
        counts = torch.tensor([len(start) for start in starts])
        offsets = [spec.offset_frames(source.fps) for source in self._sources]
        self._offsets = torch.tensor(offsets)
        self._starts = torch.cat(starts)
        self._source_of_clip = torch.repeat_interleave(torch.arange(len(starts)), counts)
        of_sources = list(zip(sources, starts, spans, strict=True))
        self._frames_left = torch.cat([frames_left(part.source.scenes)[start] for part, start, _ in of_sources])
        self._is_labelled = torch.cat([has_labelled_actions(part, start, span) for part, start, span in of_sources])
        self._labelled = self._is_labelled.nonzero()[:, 0]
        count = _labelled_of_a_batch(labelled_clips, batch_size) if len(self._labelled) else 0
        # Labelled clips are spread over the batch, so that every process and accumulated pass gets some.
        self._labelled_rows = torch.arange(count) * batch_size // max(count, 1)
        weights = [idle_weights(part.source, start, span, idle or IdleClips()) for part, start, span in of_sources]
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
    def num_clips(self) -> int:
        """Number of different clips that can be sampled, at the nominal offset."""
        return len(self._starts)

    @property
    def action_size(self) -> int:
        """Action values g of one transition; 0 if no episode is labelled."""
        return 0 if self.action_statistics is None else self.action_statistics.size

    def draws(self, step: int) -> ClipDraws:
        """Random choices for the clips of batch `step`."""
        # Python's hash of integers, unlike that of strings, is the same in every process.
        generator = torch.Generator().manual_seed(hash((self._seed, step)) % 2**63)
        b, n = self._batch_size, self._num_transitions
        # All numbers are drawn whether or not they are used, so that an option does not change the other choices.
        place, stretch, turn = torch.rand(3, b, generator=generator, dtype=torch.float64)
        views = torch.rand(b, 4, generator=generator) * 2 - 1

        clip = torch.searchsorted(self._cumulative, place * self._cumulative[-1], right=True)
        clip = clip.clamp_max(len(self._starts) - 1)  # rounding may make the product len(self._starts)
        rows = self._labelled_rows
        clip[rows] = self._labelled[(place[rows] * len(self._labelled)).long()]
        source = self._source_of_clip[clip]
        nominal = self._offsets[source]
        offset = stretched_offsets(stretch, nominal, self._frames_left[clip] // n, self._augmentation)
        offset = offset.index_copy(0, rows, nominal[rows])
        index = self._starts[clip, None] + offset[:, None] * torch.arange(n + 1)
        is_reversed = reversed_clips(
            turn,
            self._augmentation,
            step=step,
            num_batches=self._num_batches,
            codes_fixed_at=self._codes_fixed_at,
        )
        is_reversed[rows] = False
        return ClipDraws(
            source,
            torch.where(is_reversed[:, None], index.flip(1), index),
            views,
            self._is_labelled[clip] & ~is_reversed & (offset == nominal),
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

    def _frames(self, draws: ClipDraws) -> UInt8[Tensor, "b t m c h w"]:
        rows = [(draws.source == number).nonzero()[:, 0] for number in range(len(self._sources))]
        frames = [
            source.frames.read(draws.index[mine]) for source, mine in zip(self._sources, rows, strict=True) if len(mine)
        ]
        return frames[0] if len(frames) == 1 else torch.cat(frames)[torch.cat(rows).argsort()]

    def _actions(self, draws: ClipDraws) -> Float[Tensor, "b n g"]:
        actions = torch.zeros(len(draws.index), self._num_transitions, self.action_size)
        if self.action_statistics is None:
            return actions
        for number, source in enumerate(self._sources):
            rows = (draws.labelled & (draws.source == number)).nonzero()[:, 0]
            if source.actions is None or not len(rows):
                continue
            steps = draws.index[rows, :-1, None] + torch.arange(int(self._offsets[number]))
            chunks = self.action_statistics.standardize(source.actions[steps])
            actions[rows] = rearrange(chunks, "b n h a -> b n (h a)")
        return actions


def _labelled_of_a_batch(labelled_clips: int, batch_size: int) -> int:
    """Clips of a batch that are sampled from the labelled clips alone: at most half, so that others are seen, too."""
    most = batch_size // 2
    if labelled_clips > most:
        logger.info(f"labelled_clips is {labelled_clips}; {most} are used, half of a batch of {batch_size} clips")
    return min(labelled_clips, most)


def _require_same_cameras(sources: Sequence[ClipSource]) -> None:
    counts = {source.num_cameras: source.name for source in sources}
    if len(counts) > 1:
        differing = ", ".join(f"{name} has {count}" for count, name in counts.items())
        raise ValueError(f"all sources must have as many cameras, got: {differing}; name the cameras of each")
