"""The quality card of a quantizer: does it see motion, does it use its codes, do the codes mean actions?

Shapes: b clips, n transitions, s code slots, k codebook entries, f features, h chunk steps, a action dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.probe import ProbeScore, linear_probe

_THUMBNAIL = 16
"""Side of the frames that the pixel baseline reads: 768 values keep a linear fit well posed."""


@dataclass(frozen=True, kw_only=True)
class LAQQuality:
    """Held-out figures of one quantizer on one dataset. R² pools chunk steps and standardized action dimensions."""

    probe_r2: float | None
    """R² from one-hot codes to the standardized action chunk. None: no action of the dataset varies, or it has none."""
    probe_r2_vectors: float | None
    """The same from the encoder's vectors before quantization."""
    probe_r2_frame_only: float | None
    """The same probe from the codes of a still clip (frame t repeated): what the frame alone puts into the codes."""
    probe_r2_pixels: float | None
    """The same probe from frame t's pixels (16x16): the strongest thing a linear map knows without the future."""
    probe_r2_pixels_and_codes: float | None
    """The same from pixels and codes together."""
    probe_gain: float | None
    """`probe_r2_pixels_and_codes` minus `probe_r2_pixels`: what codes add to all that the frame gives."""
    probe_r2_per_action: list[float | None] | None
    """`probe_r2` for each action dimension; None for one that never varies."""
    copy_gain: float
    """1 - (squared error of the prediction) / (squared error of copying frame t); 0 is a copy, 1 perfect."""
    perplexity: list[float]
    """exp(entropy) of the codes in each slot; k when all are used equally."""
    dead_codes: list[int]
    """Codes of each slot that no held-out clip uses."""
    code_usage: list[list[float]]
    """Share of each code in each slot, (s, k)."""
    clips: int
    """Held-out clips behind these figures."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ClipFeatures:
    """What the probes read from a set of clips."""

    codes: Int[Tensor, "b c"]
    vectors: Float[Tensor, "b f"]
    still_codes: Int[Tensor, "b c"]
    pixels: Float[Tensor, "b p"]
    squared_error: float
    """Summed over all predicted pixels."""
    squared_copy_error: float


@torch.no_grad()
def clip_features(model: LatentActionQuantizer, batches: Iterable[UInt8[Tensor, "_ t c h w"]]) -> ClipFeatures:
    """Run `model` in evaluation mode over clips, batch by batch."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    errors = torch.zeros(2, dtype=torch.float64, device=device)
    for clips in batches:
        frames = model.to_pixels(clips.to(device))
        result = model(frames)
        still = model.encode(frames[:, :1].expand_as(frames))
        after, before = frames[:, 1:], frames[:, :-1]
        errors += torch.stack([(result.frames - after).square().sum(), (before - after).square().sum()])
        thumbnail = F.adaptive_avg_pool2d(frames[:, 0], _THUMBNAIL)
        rows.append((result.codes.flatten(1), result.vectors.flatten(1), still.codes.flatten(1), thumbnail.flatten(1)))
    model.train(was_training)
    codes, vectors, still_codes, pixels = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
    squared_error, squared_copy_error = errors.tolist()
    return ClipFeatures(codes, vectors, still_codes, pixels, squared_error, squared_copy_error)


def measure_quality(
    model: LatentActionQuantizer,
    fit: ClipFeatures,
    held_out: ClipFeatures,
    fit_actions: Float[Tensor, "m h a"] | None,
    held_out_actions: Float[Tensor, "v h a"] | None,
) -> LAQQuality:
    """Fill in the card; probes are fitted on `fit` and scored on `held_out`."""
    spec = model.spec
    usage = F.one_hot(held_out.codes, spec.codebook_size).double().mean(0)
    usage = rearrange(usage, "(n s) k -> n s k", s=spec.code_seq_len).mean(0)
    entropy = -(usage * usage.clamp_min(1e-12).log()).sum(-1)
    card: dict[str, float | list[float | None] | None] = dict.fromkeys(_PROBES)
    if fit_actions is not None and held_out_actions is not None:
        card = _probe(spec.codebook_size, fit, held_out, fit_actions, held_out_actions)
    return LAQQuality(
        **card,  # pyright: ignore[reportArgumentType]
        copy_gain=1 - held_out.squared_error / max(held_out.squared_copy_error, 1e-12),
        perplexity=entropy.exp().tolist(),
        dead_codes=(usage == 0).sum(-1).tolist(),
        code_usage=usage.tolist(),
        clips=len(held_out.codes),
    )


_PROBES = (
    "probe_r2",
    "probe_r2_vectors",
    "probe_r2_frame_only",
    "probe_r2_pixels",
    "probe_r2_pixels_and_codes",
    "probe_gain",
    "probe_r2_per_action",
)


def _probe(
    codebook_size: int,
    fit: ClipFeatures,
    held_out: ClipFeatures,
    fit_actions: Float[Tensor, "m h a"],
    held_out_actions: Float[Tensor, "v h a"],
) -> dict[str, float | list[float | None] | None]:
    mean, scale = fit_actions.mean((0, 1)), fit_actions.std((0, 1)).clamp_min(1e-6)
    fit_targets, test_targets = (
        rearrange((actions - mean) / scale, "b h a -> b (h a)") for actions in (fit_actions, held_out_actions)
    )

    def probe(fit_features: Tensor, test_features: Tensor) -> ProbeScore:
        return linear_probe(fit_features, fit_targets, test_features, test_targets)

    def per_action(score: ProbeScore) -> list[float | None]:
        residual, total = (rearrange(x, "(h a) -> a h", a=fit_actions.shape[-1]) for x in (score.residual, score.total))
        return [_number(ProbeScore(r, t).pooled()) for r, t in zip(residual, total, strict=True)]

    def one_hot(codes: Int[Tensor, "b c"]) -> Float[Tensor, "b f"]:
        return F.one_hot(codes, codebook_size).flatten(1).double()

    codes_fit, codes_test = one_hot(fit.codes), one_hot(held_out.codes)
    from_codes = probe(codes_fit, codes_test)
    from_pixels = probe(fit.pixels, held_out.pixels).pooled()
    from_both = probe(torch.cat([fit.pixels, codes_fit], 1), torch.cat([held_out.pixels, codes_test], 1)).pooled()
    return {
        "probe_r2": _number(from_codes.pooled()),
        "probe_r2_vectors": _number(probe(fit.vectors, held_out.vectors).pooled()),
        "probe_r2_frame_only": _number(probe(one_hot(fit.still_codes), one_hot(held_out.still_codes)).pooled()),
        "probe_r2_pixels": _number(from_pixels),
        "probe_r2_pixels_and_codes": _number(from_both),
        "probe_gain": _number(from_both - from_pixels),
        "probe_r2_per_action": per_action(from_codes),
    }


def _number(value: Float[Tensor, ""]) -> float | None:
    """A number that JSON can hold; NaN becomes None."""
    return None if value.isnan() else float(value)
