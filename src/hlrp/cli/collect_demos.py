"""Record demonstrations of Meta-World's scripted experts as a LeRobotDataset: no download, no robot.

LeRobot is imported late: every worker process imports this module again, and LeRobot takes many seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import draccus

from hlrp.cli.common import run_cli


@dataclass
class CollectDemosConfig:
    """Options of `hlrp-collect-demos`."""

    output_dir: Path
    """Folder of the new dataset; must not exist."""
    repo_id: str = "local/hlrp_demos"
    """Name of the dataset."""
    tasks: list[str] = field(
        default_factory=lambda: [
            "button-press-topdown-v3",
            "drawer-close-v3",
            "window-open-v3",
            "door-open-v3",
        ]
    )
    """Meta-World tasks, or LeRobot's difficulty groups (easy, medium, hard, very_hard)."""
    episodes_per_task: int = 30
    """Successful episodes of each task."""
    image_size: int = 64
    """Height and width of the images, in pixels."""
    camera_name: str = "corner2"
    """Meta-World camera."""
    shadows: bool = False
    """Render shadows, reflections and smoothed edges, as LeRobot's own environment does; slow on a CPU."""
    nuisance: Literal["none", "distractor", "camera"] = "none"
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


def collect_demos(cfg: CollectDemosConfig) -> None:
    """Record, then print what was kept."""
    from hlrp.sim.demonstrations import DemonstrationConfig, record_demonstrations
    from hlrp.sim.scripted_episodes import RolloutOptions

    start = time.perf_counter()
    counts = record_demonstrations(
        DemonstrationConfig(
            tasks=tuple(cfg.tasks),
            episodes_per_task=cfg.episodes_per_task,
            seed=cfg.seed,
            video=cfg.video,
            rollout=RolloutOptions(
                image_size=cfg.image_size,
                camera_name=cfg.camera_name,
                shadows=cfg.shadows,
                nuisance=cfg.nuisance,
                action_noise=cfg.action_noise,
                tail_steps=cfg.tail_steps,
                max_steps=cfg.max_steps,
            ),
        ),
        cfg.output_dir,
        repo_id=cfg.repo_id,
        num_workers=cfg.num_workers,
    )
    elapsed_s = time.perf_counter() - start

    print(f"{'task':<32}{'kept':>6}{'dropped':>9}{'mean length':>13}")
    for count in counts:
        print(f"{count.task:<32}{count.kept:>6}{count.dropped:>9}{count.frames / count.kept:>13.1f}")
    frames = sum(count.frames for count in counts)
    print(f"{frames} frames in {elapsed_s:.1f} s ({frames / elapsed_s:.0f} frames/s): {cfg.output_dir}")


def main() -> None:
    """Entry point of `hlrp-collect-demos`."""
    run_cli(lambda: collect_demos(draccus.parse(CollectDemosConfig)))


if __name__ == "__main__":
    main()
