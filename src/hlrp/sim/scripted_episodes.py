"""Episodes of Meta-World's scripted experts, rolled out in worker processes.

Shapes: t frames of one episode, h w image height and width.
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
    """One successful episode; row i is what was seen, and then done, at step i."""

    images: UInt8[np.ndarray, "t h w 3"]
    """In [0, 255]."""
    states: Float32[np.ndarray, "t 4"]
    """Hand x, y, z in metres and gripper opening in [0, 1]."""
    actions: Float32[np.ndarray, "t 4"]
    """As executed, noise included, in [-1, 1]."""
    nuisance: Float32[np.ndarray, "t 3"] | None
    """The environment's `nuisance_state`, if there is one."""


_TRANSLATION = 3
"""Leading action dimensions that move the hand; the last one is the gripper's effort."""


def roll_out(task: str, seed: int, options: RolloutOptions) -> ScriptedEpisode | None:
    """Let the expert solve `task` once; the result depends on the arguments alone.

    Returns:
        The episode, or None if the expert did not succeed within `options.max_steps`.
    """
    env = _environment(task, options)
    noise = np.random.default_rng([seed, zlib.crc32(task.encode())])
    observation, _ = env.reset(seed=seed)
    images, states, actions, nuisance = [], [], [], []
    last_step = options.max_steps
    succeeded = False
    while len(actions) < last_step:
        action = env.expert_action()
        action[:_TRANSLATION] += options.action_noise * noise.standard_normal(_TRANSLATION)
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
    """Make this worker process end with its parent, ignore Ctrl-C and render on one thread.

    Ctrl-C goes to all processes and is left to the parent, which waits for the workers and says in one line that it
    stopped. With one thread each, the workers do not compete for cores.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.environ.setdefault("LP_NUM_THREADS", "1")  # Mesa's software rasterizer


def close_environment() -> None:
    """Free the simulation that `roll_out` keeps for its next call in this process."""
    _environment.cache_clear()


@functools.lru_cache(maxsize=1)
def _environment(task: str, options: RolloutOptions) -> LightMetaworldEnv:
    """The last task's environment; an episode takes a second, and so does building one."""
    return LightMetaworldEnv(
        task,
        camera_name=options.camera_name,
        observation_height=options.image_size,
        observation_width=options.image_size,
        shadows=options.shadows,
        nuisance=options.nuisance,
    )
