"""The vocabulary all stages share: what a latent action is, and whether two stages mean the same one.

Shapes: b batch, n transitions (T frames give n = T-1), s code slots per transition, k codebook entries, d code width.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

logger = logging.getLogger(__name__)

OFFSET_TOLERANCE = 0.05
"""Share by which an offset in whole frames may differ from the one in seconds before a warning says so."""
NO_LABEL = -1
"""Stored in every slot of a frame that has no latent label; never a code."""


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
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size must be at least 2, got {self.codebook_size}")
        if self.code_seq_len < 1:
            raise ValueError(f"code_seq_len must be at least 1, got {self.code_seq_len}")
        if self.num_frames < 2:
            raise ValueError(f"num_frames must be at least 2 (t and t+offset), got {self.num_frames}")
        if self.frame_offset_s <= 0:
            raise ValueError(f"frame_offset_s must be positive, got {self.frame_offset_s}")
        if self.code_dim < 1:
            raise ValueError(f"code_dim must be at least 1, got {self.code_dim}")

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


def log_offset(spec: LatentSpec, fps: float, *, of: str) -> None:
    """Log how many frames the offset of `spec` is at `fps` Hz, and warn where they last another time than it says.

    Args:
        spec: Geometry of the latent actions.
        fps: Frame rate of a source, in Hz.
        of: Name of that source.

    Raises:
        ValueError: If the offset is shorter than one frame.
    """
    frames = spec.offset_frames(fps)
    seconds = frames / fps
    logger.info(f"{of}: an offset of {spec.frame_offset_s:g} s is {frames} frames at {fps:g} fps, {seconds:.3g} s")
    deviation = seconds / spec.frame_offset_s - 1
    if abs(deviation) > OFFSET_TOLERANCE:
        logger.warning(
            f"{of}: in whole frames the offset is {seconds:.3g} s, {abs(deviation):.0%} "
            f"{'longer' if deviation > 0 else 'shorter'} than frame_offset_s={spec.frame_offset_s:g}; a code spans "
            "another time here than at other frame rates: choose an offset that is whole frames in every source"
        )


@dataclass(frozen=True)
class LatentActions:
    """Latent actions of a batch of clips."""

    codes: Int[Tensor, "b n s"]
    """Nominal codebook indices in [0, k)."""
    vectors: Float[Tensor, "b n s d"]
    """Encoder outputs before quantization."""
    valid: Bool[Tensor, " b"]
    """False where the clip was cut by the end of its episode."""


def fingerprint(state: Mapping[str, Tensor], description: Mapping[str, object]) -> str:
    """Identify a quantizer by its weights and its configuration.

    Args:
        state: State dict; names, dtypes, shapes and bytes all count, insertion order does not.
        description: JSON-serialisable configuration.

    Returns:
        16 hexadecimal digits of a SHA-256.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def spec_to_dict(spec: LatentSpec) -> dict[str, int | float]:
    """Plain values of `spec`, for JSON."""
    return asdict(spec)
