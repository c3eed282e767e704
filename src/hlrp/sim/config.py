"""Options of recorded demonstrations. This module imports neither MuJoCo nor LeRobot, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from hlrp.runtime.checks import require_numbers, require_seed

NuisanceKind = Literal["none", "distractor", "camera"]
"""Kinds of visual nuisance: none; `distractor`, a ball that floats through the workspace; `camera`, a camera that turns
and shakes as if held by hand."""

DEFAULT_TASKS = ["button-press-topdown-v3", "drawer-close-v3", "window-open-v3", "door-open-v3"]
"""Default Meta-World tasks, which small models learn in minutes."""
MAX_EPISODE_STEPS = 500
"""Number of steps after which Meta-World ends every episode."""
SEEDS_PER_RECORDING = 10_000
"""Number of episode seeds reserved for each recording seed, so that recordings share no episode."""


def require_nuisance(kind: str) -> None:
    """Raise a `ValueError` unless `kind` is a `NuisanceKind`."""
    if kind not in get_args(NuisanceKind):
        raise ValueError(f"nuisance must be one of {', '.join(get_args(NuisanceKind))}, got {kind!r}")


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """How an episode of the scripted expert is simulated and rendered."""

    image_size: int = 64
    """Height and width of the images, in pixels."""
    camera_name: str = "corner2"
    """Name of the Meta-World camera that records the images."""
    shadows: bool = False
    """Render shadows, reflections and smoothed edges, as LeRobot's own Meta-World environment does; slow on a CPU."""
    nuisance: NuisanceKind = "none"
    """What moves in the images besides the robot: `none`, `distractor` (a floating ball) or `camera` (it shakes)."""
    action_noise: float = 0.1
    """Standard deviation of the Gaussian noise added to the first three action dimensions (hand translation), which
    lie in [-1, 1]."""
    tail_steps: int = 12
    """Steps recorded after the first success, so that clips that start at the moment of success are complete."""
    max_steps: int = 200
    """Largest number of steps until success; an episode in which the expert takes longer is dropped."""

    def __post_init__(self) -> None:
        require_numbers(self, "image_size", at_least=4)
        require_nuisance(self.nuisance)
        require_numbers(self, "action_noise", "tail_steps", at_least=0)
        if self.max_steps < 1 or self.max_steps + self.tail_steps > MAX_EPISODE_STEPS:
            raise ValueError(
                f"max_steps must be at least 1 and max_steps + tail_steps at most {MAX_EPISODE_STEPS}, where "
                f"Meta-World ends an episode; got {self.max_steps} + {self.tail_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class DemonstrationConfig:
    """Tasks, number of episodes, seed and storage of recorded demonstrations."""

    tasks: tuple[str, ...]
    """Meta-World tasks or LeRobot's difficulty groups (easy, medium, …)."""
    episodes_per_task: int = 30
    """Number of successful episodes to record of each task."""
    seed: int = 0
    """Seed of the episodes. The same seed gives the same dataset; datasets of different seeds share no episode."""
    video: bool = False
    """Store lossy videos instead of images; they take less space, but are slower to train from at 64 pixels."""
    rollout: RolloutOptions = field(default_factory=RolloutOptions)
    """How each episode is simulated and rendered."""

    def __post_init__(self) -> None:
        require_numbers(self, "episodes_per_task", at_least=1)
        if self.max_attempts > SEEDS_PER_RECORDING:
            raise ValueError(
                f"episodes_per_task must be at most {(SEEDS_PER_RECORDING - 10) // 2}, got "
                f"{self.episodes_per_task}; record the rest with another seed"
            )
        require_seed(self.seed)

    @property
    def max_attempts(self) -> int:
        """Largest number of episodes simulated per task; recording fails if too few of them succeed."""
        return 2 * self.episodes_per_task + 10
