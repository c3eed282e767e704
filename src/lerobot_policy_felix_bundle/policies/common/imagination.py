"""Pictures of what the predicted codes should do: the LAQ's decoder draws the frame after frame t from the codes.

Shapes: y x pixel rows and columns of the LAQ's frames, p chunks of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from hlrp.laq.checkpoint import LoadedLAQ, load_laq

from .configuration import HLRPConfig
from .geometry import settle_laq
from .observations import camera_images
from .online_teacher import laq_cameras


class Imagination:
    """A LAQ that draws the frames that predicted codes lead to. No `nn.Module`: it is neither saved nor trained.

    Args:
        laq: The LAQ that the codes belong to.
        cameras: Cameras of the policy for the LAQ's input, in the LAQ's order.
    """

    def __init__(self, laq: LoadedLAQ, cameras: list[str]) -> None:
        self._laq, self._cameras = laq, cameras
        laq.model.requires_grad_(False).eval()

    @classmethod
    def of_config(cls, config: HLRPConfig) -> Imagination:
        """Load the LAQ at `laq_checkpoint_path`.

        Raises:
            FileNotFoundError: If there is no LAQ.
            ValueError: If no LAQ is named, it is not the one whose codes the policy predicts, or it predicts no pixels.
        """
        if not config.laq_checkpoint_path:
            raise ValueError(
                "--policy.save_predicted_video=true draws what the LAQ's decoder expects: name the LAQ with "
                "--policy.laq_checkpoint_path"
            )
        laq = load_laq(config.laq_checkpoint_path)
        settle_laq(config, laq.fingerprint, config.laq_checkpoint_path)
        if "pixels" not in laq.model.config.targets:
            raise ValueError(
                f"the LAQ in {config.laq_checkpoint_path} predicts {', '.join(laq.model.config.targets)}, no pixels, "
                "so it cannot draw frames; leave out --policy.save_predicted_video"
            )
        return cls(laq, laq_cameras(laq, config))

    @torch.no_grad()
    def pairs(self, batch: Mapping[str, Any], codes: Int[Tensor, "b q"]) -> Float[Tensor, "b 3 1 y x"]:
        """Frame t above the frame to which the codes lead, both in [0, 1], with the cameras side by side.

        Args:
            batch: Observations at time t.
            codes: Code ids of all transitions of one latent action.
        """
        model = self._laq.model
        now = camera_images(batch, self._cameras, model.config.image_size)
        model.to(now.device)  # moves the weights once; later calls change nothing
        vectors = model.lookup(rearrange(codes, "b (n s) -> b n s", s=model.spec.code_seq_len))
        then = now
        for transition in vectors.split(1, dim=1):
            then = model.predict(then[:, None], transition)[:, 0]
        return rearrange([now, then.clamp(0, 1)], "two b m c h w -> b c 1 (two h) (m w)")


def as_video(pairs: Float[Tensor, "b 3 p y x"], *, repeats: int) -> UInt8[Tensor, "_ y _ 3"]:
    """Frames of a video, RGB in [0, 255]: environments b side by side, every pair shown for `repeats` frames."""
    frames = (255 * pairs).round().to(torch.uint8)
    return repeat(frames, "b c p y x -> (p repeats) y (b x) c", repeats=repeats)
