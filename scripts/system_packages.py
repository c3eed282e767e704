"""Install two system libraries that pip cannot install: EGL, to render without a display, and FFmpeg.

This script does nothing on macOS and Windows, which bring a renderer. If a library cannot be installed, the script
prints the command for it and still exits with status 0, since everything else works without the library.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

FFMPEG_UTIL_VERSIONS = range(56, 61)
"""Soname versions of libavutil in FFmpeg 4 to 8, the versions that torchcodec can load."""

RENDER_ONE_IMAGE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
with mujoco.Renderer(model, 16, 16) as renderer:
    mujoco.mj_forward(model, data)
    renderer.update_scene(data)
    renderer.render()
"""


@dataclass(frozen=True)
class Piece:
    """A system library that this project uses."""

    purpose: str
    """What does not work without the library, and what needs it."""
    packages: tuple[str, ...]
    """Packages of the library in Debian and Ubuntu."""


RENDERER = Piece(
    purpose="MuJoCo cannot render without a display, which the Meta-World demo and evaluation need",
    packages=("libegl1", "libegl-mesa0", "libgl1-mesa-dri", "libopengl0"),
)
FFMPEG = Piece(
    purpose="torchcodec cannot load FFmpeg, so LeRobot warns and decodes videos with the slower PyAV",
    packages=("ffmpeg",),
)


def can_render() -> bool:
    """Return whether MuJoCo can render an image; tried in a separate process, since a failure may crash Python."""
    return any(
        subprocess.run(
            [sys.executable, "-c", RENDER_ONE_IMAGE],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
        ).returncode
        == 0
        for backend in ("egl", "osmesa", "glfw")
    )


def can_load(library: str) -> bool:
    """Return whether the dynamic linker finds and loads `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_pieces() -> list[Piece]:
    """Return the libraries that this machine lacks."""
    missing = []
    if not can_render():
        missing.append(RENDERER)
    if not any(can_load(f"libavutil.so.{version}") for version in FFMPEG_UTIL_VERSIONS):
        missing.append(FFMPEG)
    return missing


def apt_get() -> list[str] | None:
    """Return the apt-get command line if the user may install packages without a password, else None."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return ["sudo", "-n", "apt-get"]
    return None


def install(apt: list[str], packages: list[str]) -> None:
    """Install `packages` with little output. Failures are ignored here; the caller checks again what is missing."""
    print(f"Installing system packages: {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        subprocess.run([*apt, "-qq", *step], env=environment, stdout=subprocess.DEVNULL)


def main() -> None:
    """Install missing libraries if the user may, and print the commands for those that are still missing."""
    if sys.platform != "linux":
        return
    missing = missing_pieces()
    apt = apt_get()
    if missing and apt:
        install(apt, [package for piece in missing for package in piece.packages])
        missing = missing_pieces()
    for piece in missing:
        command = f"sudo apt-get install {' '.join(piece.packages)}"
        print(f"note: {piece.purpose}; install it with: {command}", file=sys.stderr)


if __name__ == "__main__":
    main()
