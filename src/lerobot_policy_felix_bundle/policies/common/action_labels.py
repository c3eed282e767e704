"""Which frames of a dataset have actions to learn; the other frames only contribute to the latent loss.

Frames are looked up by the absolute frame index in a batch, because LeRobot's batch converter drops unknown columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hlrp.data.known_actions import known_actions
from hlrp.latents import LatentSpec


class ActionLabels:
    """Mask of the frames whose action is known. No `nn.Module`: it is neither saved nor broadcast by DDP."""

    def __init__(self, known: Bool[Tensor, " f"]) -> None:
        self.known = known

    @classmethod
    def of_dataset(
        cls,
        dataset_meta: Any,
        in_run: Bool[Tensor, " f"],
        *,
        fraction: float = 1.0,
        episodes: Sequence[int] = (),
        column: str | None = None,
    ) -> ActionLabels:
        """Known actions of the training dataset; arguments and errors as for `known_actions`."""
        return cls(known_actions(dataset_meta, in_run, fraction=fraction, episodes=episodes, column=column))

    def require_some_with_codes(
        self, in_run: Bool[Tensor, " f"], with_codes: Bool[Tensor, " f"], spec: LatentSpec
    ) -> None:
        """Check that at least one frame of the run has both a known action and latent codes.

        Args:
            in_run: Frames of the run.
            with_codes: Frames with latent codes; see `frames_with_codes`.
            spec: Geometry of the codes, for the message.

        Raises:
            ValueError: If there is no such frame.
        """
        known = self.known & in_run
        if known.any() and not (known & with_codes).any():
            raise ValueError(
                f"none of the {int(known.sum())} frames with a known action has a latent code, since the clip of "
                f"{spec.frame_offset_s:g} s leaves its episode; choose longer episodes, or a LAQ of a shorter offset"
            )

    def lookup(self, index: Int[Tensor, " b"], steps: int) -> Bool[Tensor, "b h"]:
        """Whether the actions of frames `index` and the next `steps` - 1 frames are known, on the device of `index`."""
        if self.known.device != index.device:
            self.known = self.known.to(index.device)
        # Places after the dataset's last frame are clamped; `action_is_pad` masks them.
        place = index[:, None] + torch.arange(steps, device=index.device)
        return self.known[place.clamp_max(len(self.known) - 1)]
