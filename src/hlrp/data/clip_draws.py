"""Random choices for the clips of a training batch: which clip, how far it is stretched, and whether it is reversed.

Shapes: sources the number of sources, clips the usable clips of one source or of all sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int, UInt8
from torch import Tensor

from hlrp.data.source_config import ClipAugmentation, IdleClips
from hlrp.data.sources import ClipSource
from hlrp.runtime.checks import require_number
from hlrp.runtime.progress import progress
from hlrp.training.step_batches import part_rows


@dataclass(frozen=True)
class ClipDraws:
    """Random choices for the clips of a batch: which frames a clip consists of, and how it is augmented in time."""

    source: Int[Tensor, " b"]
    """Number of the source of each clip."""
    index: Int[Tensor, "b t"]
    """Absolute frame indices of each clip in its source, in the order of the clip; descending in reversed clips."""
    views: Float[Tensor, "b 4"]
    """`ClipBatch.views`, uniform in [-1, 1]."""
    labelled: Bool[Tensor, " b"]
    """Whether a clip has actions that fit its frames: false for reversed and stretched clips."""

    def part(self, index: int, parts: int) -> ClipDraws:
        """Rows of part `index` of `parts`.

        Raises:
            ValueError: If the number of clips is not a multiple of `parts`.
        """
        rows = part_rows(len(self.index), index, parts)
        return ClipDraws(*(value[rows] for value in vars(self).values()))


def reversed_clips(
    chance: Float64[Tensor, " b"],
    augmentation: ClipAugmentation,
    *,
    step: int,
    num_batches: int,
    codes_fixed_at: int | None = None,
) -> Bool[Tensor, " b"]:
    """Decide which clips of a training batch are reversed: played backwards in time, from the last frame to the first.

    Until the fraction `reverse_until` of the run, each clip is reversed with the probability `reverse_probability`;
    after it, no clip is reversed, so that codes adapt to forward motion. From the step `codes_fixed_at`, codes cannot
    adapt any more and the decoder learns alone: clips are reversed again, because otherwise the decoder would learn to
    predict the motion from frame t without the codes. Validation clips are never reversed.

    Args:
        chance: One random number in [0, 1) for each clip.
        augmentation: The options `reverse_probability` and `reverse_until`.
        step: Number of the batch, from 0.
        num_batches: Number of batches of the run.
        codes_fixed_at: Step from which codes do not change; None if they change until the end.
    """
    codes_adapt = step >= augmentation.reverse_until * num_batches and (codes_fixed_at is None or step < codes_fixed_at)
    return chance < (0.0 if codes_adapt else augmentation.reverse_probability)


def stretched_offsets(
    chance: Float64[Tensor, " b"], offset: Int[Tensor, " b"], longest: Int[Tensor, " b"], augmentation: ClipAugmentation
) -> Int[Tensor, " b"]:
    """Frames from one frame of each clip to the next: `offset`, or a random number up to `max_stretch` times `offset`.

    Args:
        chance: One random number in [0, 1) for each clip.
        offset: Nominal offset of the source of each clip, in frames.
        longest: Largest offset with which a clip still ends within its scene.
        augmentation: The option `max_stretch`.
    """
    if augmentation.max_stretch == 0:
        return offset
    most = (offset * augmentation.max_stretch).round().long().clamp_min(1)
    return torch.minimum((chance * (most + 1)).long(), longest)


def source_shares(weights: Sequence[float | None], counts: Int[Tensor, " sources"]) -> Float64[Tensor, " sources"]:
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


def idle_weights(
    source: ClipSource, starts: Int[Tensor, " clips"], length: int, idle: IdleClips
) -> Float64[Tensor, " clips"]:
    """Sampling weight of each clip that starts at `starts` and ends `length` frames later: lower for idle clips.

    The motion of a clip is the mean difference between its first and last frame. If frames are not in memory, only one
    clip per second is measured, and the clips after it get the same motion, to save decoding time.
    """
    if idle.weight == 1:
        return torch.ones(len(starts), dtype=torch.float64)
    every = 1 if source.frames.are_in_memory else max(round(source.fps), 1)
    ends = starts[::every, None] + torch.tensor([0, length])
    motion = torch.cat([_motion(source.frames.read(rows)) for rows in progress(ends.split(256), "measuring motion")])
    motion = motion.repeat_interleave(every)[: len(starts)]
    is_idle = motion <= motion.kthvalue(max(round(idle.share * len(motion)), 1)).values
    return torch.where(is_idle, idle.weight, 1.0).double()


def _motion(clips: UInt8[Tensor, "b t m c h w"]) -> Float[Tensor, " b"]:
    """Mean absolute difference, in [0, 255], between first and last frame, averaged to 16x16 pixels against noise."""
    ends = rearrange(clips[:, [0, -1]].float(), "b two m c h w -> (b two) (m c) h w")
    first, last = rearrange(F.adaptive_avg_pool2d(ends, 16), "(b two) c h w -> two b (c h w)", two=2)
    return (first - last).abs().mean(dim=1)
