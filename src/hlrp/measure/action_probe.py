"""Linear probes of actions: from the latents of a clip, and, as a baseline, from the first frame of the clip alone.

Shapes: b clips, i clips for fitting, j held-out clips, z features, g = h*a targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.latents import LatentActions
from hlrp.measure.clip_features import ClipFeatures
from hlrp.measure.intervals import FEWEST_EPISODES, bootstrap_weights, percentile_interval
from hlrp.measure.linear_probe import EpisodeSums, ProbeScore, episode_sums, fit_probe


@dataclass(frozen=True, kw_only=True)
class ProbeMetrics:
    """Held-out R² of linear maps to the standardized action chunk, pooled over chunk steps and action dimensions.

    R² is at most 1; 0 is as good as the mean action. Every field is None if the dataset has no actions, or they never
    vary. For a quantizer without codes `probe_r2` is None, and code vectors take the place of one-hot codes elsewhere.
    """

    probe_r2: float | None
    """R² of the action chunk, predicted linearly from the one-hot codes of the clip."""
    probe_r2_interval: tuple[float, float] | None
    """95 % bootstrap interval of `probe_r2` over held-out episodes; None with fewer than `FEWEST_EPISODES` of them. The
    probe is not fitted again: the interval covers the choice of test episodes, not that of training episodes."""
    probe_r2_quantized: float | None
    """R² of the action chunk, predicted linearly from the code vectors that the decoder takes."""
    probe_r2_vectors: float | None
    """R² of the action chunk, predicted linearly from the encoder's vectors before quantization."""
    probe_r2_frame_only: float | None
    """R² of the action chunk, predicted linearly from the codes of a still clip (frame t repeated): a reference for
    codes that show the frame, but no motion."""
    probe_r2_pixels: float | None
    """R² of the action chunk, predicted linearly from frame t's pixels (16x16): a baseline that sees no later frame."""
    probe_r2_pixels_and_codes: float | None
    """R² of the action chunk, predicted linearly from frame t's pixels and the one-hot codes together."""
    probe_r2_relative: float | None
    """R² of the relative action chunk, predicted linearly from the one-hot codes of the clip: every action minus the
    first one of its chunk. If actions are absolute targets, such as joint positions, `probe_r2` mostly measures where
    the robot is, and this metric how it moves. None for chunks of one action."""
    probe_r2_relative_vectors: float | None
    """R² of the relative action chunk, predicted linearly from the encoder's vectors before quantization."""
    probe_gain: float | None
    """`probe_r2_pixels_and_codes` minus `probe_r2_pixels`: what the codes add to frame t."""
    probe_gain_interval: tuple[float, float] | None
    """95 % bootstrap interval of `probe_gain`; both R² are computed on the same resampled episodes."""
    probe_gain_over_still: float | None
    """R² from frame t's pixels, the codes of a still clip and the codes together, minus R² without the codes. It is 0
    for codes that depend on frame t alone, which may add to `probe_gain` what no linear map finds in the pixels."""
    probe_gain_over_still_interval: tuple[float, float] | None
    """95 % bootstrap interval of `probe_gain_over_still`."""
    probe_r2_per_action: list[float | None] | None
    """`probe_r2` of each action dimension; None for a dimension that is constant in the fitting clips, from which
    nothing can be learned about it, or in the held-out clips. Such a dimension enters no other metric either."""
    probe_r2_per_action_by_features: dict[str, list[float | None]] | None
    """R² of each action dimension by input of the probe: `codes` (if any), `quantized`, `vectors`, `frame_only` and
    `pixels`."""
    probe_fit_clips: int | None
    """Number of clips with known actions, of training episodes, on which probes are fitted."""
    probe_clips: int | None
    """Number of held-out clips with known actions, on which every R² is computed."""
    probe_episodes: int | None
    """Number of held-out episodes that the clips of `probe_clips` come from."""


_NO_VARIATION = 1e-6
"""Standard deviation up to which an action dimension counts as constant, in dataset units."""
NO_PROBE = ProbeMetrics(
    probe_r2=None, probe_r2_interval=None, probe_r2_quantized=None, probe_r2_vectors=None, probe_r2_frame_only=None,
    probe_r2_pixels=None, probe_r2_pixels_and_codes=None, probe_r2_relative=None, probe_r2_relative_vectors=None,
    probe_gain=None, probe_gain_interval=None, probe_gain_over_still=None, probe_gain_over_still_interval=None,
    probe_r2_per_action=None, probe_r2_per_action_by_features=None,
    probe_fit_clips=None, probe_clips=None, probe_episodes=None,
)  # fmt: skip
"""`ProbeMetrics` of a dataset without actions."""


