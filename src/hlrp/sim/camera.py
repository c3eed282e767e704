"""Offscreen camera of a MuJoCo simulation, with its own OpenGL context.

Gymnasium's viewer shares state between the contexts of one process. `mujoco.Renderer`, used here, makes its own context
current for every frame, so that several cameras work in one process.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

_UPSIDE_DOWN = "corner2"
"""Name of the camera that Meta-World mounts upside down; its images are rotated by 180 degrees."""

_open_cameras: weakref.WeakSet[OffscreenCamera] = weakref.WeakSet()
"""Cameras whose OpenGL contexts must be freed before the process ends."""


class OffscreenCamera:
    """Renders images of the camera `camera_name` of a MuJoCo model.

    Args:
        model: A `mujoco.MjModel`; its settings of offscreen buffers and rendering quality are changed.
        camera_name: Name of a camera of the model.
        height: Height of the images, in pixels.
        width: Width of the images, in pixels.
        shadows: Whether to render shadows, reflections and smoothed edges; slow on a CPU.

    Raises:
        ValueError: If the model has no such camera.
    """

    def __init__(self, model: Any, *, camera_name: str, height: int, width: int, shadows: bool) -> None:
        from mujoco import Renderer, mjtRndFlag  # pyright: ignore[reportAttributeAccessIssue]

        cameras = [model.camera(index).name for index in range(model.ncam)]
        if camera_name not in cameras:
            raise ValueError(f"expected camera_name to be one of {', '.join(cameras)}, got {camera_name!r}")
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        if not shadows:
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 0
        self._camera_name = camera_name
        self._renderer: Any = Renderer(model, height, width)
        for flag in (mjtRndFlag.mjRND_SHADOW, mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = shadows
        _open_cameras.add(self)
        # Exit handlers run in reverse order of registration. MuJoCo registered its own when the renderer was made,
        # and it ends the display. `_close_all` must be registered later, so that it frees the contexts before.
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    def render(self, data: Any, *, alter_scene: Callable[[Any], None] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Render one image of a simulation state.

        Args:
            data: The state, a `mujoco.MjData`, which is not changed.
            alter_scene: Function that changes the `mjvScene` before it is rendered, for this image only.

        Returns:
            RGB image in [0, 255], HWC, upright.
        """
        self._renderer.update_scene(data, camera=self._camera_name)
        if alter_scene is not None:
            alter_scene(self._renderer.scene)
        image = self._renderer.render()
        return image[::-1, ::-1].copy() if self._camera_name == _UPSIDE_DOWN else image

    def close(self) -> None:
        """Free the OpenGL context; a second call does nothing."""
        self._renderer.close()
        _open_cameras.discard(self)


def _close_all() -> None:
    for camera in list(_open_cameras):
        camera.close()
