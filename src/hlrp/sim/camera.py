"""One offscreen camera of a MuJoCo simulation, with its own OpenGL context.

Gymnasium's viewer shares state between the contexts of one process; `mujoco.Renderer` makes its own context
current for every frame, so any number of cameras can live side by side.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

_UPSIDE_DOWN = "corner2"
"""Meta-World mounts this camera upside down."""

_open_cameras: weakref.WeakSet[OffscreenCamera] = weakref.WeakSet()


class OffscreenCamera:
    """Renders `camera_name` of a model into arrays.

    Args:
        model: The `mujoco.MjModel`; its settings for offscreen buffers and quality are changed.
        camera_name: A camera of the model.
        height: Pixels.
        width: Pixels.
        shadows: Render shadows, reflections and smoothed edges; slow on a CPU.

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
        # Exit handlers run last in, first out: registered after MuJoCo's, ours frees the contexts before
        # MuJoCo ends the display that they belong to.
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    def photograph(self, data: Any, *, alter_scene: Callable[[Any], None] | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Render the simulation state `data` (a `mujoco.MjData`), upright.

        Args:
            data: The state, which rendering leaves as it is.
            alter_scene: Called with the `mjvScene`, to change what this one picture shows.
        """
        self._renderer.update_scene(data, camera=self._camera_name)
        if alter_scene is not None:
            alter_scene(self._renderer.scene)
        image = self._renderer.render()
        return image[::-1, ::-1].copy() if self._camera_name == _UPSIDE_DOWN else image

    def close(self) -> None:
        """Free the OpenGL context; safe to call twice."""
        self._renderer.close()
        _open_cameras.discard(self)


def _close_all() -> None:
    for camera in list(_open_cameras):
        camera.close()
