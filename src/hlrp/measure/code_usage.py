"""Statistics of codes: how evenly a quantizer uses its codebook, and how often two sets of codes agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CodeUsage:
    """How evenly the codes of held-out clips are used; every field is None for a quantizer without codes."""

    perplexity: list[float] | None
    """exp(entropy) of the codes in each slot, in [1, k]; k when all codes are used equally often."""
    dead_codes: list[int] | None
    """For each slot, the number of codes that no held-out clip uses."""
    code_usage: list[list[float]] | None
    """How often each slot holds each code, as shares that sum to 1 in a slot, (s, k)."""
    tuple_entropy_bits: float | None
    """Entropy, in bits, of the tuple of all codes of a clip. Slots that repeat each other add nothing."""
    tuple_entropy_bits_max: float | None
    """Highest possible `tuple_entropy_bits`: n*s * log2(k), or log2(clips) if that is less."""
    distinct_tuples: int | None
    """Number of different code tuples among the held-out clips."""


NO_CODE_USAGE = CodeUsage(
    perplexity=None, dead_codes=None, code_usage=None, tuple_entropy_bits=None, tuple_entropy_bits_max=None,
    distinct_tuples=None,
)  # fmt: skip
"""`CodeUsage` of a quantizer without codes."""


def code_usage(codes: Int[Tensor, "b n s"], codebook_size: int) -> CodeUsage:
    """Count the codes of held-out clips: per slot over all transitions, and as tuples of all codes of a clip."""
    usage = F.one_hot(codes, codebook_size).double().mean((0, 1))
    entropy = -(usage * usage.clamp_min(1e-12).log()).sum(-1)  # the clamp makes 0 log 0 = 0 instead of NaN
    tuples = rearrange(codes, "b n s -> b (n s)")
    return CodeUsage(
        perplexity=entropy.exp().tolist(),
        dead_codes=(usage == 0).sum(-1).tolist(),
        code_usage=usage.tolist(),
        tuple_entropy_bits=tuple_entropy_bits(tuples),
        tuple_entropy_bits_max=min(tuples.shape[1] * math.log2(codebook_size), math.log2(len(tuples))),
        distinct_tuples=len(tuples.unique(dim=0)),
    )


def tuple_entropy_bits(tuples: Int[Tensor, "b q"]) -> float:
    """Entropy of the distribution of rows, in bits, with the bias correction of Miller and Madow (Miller, 1955).

    A small sample misses rare tuples, so that its plain entropy is too small by about (distinct - 1) / (2 b) nats,
    which is added here. If nearly every clip has a tuple of its own, the result is still too small: at most log2(b).
    """
    counts = tuples.unique(dim=0, return_counts=True)[1].double()
    share = counts / counts.sum()
    nats = float(-(share * share.log()).sum()) + (len(counts) - 1) / (2 * len(tuples))
    return min(max(nats, 0.0) / math.log(2), math.log2(len(tuples)))


def modal_share(tuples: Int[Tensor, "b q"]) -> float:
    """Share of the rows that equal the most frequent row, in (0, 1]."""
    return float(tuples.unique(dim=0, return_counts=True)[1].max()) / len(tuples)


def most_frequent(tuples: Int[Tensor, "b q"], count: int) -> Int[Tensor, "_ q"]:
    """The `count` most frequent rows, in order of falling frequency."""
    rows, counts = tuples.unique(dim=0, return_counts=True)
    return rows[torch.argsort(counts, descending=True, stable=True)[:count]]


def agreement(first: Int[Tensor, "b n s"], second: Int[Tensor, "b n s"]) -> float:
    """Share of code slots in which `first` and `second` hold the same code, in [0, 1]."""
    return float((first == second).double().mean())


def chance_agreement(first: Int[Tensor, "b n s"], second: Int[Tensor, "b n s"], codebook_size: int) -> float:
    """Expected `agreement` if clips of both sides were paired at random: per slot, the sum over codes of the products
    of their shares."""
    one, other = (usage_per_slot(codes, codebook_size) for codes in (first, second))
    return float((one * other).sum(-1).mean())


def usage_per_slot(codes: Int[Tensor, "b n s"], codebook_size: int) -> Float[Tensor, "n s k"]:
    """Share of each code in each slot of each transition, over all clips."""
    return F.one_hot(codes, codebook_size).double().mean(0)
