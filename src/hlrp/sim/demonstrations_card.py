"""Dataset card of recorded demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lerobot.utils.constants import ACTION, OBS_STATE

from hlrp.report.cards.dataset_card import DatasetContent, dataset_card
from hlrp.report.cards.parts import markdown_table, markdown_text
from hlrp.sim.config import DemonstrationConfig


@dataclass(frozen=True)
class TaskCount:
    """Numbers of kept and dropped episodes of one task, and of the kept frames."""

    task: str
    kept: int
    dropped: int
    """Number of episodes in which the expert did not succeed within `max_steps`."""
    frames: int

    @property
    def attempted(self) -> int:
        """Number of simulated episodes."""
        return self.kept + self.dropped


def demonstrations_card(content: DatasetContent, config: DemonstrationConfig, counts: Sequence[TaskCount]) -> str:
    """Card of a dataset from `hlrp-collect-demos`.

    Args:
        content: The recorded dataset.
        config: What was recorded.
        counts: Episodes of every task, in the order of the dataset.
    """
    rollout = config.rollout
    rows = [[markdown_text(count.task), str(count.kept), str(count.frames), str(count.dropped)] for count in counts]
    moving = "" if rollout.nuisance == "none" else f" A nuisance moves in the images: {rollout.nuisance}."
    return dataset_card(
        content,
        title="Simulated demonstrations",
        summary=(
            "`hlrp-collect-demos` recorded the scripted experts of [Meta-World](https://metaworld.farama.org) in "
            f"simulation, seen by the camera {markdown_text(rollout.camera_name)}.{moving} Seed: {config.seed}."
        ),
        sources=markdown_table(["task", "episodes", "frames", "dropped, since the expert did not succeed"], rows),
        actions=(
            "All actions are those that were executed: the expert's, with Gaussian noise of the standard deviation "
            f"{rollout.action_noise:g} on the three dimensions that move the hand."
        ),
        tags=["metaworld", "simulation"],
        meanings={
            ACTION: "displacement of the hand in x, y and z and effort of the gripper, in [-1, 1]",
            OBS_STATE: "position of the hand in x, y and z, and opening of the gripper",
            "nuisance": "state of what moves in the images beside the robot",
        },
    )
