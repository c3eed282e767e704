"""Do latents mean actions? Probes from what a quantizer writes, beside probes from what frame t alone knows.

Shapes: m clips for fitting, v held-out clips, b clips, n transitions, s code slots, h chunk steps, a action dimensions,
f features, g = h*a targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.measure.clip_features import ClipFeatures, Latents
from hlrp.measure.intervals import bootstrap_weights, percentile_interval
from hlrp.measure.linear_probe import EpisodeSums, ProbeScore, episode_sums, fit_probe


@dataclass(frozen=True, kw_only=True)
class ProbeFigures:
    """R² of linear maps to the standardized action chunk, pooled over chunk steps and action dimensions.

    Every field is None where no action of the dataset varies, or it has none. "Codes" are one-hot; for a quantizer
    without codes `probe_r2` is None, and the still clip and the gain are measured with its vectors instead.
    """

    probe_r2: float | None
    """From one-hot codes."""
    probe_r2_interval: tuple[float, float] | None
    """95 % bootstrap interval over held-out episodes; None with fewer than two of them. The fit is not repeated: it
    says how much the choice of test episodes matters."""
    probe_r2_quantized: float | None
    """The same from the code vectors that the decoder reads."""
    probe_r2_vectors: float | None
    """The same from the encoder's vectors before quantization."""
    probe_r2_frame_only: float | None
    """The same from the codes of a still clip (frame t repeated): what the frame alone puts into the codes."""
    probe_r2_pixels: float | None
    """The same from frame t's pixels (16x16): the strongest thing a linear map knows without the future."""
    probe_r2_pixels_and_codes: float | None
    """The same from pixels and codes together."""
    probe_gain: float | None
    """`probe_r2_pixels_and_codes` minus `probe_r2_pixels`: what codes add to all that the frame gives."""
    probe_gain_interval: tuple[float, float] | None
    """95 % bootstrap interval of the gain, from the same resamples for both of its terms."""
    probe_r2_per_action: list[float | None] | None
    """`probe_r2` for each action dimension; None for one that never varies."""
    probe_r2_per_action_by_features: dict[str, list[float | None]] | None
    """The same for each of `codes` (where there are any), `quantized`, `vectors`, `frame_only` and `pixels`."""


NO_PROBE = ProbeFigures(
    probe_r2=None, probe_r2_interval=None, probe_r2_quantized=None, probe_r2_vectors=None, probe_r2_frame_only=None,
    probe_r2_pixels=None, probe_r2_pixels_and_codes=None, probe_gain=None, probe_gain_interval=None,
    probe_r2_per_action=None, probe_r2_per_action_by_features=None,
)  # fmt: skip
"""Of a dataset without actions."""


@dataclass(frozen=True)
class Chunks:
    """Standardized action chunks of the clips that fit a probe and of those that score it; NaN where not known."""

    fit: Float[Tensor, "m g"]
    held_out: Float[Tensor, "v g"]
    episode: Int[Tensor, " v"]
    """Episode of each held-out clip."""
    dimensions: int
    """Action dimensions a; targets g run over chunk steps, then over these."""


def has_finite_actions(chunks: Float[Tensor, "b h a"]) -> Bool[Tensor, " b"]:
    """Whether all actions of each chunk are known: finite."""
    return chunks.isfinite().flatten(1).all(1)


def standardized(fit: Float[Tensor, "m h a"], held_out: Float[Tensor, "v h a"], episode: Int[Tensor, " v"]) -> Chunks:
    """Bring actions to mean 0 and deviation 1 on the fitting clips, so that no unit outweighs another.

    A chunk with an action that is not finite becomes NaN as a whole, and the probes leave it out.
    """
    known = fit[has_finite_actions(fit)]
    mean, scale = known.mean((0, 1)), known.std((0, 1)).clamp_min(1e-6)

    def targets(actions: Float[Tensor, "b h a"]) -> Float[Tensor, "b g"]:
        actions = torch.where(has_finite_actions(actions)[:, None, None], actions, torch.nan)
        return rearrange((actions - mean) / scale, "b h a -> b (h a)")

    return Chunks(targets(fit), targets(held_out), episode, fit.shape[-1])


