"""Latent labels made while a policy trains: a frozen LAQ sees frames t, t+offset, …; the policy sees only frame t.

Shapes: y x pixel rows and columns of the LAQ's input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from lerobot.utils.constants import OBS_PREFIX
from torch import Tensor

from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.latents import LatentActions, LatentSpec, log_offset
from hlrp.pixels import resize

from .configuration import HLRPConfig
from .observations import as_rgb


class OnlineTeacher:
    """Frozen LAQ that labels training batches. No `nn.Module`: it is neither saved nor broadcast by DDP."""

    def __init__(self, laq: LoadedLAQ, cameras: Sequence[str]) -> None:
        self._laq = laq
        self._cameras = list(cameras)
        laq.model.requires_grad_(False).eval()

    @classmethod
    def of_config(cls, config: HLRPConfig, *, fps: float) -> OnlineTeacher:
        """Load the LAQ in `config`, and check it against the policy's cameras and the dataset's frame rate.

        Raises:
            FileNotFoundError: If there is no LAQ at `laq_checkpoint_path`.
            ValueError: If the LAQ has no codes, its offsets differ from `teacher_offsets`, or its cameras are missing.
        """
        assert config.laq_checkpoint_path, "checked by the configuration"
        laq = load_laq(config.laq_checkpoint_path)
        log_offset(laq.model.spec, fps, of="the dataset")
        expected = laq.model.spec.frame_deltas(fps)[1:]
        if list(config.teacher_offsets) != expected:
            raise ValueError(
                f"the quantizer looks {laq.model.spec.frame_offset_s:g} s ahead, which is {expected} frames at "
                f"{fps:g} fps; set --policy.teacher_offsets={expected}, got {list(config.teacher_offsets)}"
            )
        return cls(laq, laq_cameras(laq, config))

    @property
    def spec(self) -> LatentSpec:
        """Geometry of the LAQ's codes."""
        return self._laq.model.spec

    @property
    def laq_fingerprint(self) -> str:
        """Fingerprint of the LAQ."""
        return self._laq.fingerprint

    @property
    def codebook(self) -> Float[Tensor, "s k v"]:
        """Code vectors of the LAQ."""
        return self._laq.model.codebook().detach()

    @torch.no_grad()
    def label(self, batch: Mapping[str, Any]) -> LatentActions:
        """Latent labels of the clips in a training batch; a clip that leaves its episode is marked as not valid.

        Raises:
            ValueError: If the batch holds no clips.
        """
        windows = [self._window(batch, camera) for camera in self._cameras]
        self._laq.model.to(windows[0].device)  # moves the weights once; later calls change nothing
        clips = torch.stack([self._bytes(window) for window in windows], dim=2)  # (b, t, m, c, h, w)
        found = self._laq.model.encode(clips)
        valid = found.valid
        for is_pad in _padding(batch):
            valid = valid & ~is_pad.any(1)
        return replace(found.as_labels(), valid=valid)

    def _window(self, batch: Mapping[str, Any], camera: str) -> Float[Tensor, "b t 3 h w"]:
        window = batch.get(camera)
        if window is None or window.ndim != 5 or window.shape[1] != self.spec.num_frames:
            came = "nothing" if window is None else str(tuple(window.shape))
            raise ValueError(
                f"online labels need {self.spec.num_frames} frames of {camera!r} in every sample, "
                f"(batch, frames, channels, height, width), got {came}"
            )
        return as_rgb(window)

    def _bytes(self, window: Float[Tensor, "b t 3 h w"]) -> UInt8[Tensor, "b t 3 y x"]:
        """Frames as uint8 in [0, 255] at the LAQ's image size, as hlrp-precompute-latent-codes gets them."""
        return resize((255 * window).round().clamp(0, 255).to(torch.uint8), self._laq.model.config.image_size)


def _padding(batch: Mapping[str, Any]) -> list[Bool[Tensor, "b t"]]:
    """Masks of the observed frames that lie after their episode's end, in whose place LeRobot repeats the last frame.

    They are found by the kind of their names: a `rename_map` renames a camera, but not the mask beside it, and all
    observations of a sample are of the same frames.
    """
    return [mask for name, mask in batch.items() if name.startswith(OBS_PREFIX) and name.endswith("_is_pad")]


def laq_cameras(laq: LoadedLAQ, config: HLRPConfig, *, labelled: Sequence[str] = ()) -> list[str]:
    """Camera keys of a policy for the input of a LAQ, in the LAQ's order.

    Args:
        laq: The LAQ.
        config: Configuration of the policy.
        labelled: Cameras from which the LAQ made the labels of this run, which need not be those of its training.

    Raises:
        ValueError: If the cameras are unknown, missing in the policy, too few or too many, or in another
            order than the quantizer's.
    """
    # Labels may have been made under names that a rename_map changes; the policy does not have these.
    known = list(labelled) if set(labelled) <= set(config.image_features) else []
    cameras = list(config.teacher_cameras) or known or laq.cameras
    if not cameras and len(config.image_features) == 1:
        cameras = list(config.image_features)
    lost = [camera for camera in cameras if camera not in config.image_features]
    if not cameras or lost:
        raise ValueError(
            f"the quantizer was trained on {', '.join(laq.cameras) or 'plain videos'}, this policy has "
            f"{', '.join(config.image_features)}; name what it shall look at with --policy.teacher_cameras"
        )
    laq.require_cameras(cameras)
    return cameras
