"""Geometry of latent actions. The module imports no torch, so that command lines are checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from hlrp.runtime.checks import require_number, require_numbers
from hlrp.runtime.size_limits import (
    LONGEST_OFFSET_S,
    MOST_CLIP_FRAMES,
    MOST_CODE_SLOTS,
    MOST_CODEBOOK_ENTRIES,
    MOST_CODEBOOK_NUMBERS,
    MOST_LOGITS,
    WIDEST_LAYER,
)


@dataclass(frozen=True, kw_only=True)
class LatentSpec:
    """Geometry of the latent actions that a quantizer writes and a policy reads."""

    codebook_size: int = 8
    """Number of codebook entries k of every code slot. LAPA (arXiv:2410.11758) uses 8."""
    code_seq_len: int = 4
    """Number of code slots s of one transition."""
    num_frames: int = 2
    """Number of frames t of a clip that the quantizer encodes: a frame, and the frames one offset, two offsets, … after
    it."""
    frame_offset_s: float = 0.1
    """Time between consecutive frames of a clip, in seconds."""
    code_dim: int = 32
    """Width v of one code vector."""

    def __post_init__(self) -> None:
        require_numbers(self, "codebook_size", at_least=2, limit=MOST_CODEBOOK_ENTRIES)
        require_numbers(self, "code_seq_len", at_least=1, limit=MOST_CODE_SLOTS)
        require_numbers(self, "code_dim", at_least=1, limit=WIDEST_LAYER)
        require_numbers(self, "num_frames", at_least=2, limit=MOST_CLIP_FRAMES)
        require_numbers(self, "frame_offset_s", above=0, limit=LONGEST_OFFSET_S)
        require_number("the number of codes of a label", self.num_codes, limit=MOST_CODE_SLOTS)
        logits, numbers = self.num_codes * self.codebook_size, self.codebook_size * self.code_dim
        require_number("codes of a label times codebook_size", logits, limit=MOST_LOGITS)
        require_number("codebook_size times code_dim", numbers, limit=MOST_CODEBOOK_NUMBERS)

    @property
    def num_transitions(self) -> int:
        """Number of transitions n = t-1 between consecutive frames of a clip."""
        return self.num_frames - 1

    @property
    def num_codes(self) -> int:
        """Number of codes of one label, n*s: the length of `latent_codes`."""
        return self.num_transitions * self.code_seq_len

    def offset_frames(self, fps: float) -> int:
        """Number of dataset frames between consecutive frames of a clip, at `fps` Hz.

        `frame_offset_s * fps` is rounded to the nearest integer, and to the even one if two are equally near, as by
        Python's `round`: 0.25 s at 30 fps are 8 frames, not 7.

        Raises:
            ValueError: If the offset is shorter than one frame.
        """
        frames = round(self.frame_offset_s * fps)
        if frames < 1:
            raise ValueError(
                f"frame_offset_s={self.frame_offset_s} is under one frame at {fps} fps; use {1 / fps:.4f} or more"
            )
        return frames

    def frame_deltas(self, fps: float) -> list[int]:
        """Frames of a clip relative to its first frame t, in dataset frames at `fps` Hz: `[0, offset, 2*offset, …]`."""
        offset = self.offset_frames(fps)
        return [offset * i for i in range(self.num_frames)]

    def require_same_codes(self, other: LatentSpec, *, this: str, that: str) -> None:
        """Raise unless `other` has the same codebook size, number of slots and frames, and frame offset.

        Raises:
            ValueError: With the first field that differs, and the names `this` and `that` of both sides.
        """
        for name in ("codebook_size", "code_seq_len", "num_frames", "frame_offset_s"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(
                    f"{name} differs: {this} has {mine}, {that} has {theirs}; use labels and a policy of the same LAQ"
                )
