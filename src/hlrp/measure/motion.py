"""Two things a latent action must know about motion: that nothing moved, and which way.

Shapes: b clips, n transitions, s code slots, h chunk steps, a action dimensions, g = h*a targets.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hlrp.measure.action_probe import code_features
from hlrp.measure.clip_features import Latents
from hlrp.measure.code_usage import agreement, modal_share, tuple_entropy_bits
from hlrp.measure.linear_probe import LinearProbe


@dataclass(frozen=True, kw_only=True)
class StillFigures:
    """Codes of still clips, where "no motion" should have one name. None without codes."""

    still_modal_share: float | None
    """Share of still clips with the most frequent code tuple; 1 when "no motion" has one name."""
    still_entropy_bits: float | None
    """Entropy of the code tuples of still clips; 0 when "no motion" has one name."""


@dataclass(frozen=True, kw_only=True)
class ReversalFigures:
    """What clips played backwards look like to the quantizer."""

    reversal_changed_codes: float | None
    """Share of codes that differ between a transition and the same one backwards; 0 for codes blind to direction. None
    without codes."""
    reversal_correlation: float | None
    """Correlation between the actions that the probe reads from clips played backwards and the negated, time-flipped
    ones that it reads from the same clips forwards; 1 when direction is understood, -1 when it is not seen. For actions
    that are displacements or velocities: a gripper or an absolute position keeps its sign. None without actions."""


def still_figures(still: Latents) -> StillFigures:
    """Judge the latents of still clips."""
    if still.codes is None:
        return StillFigures(still_modal_share=None, still_entropy_bits=None)
    tuples = rearrange(still.codes, "b n s -> b (n s)")
    return StillFigures(still_modal_share=modal_share(tuples), still_entropy_bits=tuple_entropy_bits(tuples))


def reversal_figures(
    forwards: Latents, backwards: Latents, probe: LinearProbe | None, *, codebook_size: int, dimensions: int
) -> ReversalFigures:
    """Compare clips with themselves backwards.

    Args:
        forwards: Latents of clips.
        backwards: Latents of the same clips with their frames in reverse order.
        probe: Reads action chunks from `code_features`; None where there are no actions.
        codebook_size: Codes k of a slot.
        dimensions: Action dimensions a of the probe's targets.
    """
    changed = correlation = None
    if forwards.codes is not None and backwards.codes is not None:
        changed = 1 - agreement(forwards.codes, backwards.codes.flip(1))  # transitions come in reverse order, too
    if probe is not None:
        ahead, back = (probe.predict(code_features(latents, codebook_size)) for latents in (forwards, backwards))
        undone = -rearrange(rearrange(ahead, "b (h a) -> b h a", a=dimensions).flip(1), "b h a -> b (h a)")
        correlation = _correlation(back, undone)
    return ReversalFigures(reversal_changed_codes=changed, reversal_correlation=correlation)


def _correlation(first: Float[Tensor, "b g"], second: Float[Tensor, "b g"]) -> float | None:
    """Pearson's, pooled over targets, each around its own mean; None where one side is constant."""
    first, second = first - first.mean(0), second - second.mean(0)
    scale = float(first.norm() * second.norm())
    return float((first * second).sum()) / scale if scale > 1e-9 else None
