"""What is shown of one labelled episode, on a page or in a recording.

Shapes: q codes of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EpisodeView:
    """The first frames of an episode, and their codes."""

    number: int
    title: str
    """Instruction of the episode, or the name of its file."""
    fps: float
    """Frame rate, in Hz."""
    num_frames: int
    """Frames of the whole episode, of which `frames` may be a part."""
    frames: UInt8[Tensor, "f 3 h w"]
    """RGB in [0, 255]."""
    codes: Int[Tensor, "f q"]
    """Codes of the clip that starts at each frame; `NO_LABEL` for a frame without a label."""