@dataclass(frozen=True)
class Chunks:
    """Targets of the probes: standardized action chunks, flattened; a row is NaN if its actions are not known."""

    fit: Float[Tensor, "i g"]
    """Targets of the clips on which probes are fitted."""
    held_out: Float[Tensor, "j g"]
    """Targets of the clips on which probes are scored."""
    episode: Int[Tensor, " j"]
    """Episode of each held-out clip."""
    dimensions: int
    """Action dimensions a. The g = h*a targets are ordered by chunk step, then by action dimension."""


def relative(chunks: Chunks) -> Chunks | None:
    """Targets of the same chunks without the first step: every action minus the first of its chunk, standardized anew.

    None for chunks of one action.
    """

    def differences(targets: Float[Tensor, "b g"]) -> Float[Tensor, "b h a"]:
        steps = rearrange(targets, "b (h a) -> b h a", a=chunks.dimensions)
        return steps[:, 1:] - steps[:, :1]

    fit, held_out = differences(chunks.fit), differences(chunks.held_out)
    if not fit.shape[1]:
        return None
    return standardized(fit, held_out, chunks.episode)


def has_finite_actions(chunks: Float[Tensor, "b h a"]) -> Bool[Tensor, " b"]:
    """Whether all actions of each chunk are finite; an action that is not finite counts as not known."""
    return chunks.isfinite().flatten(1).all(1)


def mean_and_scale(
    actions: Float[Tensor, "b h a"],
) -> tuple[Float[Tensor, " a"], Float[Tensor, " a"], Bool[Tensor, " a"]]:
    """Mean and standard deviation of each action dimension, over all chunk steps: steps keep their relative sizes.

    The third value says which dimensions vary; the scale of the others is 1.
    """
    # In float64 the deviation of equal numbers is below the limit, however large they are.
    mean, deviation = actions.double().mean((0, 1)), actions.double().std((0, 1))
    varies = deviation > _NO_VARIATION
    return mean.to(actions.dtype), torch.where(varies, deviation, 1.0).to(actions.dtype), varies


def standardized(fit: Float[Tensor, "i h a"], held_out: Float[Tensor, "j h a"], episode: Int[Tensor, " j"]) -> Chunks:
    """Standardize actions by the mean and standard deviation of the fitting clips, so that no unit outweighs another.

    An action dimension that is constant in the fitting clips becomes 0 everywhere, so that it has no R²: nothing can be
    learned about it, and its first change in a held-out clip would otherwise outweigh all other dimensions. A chunk
    with an action that is not finite becomes NaN as a whole, and the probes leave it out.
    """
    mean, scale, varies = mean_and_scale(fit[has_finite_actions(fit)])

    def targets(actions: Float[Tensor, "b h a"]) -> Float[Tensor, "b g"]:
        scaled = torch.where(varies, (actions - mean) / scale, 0.0)
        scaled = torch.where(has_finite_actions(actions)[:, None, None], scaled, torch.nan)
        return rearrange(scaled, "b h a -> b (h a)")

    return Chunks(targets(fit), targets(held_out), episode, fit.shape[-1])


def code_features(latents: LatentActions, codebook_size: int) -> Float[Tensor, "b z"]:
    """One-hot codes, flattened, as input of a linear probe; code vectors for a quantizer without codes."""
    if latents.codes is None:
        return _flat_vectors(latents.require_vectors()).double()
    return rearrange(F.one_hot(latents.codes, codebook_size), "b n s k -> b (n s k)").double()


