"""Geometry of latent actions; without torch, so that a command line is checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass

from hlrp.runtime.checks import require_numbers


@dataclass(frozen=True, kw_only=True)
class LatentSpec:
    """Geometry of the latent actions that a quantizer writes and a policy reads."""

    codebook_size: int = 8
    """Codebook entries k in every slot. LAPA (arXiv:2410.11758) uses 8."""
    code_seq_len: int = 4
    """Code slots s of one transition."""
    num_frames: int = 2
    """Frames T the teacher sees: t, t+offset, t+2*offset, …"""
    frame_offset_s: float = 0.1
    """Time between consecutive teacher frames, in seconds."""
    code_dim: int = 32
    """Width d of one code vector."""

    def __post_init__(self) -> None:
        require_numbers(self, "codebook_size", at_least=2)
        require_numbers(self, "code_seq_len", "code_dim", at_least=1)
        require_numbers(self, "num_frames", at_least=2)
        require_numbers(self, "frame_offset_s", above=0)

    @property
    def num_transitions(self) -> int:
        """Transitions n between the teacher's frames."""
        return self.num_frames - 1

    @property
    def num_codes(self) -> int:
        """Codes of one label, n*s: the length of `latent_codes`."""
        return self.num_transitions * self.code_seq_len

    def offset_frames(self, fps: float) -> int:
        """Whole frames between consecutive teacher frames at `fps` Hz.

        The nearest number of frames; halfway between two, the even one, as everywhere in Python: 0.25 s at 30 fps are
        8 frames, not 7.

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
        """Teacher frames relative to t, in dataset frames: `[0, offset, 2*offset, …]`."""
        offset = self.offset_frames(fps)
        return [offset * i for i in range(self.num_frames)]

    def require_same_codes(self, other: LatentSpec, *, this: str, that: str) -> None:
        """Raise unless `other` describes codes of the same geometry.

        Raises:
            ValueError: Naming the first field that differs, and both sides by their names `this` and `that`.
        """
        for name in ("codebook_size", "code_seq_len", "num_frames", "frame_offset_s"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(
                    f"{name} differs: {this} has {mine}, {that} has {theirs}; use labels and a policy of the same LAQ"
                )
