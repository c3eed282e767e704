"""Options of a trial of a policy: `make try`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hlrp.demo.config import PRETRAINED_TASKS
from hlrp.runtime.checks import require_numbers, require_seed
from hlrp.sim.config import MAX_EPISODE_STEPS


@dataclass
class TrialConfig:
    """Evaluate a trained policy on a few episodes, and write a page about them and the latent actions in them."""

    models: Path = Path("pretrained")
    """Folder with the folders `laq`, `foundation` and `policy`."""
    output_dir: Path = Path("outputs/try")
    """Folder of the page, the videos and the log; an earlier trial in it is replaced."""
    tasks: list[str] = field(default_factory=PRETRAINED_TASKS.copy)
    """Names of the Meta-World tasks."""
    episodes_per_task: int = 2
    """Number of episodes of each task."""
    episode_length: int = 200
    """Largest number of steps of an episode."""
    seed: int = 2000
    """Seed of the first episode. The card of the shipped policy counts episodes from seed 1000 on."""

    def __post_init__(self) -> None:
        require_numbers(self, "episodes_per_task", at_least=1)
        require_numbers(self, "episode_length", at_least=1, at_most=MAX_EPISODE_STEPS)
        require_seed(self.seed)
        if not self.tasks:
            raise ValueError("tasks must be at least one, got none")

    @property
    def laq(self) -> Path:
        """Folder of the LAQ."""
        return self.models / "laq"

    @property
    def policy(self) -> Path:
        """Folder of the policy."""
        return self.models / "policy"

    @property
    def evaluation(self) -> Path:
        """Output folder of lerobot-eval."""
        return self.output_dir / "eval"
