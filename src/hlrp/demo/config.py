"""Options of the demo."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from hlrp.laq.config import small
from hlrp.runtime.checks import require_numbers, require_seed
from hlrp.sim.config import DEFAULT_TASKS, MAX_EPISODE_STEPS


@dataclass
class DemoConfig:
    """From recorded episodes to an evaluated policy, in one command."""

    output_dir: Path = Path("outputs/demo")
    """Everything goes here; a second call continues where the first one stopped."""
    tasks: list[str] = field(default_factory=DEFAULT_TASKS.copy)
    """Meta-World tasks."""
    episodes_per_task: int = 30
    """Demonstrations of each task."""
    eval_episodes_per_task: int = 10
    """Evaluation episodes of each task."""
    episode_length: int = 300
    """Steps an evaluation episode may take; the experts need fewer than 100."""
    image_size: int = 64
    """Side of the frames, in pixels."""
    laq_steps: int = 500
    """Optimizer steps of stage 1, the LAQ."""
    foundation_steps: int = 1500
    """Optimizer steps of stage 2, the foundation model."""
    policy_steps: int = 700
    """Optimizer steps of stage 3, the policy."""
    batch_size: int = 64
    """Clips or frames of one optimizer step, in every stage."""
    baseline: str | None = None
    """act: also train LeRobot's ACT on the same episodes, for the seconds that all our training took."""
    seed: int = 0
    """Of the demonstrations, of every stage's weights and draws, and of the evaluation."""

    def __post_init__(self) -> None:
        if self.baseline not in (None, "act"):
            raise ValueError(f"baseline must be 'act' or left out, got {self.baseline!r}")
        require_numbers(
            self,
            "episodes_per_task",
            "eval_episodes_per_task",
            "laq_steps",
            "foundation_steps",
            "policy_steps",
            "batch_size",
            at_least=1,
        )
        require_numbers(self, "episode_length", at_least=1, at_most=MAX_EPISODE_STEPS)
        replace(small(), image_size=(self.image_size, self.image_size))  # says what the quantizer cannot divide
        require_seed(self.seed)
        if len(self.tasks) != len(set(self.tasks)) or not self.tasks:
            raise ValueError(f"tasks must be at least one, each once, got {self.tasks}")

    @property
    def dataset(self) -> Path:
        """The demonstrations."""
        return self.output_dir / "dataset"

    @property
    def laq(self) -> Path:
        """The LAQ checkpoint."""
        return self.output_dir / "laq"

    @property
    def foundation(self) -> Path:
        """The foundation checkpoint."""
        return self.output_dir / "foundation"

    def training(self, policy: str) -> Path:
        """lerobot-train's folder for a policy type."""
        return self.output_dir / policy

    def evaluation(self, policy: str) -> Path:
        """lerobot-eval's folder for a policy type."""
        return self.output_dir / f"eval_{policy}"
