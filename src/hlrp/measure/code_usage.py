"""Does a quantizer use its codes?

Shapes: b clips, n transitions, s code slots, k codebook entries, g = n*s codes of a clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CodeFigures:
    """How evenly codes are used; every field is None for a quantizer without codes."""

    perplexity: list[float] | None
    """exp(entropy) of the codes in each slot; k when all are used equally."""
    dead_codes: list[int] | None
    """Codes of each slot that no held-out clip uses."""
    code_usage: list[list[float]] | None
    """Share of each code in each slot, (s, k)."""
    tuple_entropy_bits: float | None
    """Entropy of whole code tuples: what all slots say together. Slots that repeat each other do not add to it."""
    tuple_entropy_bits_max: float | None
    """Its ceiling: codes * log2(k), or log2(clips) where there are too few clips to show more."""
    distinct_tuples: int | None
    """Different code tuples among the held-out clips."""


NO_CODES = CodeFigures(
    perplexity=None, dead_codes=None, code_usage=None, tuple_entropy_bits=None, tuple_entropy_bits_max=None,
    distinct_tuples=None,
)  # fmt: skip
"""Of a continuous latent."""


def code_figures(codes: Int[Tensor, "b n s"], codebook_size: int) -> CodeFigures:
    """Count codes; slots of all transitions are pooled, tuples are whole clips."""
    usage = F.one_hot(codes, codebook_size).double().mean((0, 1))
    entropy = -(usage * usage.clamp_min(1e-12).log()).sum(-1)
    tuples = rearrange(codes, "b n s -> b (n s)")
    return CodeFigures(
        perplexity=entropy.exp().tolist(),
        dead_codes=(usage == 0).sum(-1).tolist(),
        code_usage=usage.tolist(),
        tuple_entropy_bits=tuple_entropy_bits(tuples),
        tuple_entropy_bits_max=min(tuples.shape[1] * math.log2(codebook_size), math.log2(len(tuples))),
        distinct_tuples=len(tuples.unique(dim=0)),
    )


def tuple_entropy_bits(tuples: Int[Tensor, "b g"]) -> float:
    """Entropy of whole rows in bits, with the correction of Miller (1955) and Madow.

    Counting a few clips misses rare tuples, and the plain entropy is too small by about (distinct - 1) / (2 b) nats,
    which is added here. With nearly as many tuples as clips even this is a lower bound; it never exceeds log2(b).
    """
    counts = tuples.unique(dim=0, return_counts=True)[1].double()
    share = counts / counts.sum()
    nats = float(-(share * share.log()).sum()) + (len(counts) - 1) / (2 * len(tuples))
    return min(max(nats, 0.0) / math.log(2), math.log2(len(tuples)))


def modal_share(tuples: Int[Tensor, "b g"]) -> float:
    """Share of rows that equal the most frequent one."""
    return float(tuples.unique(dim=0, return_counts=True)[1].max()) / len(tuples)


def most_frequent(tuples: Int[Tensor, "b g"], count: int) -> Int[Tensor, "_ g"]:
    """The `count` most frequent rows, the most frequent first."""
    rows, counts = tuples.unique(dim=0, return_counts=True)
    return rows[torch.argsort(counts, descending=True, stable=True)[:count]]


def agreement(first: Int[Tensor, "b n s"], second: Int[Tensor, "b n s"]) -> float:
    """Share of equal codes."""
    return float((first == second).double().mean())


def chance_agreement(first: Int[Tensor, "b n s"], second: Int[Tensor, "b n s"], codebook_size: int) -> float:
    """Share of equal codes if the two sides were paired at random: sum over codes of the products of their shares."""
    one, other = (usage_per_slot(codes, codebook_size) for codes in (first, second))
    return float((one * other).sum(-1).mean())


def usage_per_slot(codes: Int[Tensor, "b n s"], codebook_size: int) -> Float[Tensor, "n s k"]:
    """Share of each code."""
    return F.one_hot(codes, codebook_size).double().mean(0)
