"""Options of `hlrp-collect-demos`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hlrp.runtime.checks import require_numbers
from hlrp.sim.config import DEFAULT_TASKS, DemonstrationConfig, NuisanceKind, RolloutOptions


@dataclass
class CollectDemosConfig:
    """Options of `hlrp-collect-demos`."""

    output_dir: Path
    """Folder of the new dataset; required, and must not exist."""
    repo_id: str = "local/hlrp_demos"
    """Name of the dataset."""
    tasks: list[str] = field(default_factory=DEFAULT_TASKS.copy)
    """Meta-World tasks, or LeRobot's difficulty groups (easy, medium, hard, very_hard)."""
    episodes_per_task: int = 30
    """Successful episodes of each task."""
    image_size: int = 64
    """Height and width of the images, in pixels."""
    camera_name: str = "corner2"
    """Meta-World camera."""
    shadows: bool = False
    """Render shadows, reflections and smoothed edges, as LeRobot's own environment does; slow on a CPU."""
    nuisance: NuisanceKind = "none"
    """What moves in the pictures besides the robot: nothing, a ball (`distractor`) or the `camera` itself; recorded as
    the column `nuisance`."""
    action_noise: float = 0.1
    """Standard deviation of the Gaussian noise on the hand's translation, whose range is [-1, 1]."""
    tail_steps: int = 12
    """Expert steps recorded after the first success."""
    max_steps: int = 200
    """Steps within which the expert must succeed for its episode to be kept."""
    seed: int = 0
    """Same seed, same dataset; recordings with different seeds share no episode."""
    video: bool = False
    """Store videos instead of images: smaller and lossy."""
    num_workers: int | None = None
    """Processes that simulate; one per core if not given, 0 for none besides this one."""

    def __post_init__(self) -> None:
        require_numbers(self, "num_workers", at_least=0)
        self.demonstrations()

    def demonstrations(self) -> DemonstrationConfig:
        """What to record, and how."""
        return DemonstrationConfig(
            tasks=tuple(self.tasks),
            episodes_per_task=self.episodes_per_task,
            seed=self.seed,
            video=self.video,
            rollout=RolloutOptions(
                image_size=self.image_size,
                camera_name=self.camera_name,
                shadows=self.shadows,
                nuisance=self.nuisance,
                action_noise=self.action_noise,
                tail_steps=self.tail_steps,
                max_steps=self.max_steps,
            ),
        )
