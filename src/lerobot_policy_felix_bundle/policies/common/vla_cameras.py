"""Choose the cameras that the VLA of a policy sees: those that it was trained on, in the same order."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .configuration import HLRPConfig

logger = logging.getLogger(__name__)


def settle_vla_cameras(config: HLRPConfig, trained: Sequence[str]) -> None:
    """Set `vla_cameras` if it is None and the VLA's cameras are known, and check it against the policy's cameras.

    If the VLA sees one camera and the policy has one camera, the names need not agree.

    Args:
        config: Configuration of the policy; modified in place.
        trained: Cameras that the VLA was trained on, in its order; empty if they are not known.

    Raises:
        ValueError: If the policy lacks one of the VLA's cameras.
    """
    is_chosen = config.vla_cameras is not None
    cameras = list(config.vla_cameras if config.vla_cameras is not None else trained)
    if not cameras:
        return  # all cameras of the policy
    there = list(config.image_features)
    if not set(cameras) <= set(there):
        if len(cameras) > 1 or len(there) > 1:
            what = "vla_cameras names" if is_chosen else "the VLA was trained on"
            raise ValueError(
                f"{what} {', '.join(cameras)}, but this policy has {', '.join(there)}: name the cameras that the VLA "
                "sees in their place, in this order, as in --policy.vla_cameras="
                f"'[{','.join(there[: len(cameras)])}]' ('[]' is all)"
            )
        logger.warning(f"the VLA sees {there[0]}, the only camera here, in place of {cameras[0]}")
        cameras = there
    config.vla_cameras = cameras
    unseen = [camera for camera in there if camera not in cameras]
    if unseen and not is_chosen:
        logger.info(f"the VLA sees {', '.join(cameras)}, as in its training, and not {', '.join(unseen)}")
