"""Options of `hlrp-collect-demos`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hlrp.runtime.checks import require_numbers
from hlrp.sim.config import DEFAULT_TASKS, DemonstrationConfig, NuisanceKind, RolloutOptions


@dataclass
class CollectDemosConfig:
    """Record demonstrations of Meta-World's scripted experts as a LeRobotDataset; needs no download and no robot."""

    output_dir: Path
    """Folder of the new dataset. Required; the folder must not exist."""
    repo_id: str = "local/hlrp_demos"
    """Repo id (name) of the new dataset."""
    tasks: list[str] = field(default_factory=DEFAULT_TASKS.copy)
    """Meta-World tasks, or LeRobot's difficulty groups (easy, medium, hard, very_hard)."""
    episodes_per_task: int = 30
    """Number of successful episodes to record of each task."""
    image_size: int = 64
    """Height and width of the images, in pixels."""
    camera_name: str = "corner2"
    """Name of the Meta-World camera that records the images."""
    shadows: bool = False
    """Render shadows, reflections and smoothed edges, as LeRobot's own Meta-World environment does; slow on a CPU."""
    nuisance: NuisanceKind = "none"
    """What moves in the images besides the robot: `none`, `distractor` (a floating ball) or `camera` (the camera shakes
    and turns). The state of the nuisance is recorded in the column `nuisance`."""
    action_noise: float = 0.1
    """Standard deviation of the Gaussian noise added to the first three action dimensions (hand translation), which
    lie in [-1, 1]."""
    tail_steps: int = 12
    """Number of steps that are still recorded after the expert first succeeds."""
    max_steps: int = 200
    """Largest number of steps until success; an episode in which the expert takes longer is dropped."""
    seed: int = 0
    """Seed of the episodes. The same seed gives the same dataset; datasets of different seeds share no episode."""
    video: bool = False
    """Store the images as lossy videos, which take less space, instead of as single lossless images."""
    num_workers: int | None = None
    """Number of simulation processes; default: one per CPU core. With 0 the command simulates in its own process."""

    def __post_init__(self) -> None:
        require_numbers(self, "num_workers", at_least=0)
        self.demonstrations()

    def demonstrations(self) -> DemonstrationConfig:
        """Return these options in the form that `record_demonstrations` takes.

        Raises:
            ValueError: If an option is out of range.
        """
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
