"""What demonstrations to record, as named on a command line; without MuJoCo or LeRobot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from hlrp.runtime.checks import require_numbers, require_seed

NuisanceKind = Literal["none", "distractor", "camera"]
"""`distractor`: a ball floats through the workspace. `camera`: the camera turns and shakes as if held by hand."""

DEFAULT_TASKS = ["button-press-topdown-v3", "drawer-close-v3", "window-open-v3", "door-open-v3"]
"""Meta-World tasks that small models learn in minutes."""
MAX_EPISODE_STEPS = 500
"""Meta-World ends every episode here."""
SEEDS_PER_RECORDING = 10_000
"""Episode seeds between one `seed` and the next."""


def require_nuisance(kind: str) -> None:
    """Raise a `ValueError` unless `kind` is a `NuisanceKind`."""
    if kind not in get_args(NuisanceKind):
        raise ValueError(f"nuisance must be one of {', '.join(get_args(NuisanceKind))}, got {kind!r}")


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """How the expert acts and what the camera sees."""

    image_size: int = 64
    """Height and width of the images, in pixels."""
    camera_name: str = "corner2"
    """Meta-World camera."""
    shadows: bool = False
    """Render shadows, reflections and smoothed edges, as LeRobot's own environment does; slow on a CPU."""
    nuisance: NuisanceKind = "none"
    """What moves in the pictures besides the robot: nothing, a ball (`distractor`) or the `camera` itself."""
    action_noise: float = 0.1
    """Standard deviation of the Gaussian noise on the hand's translation, whose range is [-1, 1]."""
    tail_steps: int = 12
    """Expert steps recorded after the first success, so that the moment of success has later frames."""
    max_steps: int = 200
    """Steps within which the expert must succeed for its episode to be kept."""

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
    """What to record; `rollout` says how."""

    tasks: tuple[str, ...]
    """Meta-World tasks or LeRobot's difficulty groups (easy, medium, …)."""
    episodes_per_task: int = 30
    """Successful episodes of each task."""
    seed: int = 0
    """Same seed, same dataset; recordings with different seeds share no episode."""
    video: bool = False
    """Store videos instead of images: smaller and lossy; slower to train from at 64 pixels."""
    rollout: RolloutOptions = field(default_factory=RolloutOptions)
    """How the expert acts and what the camera sees."""

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
        """Episodes tried per task before giving up."""
        return 2 * self.episodes_per_task + 10
