"""The clips that show best what a code means: those whose vectors are nearest to the mean of all clips with the code.

The mean is taken instead of the code's own vector, since some quantizers project vectors before they round them, so
that codes lie in another space.

Shapes: s code slots, v width of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from hlrp.data.labels import LatentLabels


@dataclass(frozen=True, kw_only=True)
class CodeClips:
    """A code of one slot, and the clips that are nearest to it."""

    slot: int
    code: int
    share: float
    """Share of the labelled frames that have the code in this slot."""
    frames: list[int]
    """First frames of the clips, the nearest first."""


def nearest_clips(labels: LatentLabels, *, clips: int, codes: int, slots: int) -> list[CodeClips]:
    """Find the nearest clips of the most frequent codes in the first transition of a clip.

    A code's clips are of different episodes, as far as there are as many, and never overlap: neighbouring frames have
    almost the same vectors.

    Args:
        labels: Labels with their vectors.
        clips: Largest number of clips of a code.
        codes: Largest number of codes of a slot; the most frequent ones, in the order of their numbers.
        slots: Largest number of slots.

    Raises:
        ValueError: If the labels hold no codes.
    """
    labels.require_codes()
    spec = labels.metadata.spec
    frames = labels.valid.nonzero()[:, 0]
    vectors = labels.actions.require_vectors()
    found = []
    for slot in range(min(spec.code_seq_len, slots)):
        given = labels.codes[frames, slot]
        counts = given.bincount(minlength=spec.codebook_size)
        frequent = counts.argsort(descending=True, stable=True)[:codes].sort().values
        for code in frequent[counts[frequent] > 0].tolist():
            members = frames[given == code]
            order = _by_distance(vectors[members, slot])
            chosen = _apart(members[order], labels, clips)
            share = len(members) / len(frames)
            found.append(CodeClips(slot=slot, code=code, share=share, frames=chosen))
    return found


def _by_distance(vectors: Float[Tensor, "b v"]) -> Int[Tensor, " b"]:
    """Rows by their distance to the mean of all rows, the nearest first."""
    return (vectors - vectors.mean(0)).square().sum(1).argsort(stable=True)


def _apart(members: Int[Tensor, " b"], labels: LatentLabels, count: int) -> list[int]:
    """The first of `members` that are of different episodes; then further ones that overlap none of them."""
    span = max(labels.metadata.spec.frame_deltas(labels.metadata.fps))
    episode = labels.episode_index[members].tolist()
    first_of = {number: place for place, number in reversed(list(enumerate(episode)))}
    chosen = [int(members[place]) for place in sorted(first_of.values())[:count]]
    for frame in members.tolist():
        if len(chosen) >= count:
            break
        if all(abs(frame - other) > span for other in chosen):
            chosen.append(frame)
    return chosen
