"""Options of `hlrp-demo`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from hlrp.laq.config import PRESETS
from hlrp.runtime.checks import require_numbers, require_one_of, require_seed
from hlrp.sim.config import DEFAULT_TASKS, MAX_EPISODE_STEPS

PRETRAINED_TASKS = [
    "button-press-topdown-v3",
    "drawer-close-v3",
    "window-open-v3",
    "window-close-v3",
    "door-open-v3",
    "plate-slide-side-v3",
]
"""Meta-World tasks of the models in the folder `pretrained/`."""

LOG_STEPS = 20
"""Steps between two points of the report's curves: shorter trainings would leave these empty."""


@dataclass
class DemoConfig:
    """Run the whole pipeline: record demonstrations, train LAQ, foundation model and policy, evaluate, report."""

    output_dir: Path = Path("outputs/demo")
    """Folder of all results and logs. A second call with the same folder continues where the first call stopped."""
    tasks: list[str] = field(default_factory=DEFAULT_TASKS.copy)
    """Names of the Meta-World tasks, each once."""
    episodes_per_task: int = 30
    """Number of demonstrations of each task."""
    eval_episodes_per_task: int = 10
    """Number of evaluation episodes of each task."""
    episode_length: int = 300
    """Largest number of steps of an evaluation episode; the scripted experts need fewer than 100."""
    image_size: int = 64
    """Height and width of the frames, in pixels."""
    laq_preset: str = "small"
    """Preset of the LAQ's size: debug, tiny, small, base or lapa."""
    laq_steps: int = 500
    """Optimizer steps of stage 1, the latent action quantizer (LAQ)."""
    foundation_steps: int = 1500
    """Optimizer steps of stage 2, the foundation model."""
    policy_steps: int = 700
    """Optimizer steps of stage 3, the policy."""
    batch_size: int = 64
    """Clips (stage 1) or frames (stages 2 and 3) per optimizer step."""
    baseline: str | None = None
    """With act: also train LeRobot's ACT on the same episodes, for as many seconds as all our training stages took
    together. Default: no baseline."""
    seed: int = 0
    """Seed of the demonstrations, and of the initial weights and random draws of every training stage."""

    def __post_init__(self) -> None:
        if self.baseline not in (None, "act"):
            raise ValueError(f"baseline must be 'act' or left out, got {self.baseline!r}")
        require_numbers(self, "episodes_per_task", "eval_episodes_per_task", "batch_size", at_least=1)
        require_numbers(self, "laq_steps", "foundation_steps", "policy_steps", at_least=LOG_STEPS)
        require_numbers(self, "episode_length", at_least=1, at_most=MAX_EPISODE_STEPS)
        require_one_of("laq_preset", self.laq_preset, PRESETS)
        # The LAQ's configuration refuses an image size that does not divide into patches: refuse it before recording.
        replace(PRESETS[self.laq_preset](), image_size=(self.image_size, self.image_size))
        require_seed(self.seed)
        if len(self.tasks) != len(set(self.tasks)) or not self.tasks:
            raise ValueError(f"tasks must be at least one, each once, got {self.tasks}")

    @property
    def dataset(self) -> Path:
        """Folder of the recorded demonstrations."""
        return self.output_dir / "dataset"

    @property
    def laq(self) -> Path:
        """Folder of the LAQ checkpoint."""
        return self.output_dir / "laq"

    @property
    def foundation(self) -> Path:
        """Folder of the foundation model's checkpoint."""
        return self.output_dir / "foundation"

    def training(self, policy: str) -> Path:
        """Output folder of lerobot-train for the policy type `policy`."""
        return self.output_dir / policy

    def evaluation(self, policy: str) -> Path:
        """Output folder of lerobot-eval for the policy type `policy`."""
        return self.output_dir / f"eval_{policy}"
