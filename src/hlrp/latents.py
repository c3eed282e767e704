"""Latent actions, shared by all stages: their data type, the fingerprint of a quantizer, and checks of frame offsets.

Axis letters of all array shapes in this project; a module explains only the letters that it adds:

b    batch
t    frames of a clip
m    cameras
n    transitions between consecutive frames of a clip, t-1
s    code slots of one transition
q    codes of one label, n*s
k    codebook entries
v    width of a code vector
h    steps of an action chunk
a    action dimensions
r    values of the robot's state
l    tokens
d    width of a network's features
e    episodes
f    frames of a dataset, or of the part of it that is measured
c h w    colour channels, pixel rows and pixel columns of an image, always in this order
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

from hlrp.latent_spec import LatentSpec

logger = logging.getLogger(__name__)

OFFSET_TOLERANCE = 0.05
"""Largest relative difference between the offset in whole frames and `frame_offset_s` without a warning."""
NO_LABEL = -1
"""Value stored in every slot of a frame that has no latent label. Codes are 0 or more."""


def log_offset(spec: LatentSpec, fps: float, *, of: str) -> None:
    """Log the offset of `spec` in frames at `fps` Hz, and warn if rounding to whole frames changes it much.

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
    """Code ids in [0, k); `NO_LABEL` everywhere from a quantizer without codes."""
    vectors: Float[Tensor, "b n s v"]
    """Encoder outputs before quantization."""
    valid: Bool[Tensor, " b"]
    """False if the clip goes beyond the end of its episode."""


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


def require_same_laq(mine: str | None, other: str | None, *, this: str, that: str, remedy: str) -> None:
    """Raise if two fingerprints are of different LAQs; a fingerprint that is not known, "" or None, passes.

    Raises:
        ValueError: With the names `this` and `that` of both sides, and `remedy` as advice.
    """
    if mine and other and mine != other:
        raise ValueError(f"{this} has codes of LAQ {mine}, {that} has codes of LAQ {other}; {remedy}")


def spec_to_dict(spec: LatentSpec) -> dict[str, int | float]:
    """`spec` as plain values, for JSON."""
    return asdict(spec)
