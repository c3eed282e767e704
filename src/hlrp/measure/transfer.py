"""Do codes mean the same thing everywhere? Codes of one clip are applied to the frame of another, and read back.

After the latent-action transfer of Genie (arXiv:2402.15391). Shapes: b clips, t frames, n transitions, c h w a frame,
s code slots, v code width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.clip_features import Latents, joined, latents_of
from hlrp.measure.code_usage import agreement, chance_agreement
from hlrp.measure.reconstruction import PICTURE_BATCH, imagine
from hlrp.runtime.progress import progress


@dataclass(frozen=True, kw_only=True)
class TransferFigures:
    """Codes read back from imagined clips. None where the model predicts no pixels."""

    transfer_consistency: float | None
    """Share of codes of clip A that are read back after they were applied to frame t of clip B, of another episode.
    None without codes, or with one held-out episode."""
    transfer_chance: float | None
    """The same share if the codes read back were paired with those of any clip."""
    transfer_r2: float | None
    """1 - (squared distance between the code vectors of A and those read back) / (spread of the vectors of A)."""
    self_consistency: float | None
    """`transfer_consistency` of A onto A: what decoding and encoding again keeps at all."""
    self_r2: float | None
    """`transfer_r2` of A onto A."""


NO_TRANSFER = TransferFigures(
    transfer_consistency=None, transfer_chance=None, transfer_r2=None, self_consistency=None, self_r2=None
)
"""Of a model that predicts features, not pixels."""


@torch.no_grad()
def transfer_figures(
    model: LatentActionQuantizer,
    clips: UInt8[Tensor, "b t c h w"],
    episode: Int[Tensor, " b"],
    latents: Latents,
) -> TransferFigures:
    """Apply the latents of every clip to itself and to a clip of another episode, and encode what comes out."""
    back = reencoded(model, clips, latents)
    self_consistency = _agreement(latents, back)
    partner = clip_of_another_episode(episode)
    if partner is None:
        transferred, chance, consistency = None, None, None
    else:
        transferred = reencoded(model, clips[partner], latents)
        consistency = _agreement(latents, transferred)
        chance = (
            None
            if latents.codes is None or transferred.codes is None
            else chance_agreement(latents.codes, transferred.codes, model.spec.codebook_size)
        )
    return TransferFigures(
        transfer_consistency=consistency,
        transfer_chance=chance,
        transfer_r2=None if transferred is None else vector_r2(latents.quantized, transferred.quantized),
        self_consistency=self_consistency,
        self_r2=vector_r2(latents.quantized, back.quantized),
    )


def reencoded(model: LatentActionQuantizer, clips: UInt8[Tensor, "b t c h w"], latents: Latents) -> Latents:
    """Latents of the clips that start with frame t of `clips` and move as `latents` say."""
    device = next(model.parameters()).device
    parts = []
    for rows in progress(torch.arange(len(clips)).split(PICTURE_BATCH), "transferring latents"):
        first = model.to_pixels(clips[rows].to(device))[:, 0]
        parts.append(latents_of(model, imagine(model, first, latents.quantized[rows].to(device))))
    return joined(parts)


def clip_of_another_episode(episode: Int[Tensor, " b"]) -> Int[Tensor, " b"] | None:
    """For each clip a random one of another episode, the same in every run; None where all are of one episode."""
    differs = episode[:, None] != episode
    if not differs.any(1).all():
        return None
    return torch.multinomial(differs.float(), 1, generator=torch.Generator().manual_seed(0))[:, 0]


def vector_r2(truth: Float[Tensor, "b n s v"], found: Float[Tensor, "b n s v"]) -> float | None:
    """1 - squared distance over the spread of `truth` around its mean; None where it has no spread."""
    truth, found = truth.double(), found.double()
    spread = float((truth - truth.mean(0)).square().sum())
    return 1 - float((truth - found).square().sum()) / spread if spread > 1e-12 else None


def _agreement(first: Latents, second: Latents) -> float | None:
    return None if first.codes is None or second.codes is None else agreement(first.codes, second.codes)
