"""Input batch of a foundation VLA: one frame per camera, one instruction, and in training the codes to predict.

Images have no time axis, so that a `FoundationBatch` cannot hold a frame later than t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.latents import NO_LABEL, LatentActions, LatentSpec
from hlrp.training.row_draws import RowDraws


@dataclass(frozen=True)
class FoundationBatch:
    """Observations at time t with their instructions, and optionally their latent labels."""

    images: Float[Tensor, "b m c h w"]
    """One RGB frame per camera, float32 in [0, 1]."""
    instructions: list[str]
    """One non-empty instruction per sample, length b."""
    labels: LatentActions | None = None
    """Latent actions to learn, with one axis of q codes; vectors are needed only by a backend with a continuous head.
    None at inference."""
    draws: RowDraws | None = None
    """Random numbers of the samples in training. They come with the batch, so that the draws of a sample do not depend
    on the number of processes. None: the model derives them from its own count of batches."""

    def __post_init__(self) -> None:
        if self.images.ndim != 5:
            raise ValueError(
                f"images must be (batch, cameras, channels, height, width), got {tuple(self.images.shape)}; "
                "pass one frame per camera, without a time axis"
            )
        if len(self.instructions) != len(self.images):
            raise ValueError(
                f"{len(self.images)} samples came with {len(self.instructions)} instructions; "
                "pass one instruction per sample"
            )

    def __len__(self) -> int:
        return len(self.instructions)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FoundationBatch:
        """Copy with every tensor on `device`."""

        def move[Movable: (LatentActions, RowDraws)](value: Movable | None) -> Movable | None:
            return None if value is None else value.to(device, non_blocking=non_blocking)

        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            labels=move(self.labels),
            draws=move(self.draws),
        )

    def require_labels(self, spec: LatentSpec) -> LatentActions:
        """Return the labels, after checking that they have codes of the geometry `spec`.

        Raises:
            ValueError: If the batch has no codes, or the number of codes differs from `spec.num_codes`.
        """
        if self.labels is None or self.labels.codes is None:
            raise ValueError("the batch has no codes to learn from; label the dataset or pass codes")
        if self.labels.codes.shape != (len(self), spec.num_codes):
            raise ValueError(
                f"codes must be ({len(self)}, {spec.num_codes}), got {tuple(self.labels.codes.shape)}; "
                "use labels of the LAQ this model was built for"
            )
        return self.labels


def require_instructions(instructions: Sequence[object]) -> list[str]:
    """Return `instructions` as a list, after checking that each is a non-empty text.

    Raises:
        ValueError: If an instruction is missing, not text, empty or only whitespace.
    """
    texts: list[str] = []
    for index, instruction in enumerate(instructions):
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(f"sample {index} has the instruction {instruction!r}; give it a non-empty instruction")
        texts.append(instruction)
    return texts


def are_pixels(images: Float[Tensor, "..."]) -> Bool[Tensor, ""]:
    """Whether all pixels are finite and roughly in [0, 1]; augmentation may leave this range a little."""
    return ((images > -0.5) & (images < 1.5)).all()  # comparisons with NaN are false


def require_finite(images: Float[Tensor, "..."]) -> None:
    """Refuse images with NaN, infinite or unscaled pixels.

    The check copies a flag to the host. Call it where data enters, not in every training step.

    Raises:
        ValueError: If any pixel is not finite, or lies far outside [0, 1].
    """
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite pixels, expected float32 in [0, 1]; check camera and decoder")
    if not bool(are_pixels(images)):
        low, high = torch.stack(torch.aminmax(images)).tolist()
        raise ValueError(
            f"images hold pixels from {low:g} to {high:g}, expected float32 in [0, 1]; divide 8-bit pictures by 255, "
            'and mark depth maps in meta/info.json with "is_depth_map": true, which leaves them out'
        )


def require_codes(codes: Int[Tensor, "b q"], spec: LatentSpec) -> None:
    """Refuse codes that do not fit `spec`. The check copies two numbers to the host.

    Raises:
        ValueError: If the number of slots differs from `spec.num_codes` or a code is outside [-1, k).
    """
    if codes.ndim != 2 or codes.shape[1] != spec.num_codes:
        raise ValueError(
            f"codes must be (batch, {spec.num_codes}), got {tuple(codes.shape)}; use labels of the same LAQ"
        )
    if len(codes) == 0:
        return
    low, high = torch.stack(torch.aminmax(codes)).tolist()
    if low < NO_LABEL or high >= spec.codebook_size:
        raise ValueError(
            f"codes must lie in [0, {spec.codebook_size}) or be {NO_LABEL}, got {low} to {high}; "
            "use labels of the same LAQ"
        )
