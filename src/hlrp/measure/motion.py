"""Two checks of what a latent action encodes of motion: codes of clips without motion, and of clips played backwards.

Shapes: b clips, g = h*a targets.
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hlrp.latents import LatentActions
from hlrp.measure.action_probe import code_features
from hlrp.measure.code_usage import agreement, modal_share, tuple_entropy_bits
from hlrp.measure.linear_probe import LinearProbe


@dataclass(frozen=True, kw_only=True)
class StillMetrics:
    """Codes of still clips (frame t repeated), which should all be the same. None for a quantizer without codes."""

    still_modal_share: float | None
    """Share of still clips that get the most frequent code tuple among them; 1 if all get the same codes."""
    still_entropy_bits: float | None
    """Entropy, in bits, of the code tuples of still clips; 0 if all get the same codes."""


@dataclass(frozen=True, kw_only=True)
class ReversalMetrics:
    """How the latents of clips change when the clips are played backwards."""

    reversal_changed_codes: float | None
    """Share of codes that differ between a transition and the same transition played backwards; 0 for codes that ignore
    direction. None for a quantizer without codes."""
    reversal_correlation: float | None
    """Correlation between the actions that the probe predicts from clips played backwards, and those that it predicts
    from the same clips played forwards, negated and in reverse order. 1: latents encode the direction; -1: they ignore
    it. Meaningful for displacements and velocities only: a gripper or an absolute position keeps its sign. None without
    actions."""


def still_metrics(still: LatentActions) -> StillMetrics:
    """Measure how alike the codes of still clips are."""
    if still.codes is None:
        return StillMetrics(still_modal_share=None, still_entropy_bits=None)
    tuples = rearrange(still.codes, "b n s -> b (n s)")
    return StillMetrics(still_modal_share=modal_share(tuples), still_entropy_bits=tuple_entropy_bits(tuples))


def reversal_metrics(
    forwards: LatentActions, backwards: LatentActions, probe: LinearProbe | None, *, codebook_size: int, dimensions: int
) -> ReversalMetrics:
    """Compare the latents of clips with those of the same clips played backwards.

    Args:
        forwards: Latents of clips.
        backwards: Latents of the same clips with their frames in reverse order.
        probe: Linear probe from `code_features` to action chunks; None if there are no actions.
        codebook_size: Codebook entries k of a slot.
        dimensions: Action dimensions a of the probe's targets.
    """
    changed = correlation = None
    if forwards.codes is not None and backwards.codes is not None:
        changed = 1 - agreement(forwards.codes, backwards.codes.flip(1))  # transitions come in reverse order, too
    if probe is not None:
        ahead, back = (probe.predict(code_features(latents, codebook_size)) for latents in (forwards, backwards))
        undone = -rearrange(rearrange(ahead, "b (h a) -> b h a", a=dimensions).flip(1), "b h a -> b (h a)")
        correlation = _correlation(back, undone)
    return ReversalMetrics(reversal_changed_codes=changed, reversal_correlation=correlation)


def _correlation(first: Float[Tensor, "b g"], second: Float[Tensor, "b g"]) -> float | None:
    """Pearson correlation, pooled over targets after each target's mean is subtracted; None if one side is constant."""
    first, second = first - first.mean(0), second - second.mean(0)
    scale = float(first.norm() * second.norm())
    return float((first * second).sum()) / scale if scale > 1e-9 else None
