"""Choose the OpenGL library of MuJoCo, before MuJoCo is imported.

MuJoCo reads the environment variable `MUJOCO_GL` once, when it is imported; if it is not set, MuJoCo needs a display.
Therefore no module of this package imports MuJoCo or Meta-World at its top; `hlrp.sim.tasks.import_metaworld` calls
`choose_gl_backend` first.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
"""Libraries by the values of `MUJOCO_GL`, in order of preference: EGL can use a GPU, OSMesa renders on the CPU."""


def choose_gl_backend() -> None:
    """Set `MUJOCO_GL` to egl or osmesa on a Linux machine without a display, unless the user has set it.

    Raises:
        FileNotFoundError: If neither EGL nor OSMesa can be loaded.
        ValueError: If MuJoCo was imported earlier, so that setting `MUJOCO_GL` has no effect any more.
    """
    has_display = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.platform != "linux" or os.environ.get("MUJOCO_GL") or has_display:
        return
    backend = next((name for name, library in _LIBRARIES.items() if _loads(library)), None)
    if backend is None:
        raise FileNotFoundError(
            "rendering without a display needs the EGL or OSMesa library, and neither loads; install one: "
            "`apt-get install -y libegl1` (or `apt-get install -y libosmesa6`)"
        )
    if "mujoco" in sys.modules:
        raise ValueError(
            "mujoco was imported before a rendering library was chosen, and this machine has no display; "
            f"set the environment variable MUJOCO_GL={backend} before starting Python"
        )
    os.environ["MUJOCO_GL"] = backend


def _loads(library: str) -> bool:
    """Return whether the dynamic loader finds and opens the shared library `library`."""
    path = ctypes.util.find_library(library)
    if path is None:
        return False
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True
