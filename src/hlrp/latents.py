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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from einops import rearrange
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
    """Latent actions of a batch of clips, with the axes n and s, or of labels, which join both to one axis q."""

    codes: Int[Tensor, "b *q"] | None
    """Code ids in [0, k), or `NO_LABEL` where a sample has no label. None from a quantizer without codes."""
    vectors: Float[Tensor, "b *q v"] | None
    """Encoder outputs before quantization. None if they were not read."""
    valid: Bool[Tensor, " b"]
    """False if the clip goes beyond the end of its episode."""

    def __len__(self) -> int:
        return len(self.valid)

    @classmethod
    def of_codes(cls, codes: Int[Tensor, "b *q"]) -> LatentActions:
        """Valid latent actions without vectors."""
        return cls(codes, None, torch.ones(len(codes), dtype=torch.bool, device=codes.device))

    @classmethod
    def joined(cls, parts: Sequence[LatentActions]) -> LatentActions:
        """Concatenate batches; codes or vectors that a part lacks are None in the result."""
        codes = [part.codes for part in parts if part.codes is not None]
        vectors = [part.vectors for part in parts if part.vectors is not None]
        return cls(
            torch.cat(codes) if len(codes) == len(parts) else None,
            torch.cat(vectors) if len(vectors) == len(parts) else None,
            torch.cat([part.valid for part in parts]),
        )

    @property
    def counted(self) -> Bool[Tensor, " b"]:
        """True for the samples that count in losses and metrics: valid, and with a code in every slot.

        Latent actions without codes count if they are valid. The losses and metrics of latent actions use this mask
        alone. Functions that choose frames before a batch exists compute which frames have codes from the stored
        labels or from the ends of the episodes; docs/architecture.md names them.
        """
        if self.codes is None:
            return self.valid
        return self.valid & (self.codes != NO_LABEL).flatten(1).all(1)

    def require_codes(self) -> Int[Tensor, "b *q"]:
        """Return the codes.

        Raises:
            ValueError: If there are none.
        """
        if self.codes is None:
            raise ValueError("these latent actions have no codes; use a quantizer that has codes, such as fsq")
        return self.codes

    def require_vectors(self) -> Float[Tensor, "b *q v"]:
        """Return the vectors.

        Raises:
            ValueError: If there are none.
        """
        if self.vectors is None:
            raise ValueError("these latent actions have no vectors; read the labels together with their vectors")
        return self.vectors

    def targets(self) -> Int[Tensor, "b *q"]:
        """Codes in [0, k) for a loss, with code 0 in place of `NO_LABEL`; `counted` has to mask the loss.

        Raises:
            ValueError: If there are no codes.
        """
        return self.require_codes().clamp_min(0)

    def as_labels(self) -> LatentActions:
        """Join the axes (n, s) of clips to the one axis of labels, with vectors in float32."""
        codes = None if self.codes is None else rearrange(self.codes, "b n s -> b (n s)")
        vectors = None if self.vectors is None else rearrange(self.vectors, "b n s v -> b (n s) v").float()
        return LatentActions(codes, vectors, self.valid)

    def rows(self, index: Int[Tensor, " _"]) -> LatentActions:
        """Latent actions of the samples `index`."""
        return self._changed(lambda values: values[index])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LatentActions:
        """Copy with every tensor on `device`."""
        return self._changed(lambda values: values.to(device, non_blocking=non_blocking))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> LatentActions:
        codes, vectors = (None if values is None else change(values) for values in (self.codes, self.vectors))
        return LatentActions(codes, vectors, change(self.valid))


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
