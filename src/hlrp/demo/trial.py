"""Try a trained policy: a few episodes in simulation, and a page that shows them and the latent actions in them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hlrp.demo.config import PRETRAINED_TASKS
from hlrp.demo.pipeline import evaluation_command, start_over
from hlrp.demo.stages import Progress, Stage, run_stages
from hlrp.laq.checkpoint import load_laq
from hlrp.runtime.checks import require_numbers, require_seed
from hlrp.sim.config import MAX_EPISODE_STEPS
from hlrp.sim.gl_backend import choose_gl_backend
from hlrp.storage.files import new_file, sole_writer


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


def try_policy(config: TrialConfig) -> Path:
    """Evaluate the policy, write the page and return its path.

    Raises:
        FileNotFoundError: If a model is missing, or nothing on this machine can render without a display.
        FileExistsError: If another process is writing to `config.output_dir`.
        StageFailed: If lerobot-eval fails.
    """
    laq = load_laq(config.laq)  # first, so that a missing model is refused before the simulation
    choose_gl_backend()
    with sole_writer(config.output_dir):
        config.output_dir.mkdir(exist_ok=True)
        start = time.perf_counter()
        record = config.output_dir / "progress.json"
        record.unlink(missing_ok=True)
        run_stages([_evaluation(config)], Progress(record), config.output_dir / "logs")
        print("\nDraw what the latent actions in these episodes mean", flush=True)
        # Its libraries take a quarter of a minute to import, which the stage above does meanwhile.
        from hlrp.demo.trial_results import gather_trial
        from hlrp.report.pages.trial_page import render_trial

        page = render_trial(gather_trial(config, laq, start))
        path = config.output_dir / "report.html"
        with new_file(path) as scratch:
            scratch.write_text(page, encoding="utf-8")
    return path


def _evaluation(config: TrialConfig) -> Stage:
    return Stage(
        name="eval",
        title="Evaluate the policy with lerobot-eval",
        command=evaluation_command(
            config.policy,
            config.evaluation,
            "--policy.device=cpu",
            "--policy.save_predicted_video=true",
            f"--policy.laq_checkpoint_path={config.laq}",
            tasks=config.tasks,
            episodes_per_task=config.episodes_per_task,
            episode_length=config.episode_length,
            seed=config.seed,
        ),
        resume=partial(start_over, config.evaluation),
        imports_meanwhile="hlrp.demo.trial_results",
    )