def code_features(latents: Latents, codebook_size: int) -> Float[Tensor, "b f"]:
    """What a linear map reads of codes: one-hot, since codes are names; the vectors where there are no codes."""
    if latents.codes is None:
        return rearrange(latents.quantized, "b n s v -> b (n s v)").double()
    return rearrange(F.one_hot(latents.codes, codebook_size), "b n s k -> b (n s k)").double()


def probe_figures(fit: ClipFeatures, held_out: ClipFeatures, chunks: Chunks, codebook_size: int) -> ProbeFigures:
    """Fit every probe on `fit` and score it on `held_out`."""

    def probe(fit_features: Float[Tensor, "m f"], test_features: Float[Tensor, "v f"]) -> EpisodeSums:
        return probe_episodes(fit_features, test_features, chunks)

    def codes(latents: Latents) -> Float[Tensor, "b f"]:
        return code_features(latents, codebook_size)

    def vectors(vectors: Float[Tensor, "b n s v"]) -> Float[Tensor, "b f"]:
        return rearrange(vectors, "b n s v -> b (n s v)")

    def both(features: ClipFeatures) -> Float[Tensor, "b f"]:
        return torch.cat([features.pixels, codes(features.latents)], 1)

    sums = {
        "codes": probe(codes(fit.latents), codes(held_out.latents)),
        "quantized": probe(vectors(fit.latents.quantized), vectors(held_out.latents.quantized)),
        "vectors": probe(vectors(fit.latents.vectors), vectors(held_out.latents.vectors)),
        "frame_only": probe(codes(fit.still), codes(held_out.still)),
        "pixels": probe(fit.pixels, held_out.pixels),
    }
    from_both = probe(both(fit), both(held_out))
    if held_out.latents.codes is None:
        del sums["codes"]
    scores = {name: found.score() for name, found in sums.items()}
    pooled = {name: _number(score.pooled()) for name, score in scores.items()}
    per_action = {name: _per_action(score, chunks.dimensions) for name, score in scores.items()}
    return ProbeFigures(
        probe_r2=pooled.get("codes"),
        probe_r2_interval=r2_interval(sums["codes"]) if "codes" in sums else None,
        probe_r2_quantized=pooled["quantized"],
        probe_r2_vectors=pooled["vectors"],
        probe_r2_frame_only=pooled["frame_only"],
        probe_r2_pixels=pooled["pixels"],
        probe_r2_pixels_and_codes=_number(from_both.score().pooled()),
        probe_gain=_number(from_both.score().pooled() - scores["pixels"].pooled()),
        probe_gain_interval=r2_interval(from_both, sums["pixels"]),
        probe_r2_per_action=per_action.get("codes"),
        probe_r2_per_action_by_features=per_action,
    )


def probe_episodes(
    fit_features: Float[Tensor, "m f"], test_features: Float[Tensor, "v f"], chunks: Chunks
) -> EpisodeSums:
    """Fit one probe and sum its held-out errors over episodes."""
    predicted = fit_probe(fit_features, chunks.fit).predict(test_features)
    return episode_sums(chunks.held_out, predicted, chunks.episode)


def pooled_r2(sums: EpisodeSums) -> float | None:
    """R² over all episodes; None where no target varies."""
    return _number(sums.score().pooled())


def r2_interval(sums: EpisodeSums, baseline: EpisodeSums | None = None) -> tuple[float, float] | None:
    """95 % interval of the pooled R², or of its difference to that of `baseline`, over resampled episodes."""
    if len(sums.clips) < 2:
        return None
    weights = bootstrap_weights(len(sums.clips))
    r2 = sums.resampled(weights).pooled()
    return percentile_interval(r2 if baseline is None else r2 - baseline.resampled(weights).pooled())


def _per_action(score: ProbeScore, dimensions: int) -> list[float | None]:
    residual, total = (rearrange(x, "(h a) -> a h", a=dimensions) for x in (score.residual, score.total))
    return [_number(r2) for r2 in ProbeScore(residual, total).pooled()]


def _number(value: Float[Tensor, ""]) -> float | None:
    """A number that JSON can hold; NaN becomes None."""
    return None if value.isnan() else float(value)
