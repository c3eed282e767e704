"""Choose how MuJoCo reaches OpenGL, before MuJoCo is imported.

MuJoCo reads `MUJOCO_GL` once, while it is imported, and without it expects a display. So nothing in this
package imports MuJoCo or Meta-World at module level: `hlrp.sim.tasks.import_metaworld` chooses first.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


def choose_gl_backend() -> None:
    """Set `MUJOCO_GL` on a Linux machine without a display; leave any choice already made alone.

    Raises:
        FileNotFoundError: If no library can render without a display.
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
    """Whether the dynamic loader finds and opens `library`."""
    path = ctypes.util.find_library(library)
    if path is None:
        return False
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True
