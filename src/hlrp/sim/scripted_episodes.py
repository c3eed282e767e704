"""Simulation of one episode of a Meta-World scripted expert, in worker processes.

Shapes: f frames of one episode.
"""

from __future__ import annotations

import functools
import os
import signal
import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from hlrp.runtime.processes import end_with_parent
from hlrp.sim.config import RolloutOptions
from hlrp.sim.light_metaworld import LightMetaworldEnv


@dataclass(frozen=True)
class ScriptedEpisode:
    """One successful episode. Row i holds the observation at step i and the action that was taken on it."""

    images: UInt8[np.ndarray, "f h w 3"]
    """RGB images in [0, 255]."""
    states: Float32[np.ndarray, "f 4"]
    """Hand x, y, z in metres and gripper opening in [0, 1]."""
    actions: Float32[np.ndarray, "f 4"]
    """Executed actions, with their noise, in [-1, 1]."""
    nuisance: Float32[np.ndarray, "f 3"] | None
    """State of the nuisance, see `LightMetaworldEnv.nuisance_state`; None without a nuisance."""


_TRANSLATION = 3
"""Number of leading action dimensions that move the hand; only they get noise. The fourth is the gripper's effort."""


def roll_out(task: str, seed: int, options: RolloutOptions) -> ScriptedEpisode | None:
    """Simulate one episode of the scripted expert; the result depends only on the arguments.

    Returns:
        The episode, or None if the expert did not succeed within `options.max_steps`.
    """
    env = _environment(task, options)
    # The task is part of the seed, so that tasks with the same episode seed get different noise.
    noise = np.random.default_rng([seed, zlib.crc32(task.encode())])
    observation, _ = env.reset(seed=seed)
    images, states, actions, nuisance = [], [], [], []
    last_step = options.max_steps
    succeeded = False
    while len(actions) < last_step:
        action = env.expert_action()
        action[:_TRANSLATION] += options.action_noise * noise.standard_normal(_TRANSLATION)
        # Clipped before it is recorded: the dataset holds the action that the simulation executes.
        action = np.clip(action, -1, 1).astype(np.float32)
        images.append(observation["pixels"])
        states.append(observation["agent_pos"].astype(np.float32))
        actions.append(action)
        nuisance.append(env.nuisance_state)
        observation, _, _, _, info = env.step(action)
        if info["is_success"] and not succeeded:
            succeeded = True
            last_step = len(actions) + options.tail_steps
    if not succeeded:
        return None
    return ScriptedEpisode(
        images=np.stack(images),
        states=np.stack(states),
        actions=np.stack(actions),
        nuisance=None if options.nuisance == "none" else np.stack(nuisance),
    )


def prepare_worker() -> None:
    """Make this worker process end with its parent process, ignore Ctrl-C and render on one thread.

    Ctrl-C reaches all processes. The parent process handles it: it waits for the workers and prints one line. One
    rendering thread per worker avoids competition for cores.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's software rasterizer


def close_environment() -> None:
    """Free the environment that `roll_out` caches in this process."""
    _environment.cache_clear()


@functools.lru_cache(maxsize=1)
def _environment(task: str, options: RolloutOptions) -> LightMetaworldEnv:
    """Build the environment of `task`, or return it if the last call had the same arguments.

    Building an environment takes about as long as an episode, a second; one is kept, since workers go task by task.
    """
    return LightMetaworldEnv(
        task,
        camera_name=options.camera_name,
        observation_height=options.image_size,
        observation_width=options.image_size,
        shadows=options.shadows,
        nuisance=options.nuisance,
    )
