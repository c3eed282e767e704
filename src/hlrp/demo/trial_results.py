"""Gather what the page of a trial shows: the episodes, and the latent actions in them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hlrp.data.video_folder import open_video_source
from hlrp.demo.evaluation_files import rollout_videos, success
from hlrp.demo.pipeline import start_over
from hlrp.demo.trial_config import TrialConfig
from hlrp.foundation.checkpoint import METRICS_FILE
from hlrp.laq.checkpoint import QUALITY_FILE, LoadedLAQ
from hlrp.measure.held_out import quality_clips
from hlrp.measure.laq_quality import measure_quality
from hlrp.report.pages.latent_gallery import latent_gallery
from hlrp.report.pages.trial_page import Trial
from hlrp.report.plots.rollout_plots import ImaginedMoment, film_strip_figure, imagination_figure
from hlrp.report.videos import read_video
from hlrp.storage.artefacts import read_json


def gather_trial(config: TrialConfig, laq: LoadedLAQ, start: float) -> Trial:
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
