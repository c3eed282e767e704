"""The models of the folder `pretrained/`: how they are trained, and which of their files are kept."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from hlrp.demo.config import DemoConfig
from hlrp.sim.config import DEFAULT_TASKS

PRETRAINED_TASKS = [*DEFAULT_TASKS, "window-close-v3", "plate-slide-side-v3"]


@dataclass
class PretrainingConfig(DemoConfig):
    """Train the models that `pretrained/` holds: the demo on six tasks, with a smaller LAQ and more steps."""

    output_dir: Path = Path("outputs/pretrained")
    tasks: list[str] = field(
        default_factory=lambda: [
            "button-press-topdown-v3",
            "drawer-close-v3",
            "window-open-v3",
            "window-close-v3",
            "door-open-v3",
            "plate-slide-side-v3",
        ]
    )
    laq_preset: str = "tiny"
    policy_steps: int = 1500

    @property
    def dataset(self) -> Path:
        """Folder of the recorded demonstrations; the model cards name it."""
        return self.output_dir / "metaworld_six_tasks"
