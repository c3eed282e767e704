"""Visual nuisances: motion in the images that has nothing to do with the robot.

A latent action describes the largest change in a video, which may be the nuisance instead of the hand (LAOM,
arXiv:2502.00379). A nuisance is only rendered; it changes neither physics nor states nor actions.

Shapes: f frames of one episode.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from hlrp.sim.config import NuisanceKind

STATE_NAMES: dict[NuisanceKind, list[str]] = {"distractor": ["x", "y", "z"], "camera": ["tilt", "pan", "roll"]}
"""Names of the three numbers of a nuisance's state: the ball's centre in metres, or the camera's turn in radians."""

# Metres for the ball, radians for the camera, as in STATE_NAMES.
_CENTRE: dict[NuisanceKind, tuple[float, float, float]] = {"distractor": (0.05, 0.6, 0.2), "camera": (0.0, 0.0, 0.0)}
_AMPLITUDE: dict[NuisanceKind, tuple[float, float, float]] = {
    "distractor": (0.3, 0.3, 0.2),
    "camera": (0.15, 0.15, 0.12),
}
"""Largest distance from the centre, for each of the three numbers, without the shake."""
_SHAKE: dict[NuisanceKind, float] = {"distractor": 0.0, "camera": 0.004}
"""Standard deviation of the noise added at every step; 0.004 radians shift an image of 64 pixels by 0.2 pixels."""
_WAVES = 3
"""Number of sine waves that are averaged into the path of each number."""
_FREQUENCIES_HZ = (0.5, 1.5)
"""Range of the waves' frequencies. With it, the nuisance moves about as far as the hand in 0.1 s, the default frame
offset of a latent action."""

_BALL_RADIUS = 0.12  # metres
_MAGENTA = (1.0, 0.0, 0.8, 1.0)
_YELLOW = (1.0, 0.9, 0.0, 1.0)


def nuisance_generator(kind: NuisanceKind, task: str, seed: int) -> np.random.Generator:
    """Return a random generator that is independent of the objects' placement and of other tasks with this seed."""
    return np.random.default_rng([seed, zlib.crc32(f"{kind} {task}".encode())])


def nuisance_path(
    kind: NuisanceKind, random: np.random.Generator, *, num_frames: int, fps: float
) -> Float32[np.ndarray, "f 3"]:
    """Draw the state of the nuisance at every frame of an episode: a mean of slow sine waves, plus the shake.

    Args:
        kind: Kind of nuisance, other than "none".
        random: Generator on which the path depends.
        num_frames: Number of frames.
        fps: Frame rate, in Hz.

    Returns:
        States named by `STATE_NAMES`; without the shake they lie within `_AMPLITUDE` of `_CENTRE`.
    """
    time_s = np.arange(num_frames)[:, None, None] / fps
    frequencies_hz = random.uniform(*_FREQUENCIES_HZ, size=(_WAVES, 3))
    phases = random.uniform(0, 2 * np.pi, size=(_WAVES, 3))
    waves = np.sin(2 * np.pi * frequencies_hz * time_s + phases).mean(axis=1)  # in [-1, 1]
    shake = _SHAKE[kind] * random.standard_normal((num_frames, 3))
    return (np.array(_CENTRE[kind]) + np.array(_AMPLITUDE[kind]) * waves + shake).astype(np.float32)


def add_nuisance(kind: NuisanceKind, scene: Any, state: Float32[np.ndarray, " 3"]) -> None:
    """Add the nuisance with the given `state` to `scene`, an `mjvScene` that is about to be rendered."""
    if kind == "distractor":
        _add_ball(scene, state.astype(np.float64))
    elif kind == "camera":
        _turn_camera(scene, state.astype(np.float64))


def _add_ball(scene: Any, centre: Float[np.ndarray, " 3"]) -> None:
    """Add a magenta ball with three yellow belts to the scene; it is not in the physical model and touches nothing."""
    from mujoco import mjtGeom, mjv_initGeom  # pyright: ignore[reportAttributeAccessIssue]

    upright = np.eye(3)
    sphere = (mjtGeom.mjGEOM_SPHERE, (_BALL_RADIUS, 0, 0), upright, _MAGENTA)
    belt_size = (_BALL_RADIUS * 1.02, _BALL_RADIUS * 0.2, 0)
    belts = [(mjtGeom.mjGEOM_CYLINDER, belt_size, np.roll(upright, turn, axis=0), _YELLOW) for turn in range(3)]
    for shape, size, axes, colour in (sphere, *belts):
        assert scene.ngeom < scene.maxgeom
        geom = scene.geoms[scene.ngeom]
        mjv_initGeom(geom, shape, np.array(size, float), centre, axes.ravel(), np.array(colour, np.float32))
        geom.emission = 0.3  # bright wherever the lamps do not reach
        scene.ngeom += 1


def _turn_camera(scene: Any, angles: Float[np.ndarray, " 3"]) -> None:
    """Turn the camera in place, by `angles` in radians about its axes to the right, up and forward."""
    from mujoco import mju_quatIntegrate, mju_rotVecQuat  # pyright: ignore[reportAttributeAccessIssue]

    for camera in scene.camera:  # MuJoCo keeps two cameras for stereo, and takes a mono image between them
        forward, up = camera.forward.astype(np.float64), camera.up.astype(np.float64)
        axes = np.stack([np.cross(forward, up), up, forward])
        turn = np.array([1.0, 0.0, 0.0, 0.0])
        mju_quatIntegrate(turn, angles @ axes, 1.0)
        for direction, target in ((forward, camera.forward), (up, camera.up)):
            turned = np.empty(3)
            mju_rotVecQuat(turned, direction, turn)
            target[:] = turned
