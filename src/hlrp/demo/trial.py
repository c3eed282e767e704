"""Try a trained policy: a few episodes in simulation, and a page that shows them and the latent actions in them."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from hlrp.demo.pipeline import evaluation_command, evaluation_flags, start_over
from hlrp.demo.stages import Progress, Stage, run_stages
from hlrp.demo.trial_config import TrialConfig
from hlrp.laq.checkpoint import load_laq
from hlrp.sim.gl_backend import choose_gl_backend
from hlrp.storage.files import new_file, sole_writer


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
            *evaluation_flags(
                config.policy,
                config.evaluation,
                tasks=config.tasks,
                episodes_per_task=config.episodes_per_task,
                episode_length=config.episode_length,
                seed=config.seed,
            ),
            "--policy.device=cpu",
            "--policy.save_predicted_video=true",
            f"--policy.laq_checkpoint_path={config.laq}",
        ),
        resume=partial(start_over, config.evaluation),
        imports_meanwhile="hlrp.demo.trial_results",
    )
