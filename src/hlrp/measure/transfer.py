"""Transfer of latent actions: decode the codes of one clip from the first frame of another clip, and encode the result.

If the same codes come back, they mean the same in both scenes. After the latent-action transfer of Genie
(arXiv:2402.15391).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions
from hlrp.measure.clip_features import decoder_input
from hlrp.measure.code_usage import agreement, chance_agreement
from hlrp.measure.reconstruction import PICTURE_BATCH, imagine
from hlrp.runtime.progress import progress


@dataclass(frozen=True, kw_only=True)
class TransferMetrics:
    """How well codes survive decoding and encoding again. Every field is None if the model predicts no pixels.

    The codes of clip A are decoded from the first frame of clip B, of another episode; the predicted clip is encoded.
    """

    transfer_consistency: float | None
    """Share of the codes of A that are found again, in [0, 1]. None without codes, or with one held-out episode."""
    transfer_chance: float | None
    """`transfer_consistency` to expect by chance, if the codes found were paired with the codes of random clips."""
    transfer_r2: float | None
    """1 - (squared distance between the code vectors of A and those found) / (variance of the code vectors of A)."""
    self_consistency: float | None
    """Share of the codes of A that are found again after decoding from A's own first frame: an upper reference."""
    self_r2: float | None
    """`transfer_r2` for decoding from A's own first frame."""


NO_TRANSFER = TransferMetrics(
    transfer_consistency=None, transfer_chance=None, transfer_r2=None, self_consistency=None, self_r2=None
)
"""`TransferMetrics` of a model that predicts no pixels."""


@torch.no_grad()
def transfer_metrics(
    model: LatentActionQuantizer,
    clips: UInt8[Tensor, "b t m c h w"],
    episode: Int[Tensor, " b"],
    latents: LatentActions,
) -> TransferMetrics:
    """Decode the latents of every clip from its own first frame and from that of a clip of another episode, then encode
    the predicted clips and compare their latents with the original ones."""
    vectors = decoder_input(model, latents).cpu()
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
    return TransferMetrics(
        transfer_consistency=consistency,
        transfer_chance=chance,
        transfer_r2=None if transferred is None else vector_r2(vectors, decoder_input(model, transferred).cpu()),
        self_consistency=self_consistency,
        self_r2=vector_r2(vectors, decoder_input(model, back).cpu()),
    )


def reencoded(
    model: LatentActionQuantizer, clips: UInt8[Tensor, "b t m c h w"], latents: LatentActions
) -> LatentActions:
    """Decode `latents` from the first frames of `clips`, and return the latents of the predicted clips."""
    device = next(model.parameters()).device
    parts = []
    for rows in progress(torch.arange(len(clips)).split(PICTURE_BATCH), "transferring latents"):
        first = model.to_pixels(clips[rows].to(device))[:, 0]
        parts.append(model.encode(imagine(model, first, decoder_input(model, latents.rows(rows)))))
    return LatentActions.joined(parts).to("cpu")


def clip_of_another_episode(episode: Int[Tensor, " b"]) -> Int[Tensor, " b"] | None:
    """Index of a random clip of another episode for each clip, the same in every run; None if there is one episode."""
    differs = episode[:, None] != episode
    if not differs.any(1).all():
        return None
    return torch.multinomial(differs.float(), 1, generator=torch.Generator().manual_seed(0))[:, 0]


def vector_r2(truth: Float[Tensor, "b n s v"], found: Float[Tensor, "b n s v"]) -> float | None:
    """R² of `found` as an estimate of `truth`, over all values: 1 if they are equal; None if `truth` never varies."""
    truth, found = truth.double(), found.double()
    spread = float((truth - truth.mean(0)).square().sum())
    return 1 - float((truth - found).square().sum()) / spread if spread > 1e-12 else None


def _agreement(first: LatentActions, second: LatentActions) -> float | None:
    return None if first.codes is None or second.codes is None else agreement(first.codes, second.codes)
