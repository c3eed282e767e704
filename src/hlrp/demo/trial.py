"""Try a trained policy: a few episodes in simulation, and a page that shows them and the latent actions in them."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hlrp.data.video_folder import open_video_source
from hlrp.demo.pipeline import evaluation_command, start_over
from hlrp.demo.pretraining import PRETRAINED_TASKS
from hlrp.demo.results import rollout_videos, success
from hlrp.demo.stages import Progress, Stage, run_stages
from hlrp.foundation.checkpoint import METRICS_FILE
from hlrp.laq.checkpoint import QUALITY_FILE, LoadedLAQ, load_laq
from hlrp.measure.held_out import quality_clips
from hlrp.measure.laq_quality import measure_quality
from hlrp.report.pages.latent_gallery import latent_gallery
from hlrp.report.pages.trial_page import Trial, render_trial
from hlrp.report.plots.rollout_plots import ImaginedMoment, film_strip_figure, imagination_figure
from hlrp.report.videos import read_video
from hlrp.runtime.checks import require_numbers, require_seed
from hlrp.sim.config import MAX_EPISODE_STEPS
from hlrp.sim.gl_backend import choose_gl_backend
from hlrp.storage.artefacts import read_json
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
        page = render_trial(_trial(config, laq, start))
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
    )


def _trial(config: TrialConfig, laq: LoadedLAQ, start: float) -> Trial:
    """Gather what the page shows; `start` is the time at which the trial began, by `time.perf_counter`."""
    videos = rollout_videos(config.evaluation)
    quality, plots = _latents(laq, _films(config))
    plots["films"] = film_strip_figure({task: read_video(path)[0] for task, path in videos.items()})
    moments = imagined_moments(config, laq)
    if moments:
        plots["imagined"] = imagination_figure(moments)
    return Trial(
        success=success(config.evaluation / "eval_info.json"),
        laq=read_json(config.laq / QUALITY_FILE),
        foundation=read_json(config.models / "foundation" / METRICS_FILE)["quality"],
        rollouts=quality,
        plots=plots,
        videos=videos,
        span_s=laq.model.spec.frame_offset_s * laq.model.spec.num_transitions,
        seconds=time.perf_counter() - start,
        first_seed=config.seed,
    )


def _films(config: TrialConfig) -> Path:
    """Copy the videos of all episodes, without those of imagined frames, to a folder of their own."""
    folder = config.output_dir / "rollouts"
    start_over(folder)
    folder.mkdir()
    for task in _tasks(config):
        for number, path in enumerate(task["metrics"]["video_paths"]):
            shutil.copyfile(path, folder / f"{task['task_group']}_{number}.mp4")
    return folder


def _tasks(config: TrialConfig) -> list[dict[str, Any]]:
    return read_json(config.evaluation / "eval_info.json")["per_task"]


def _latents(laq: LoadedLAQ, films: Path) -> tuple[dict[str, object], dict[str, bytes]]:
    """Measure and draw the latent actions in films, as `hlrp-inspect-latents --video_dir` does, on all episodes."""
    source = open_video_source(films, image_size=laq.model.config.image_size, cache_gib=1.0, find_scene_cuts=False)
    episodes = torch.arange(len(source.bounds))
    clips = quality_clips(source, laq.model.spec, episodes, episodes, seed=0)
    quality = measure_quality(laq.model, clips)
    return quality.to_dict(), latent_gallery(laq.model, clips, quality)


def imagined_moments(config: TrialConfig, laq: LoadedLAQ) -> list[ImaginedMoment]:
    """For the first episode of every task, the moment with the most motion; none of an episode that is too short."""
    n_action_steps = read_json(config.policy / "config.json")["n_action_steps"]
    moments = []
    for task in _tasks(config):
        rollout, fps = read_video(task["metrics"]["video_paths"][0])
        frames = read_video(task["metrics"]["predicted_video_paths"][0])[0]
        ahead = laq.model.spec.offset_frames(float(fps)) * laq.model.spec.num_transitions // n_action_steps
        # A picture holds frame t above the imagined frame, and the episodes of a batch side by side. It is shown for
        # as many frames as there are actions between two predictions.
        height, width = laq.model.config.image_size
        pairs = np.stack(frames)[: len(rollout) : n_action_steps, :, :width]
        if len(pairs) > ahead:
            now, imagined = pairs[:-ahead, :height], pairs[:-ahead, height:]
            then = pairs[ahead:, :height]
            most = np.abs(then.astype(float) - now).mean((1, 2, 3)).argmax()
            moments.append(ImaginedMoment(task["task_group"], now[most], imagined[most], then[most]))
    return moments