def probe_metrics(fit: ClipFeatures, held_out: ClipFeatures, chunks: Chunks, codebook_size: int) -> ProbeMetrics:
    """Fit a probe for every kind of input on the clips of `fit`, and score it on the clips of `held_out`."""
    of_fit, of_held_out = (_probe_inputs(clips, codebook_size) for clips in (fit, held_out))
    inputs = {name: (features, of_held_out[name]) for name, features in of_fit.items()}
    sums = {name: probe_episodes(*features, chunks) for name, features in inputs.items()}
    from_both, from_frame, from_all = (sums.pop(name) for name in ("pixels_and_codes", "pixels_and_still", "all"))
    scores = {name: found.score() for name, found in sums.items()}
    pooled = {name: _number(score.pooled()) for name, score in scores.items()}
    per_action = {name: _per_action(score, chunks.dimensions) for name, score in scores.items()}
    differences = relative(chunks)
    pooled_relative = {
        name: pooled_r2(probe_episodes(*inputs[name], differences))
        for name in ("codes", "vectors")
        if name in inputs and differences is not None
    }
    return ProbeMetrics(
        probe_r2=pooled.get("codes"),
        probe_r2_interval=r2_interval(sums["codes"]) if "codes" in sums else None,
        probe_r2_quantized=pooled["quantized"],
        probe_r2_vectors=pooled["vectors"],
        probe_r2_frame_only=pooled["frame_only"],
        probe_r2_pixels=pooled["pixels"],
        probe_r2_pixels_and_codes=_number(from_both.score().pooled()),
        probe_r2_relative=pooled_relative.get("codes"),
        probe_r2_relative_vectors=pooled_relative.get("vectors"),
        probe_gain=_number(from_both.score().pooled() - scores["pixels"].pooled()),
        probe_gain_interval=r2_interval(from_both, sums["pixels"]),
        probe_gain_over_still=_number(from_all.score().pooled() - from_frame.score().pooled()),
        probe_gain_over_still_interval=r2_interval(from_all, from_frame),
        probe_r2_per_action=per_action.get("codes"),
        probe_r2_per_action_by_features=per_action,
        probe_fit_clips=int(_known(chunks.fit).sum()),
        probe_clips=int(_known(chunks.held_out).sum()),
        probe_episodes=len(chunks.episode[_known(chunks.held_out)].unique()),
    )


def _known(targets: Float[Tensor, "b g"]) -> Bool[Tensor, " b"]:
    return targets.isfinite().all(1)


def _probe_inputs(clips: ClipFeatures, codebook_size: int) -> dict[str, Float[Tensor, "b z"]]:
    """Inputs of the linear probes by name, in the order in which results are listed."""
    codes, still = (code_features(latents, codebook_size) for latents in (clips.latents, clips.still))
    return {
        **({} if clips.latents.codes is None else {"codes": codes}),
        "quantized": _flat_vectors(clips.quantized),
        "vectors": _flat_vectors(clips.latents.require_vectors()),
        "frame_only": still,
        "pixels": clips.pixels,
        "pixels_and_codes": torch.cat([clips.pixels, codes], 1),
        "pixels_and_still": torch.cat([clips.pixels, still], 1),
        "all": torch.cat([clips.pixels, still, codes], 1),
    }


def _flat_vectors(vectors: Float[Tensor, "b n s v"]) -> Float[Tensor, "b z"]:
    return rearrange(vectors, "b n s v -> b (n s v)")


def probe_episodes(
    fit_features: Float[Tensor, "i z"], test_features: Float[Tensor, "j z"], chunks: Chunks
) -> EpisodeSums:
    """Fit one probe, and sum its squared errors on held-out clips for each episode."""
    predicted = fit_probe(fit_features, chunks.fit).predict(test_features)
    return episode_sums(chunks.held_out, predicted, chunks.episode)


def pooled_r2(sums: EpisodeSums) -> float | None:
    """R² over all episodes and all targets that vary; None if no target varies."""
    return _number(sums.score().pooled())


def r2_interval(sums: EpisodeSums, baseline: EpisodeSums | None = None) -> tuple[float, float] | None:
    """95 % bootstrap interval, over episodes, of the pooled R², or of this R² minus that of `baseline`; None with fewer
    than `FEWEST_EPISODES` episodes."""
    if len(sums.clips) < FEWEST_EPISODES:
        return None
    weights = bootstrap_weights(len(sums.clips))
    r2 = sums.resampled(weights).pooled()
    return percentile_interval(r2 if baseline is None else r2 - baseline.resampled(weights).pooled())


def _per_action(score: ProbeScore, dimensions: int) -> list[float | None]:
    residual, total = (rearrange(x, "(h a) -> a h", a=dimensions) for x in (score.residual, score.total))
    return [_number(r2) for r2 in ProbeScore(residual, total).pooled()]


def _number(value: Float[Tensor, ""]) -> float | None:
    """`value` as a Python number for JSON; None for NaN, which JSON does not have."""
    return None if value.isnan() else float(value)
