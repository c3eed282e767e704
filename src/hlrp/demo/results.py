"""Collect the results of all stages into `report.json`, `report.html` and a video of rollouts."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hlrp.data.clip_starts import clip_starts
from hlrp.data.dataset import open_dataset
from hlrp.data.sources import lerobot_source
from hlrp.demo.config import DemoConfig
from hlrp.demo.evaluation_files import rollout_videos, success
from hlrp.demo.pipeline import OUR_POLICY, TRAINING_STAGES
from hlrp.demo.stages import Progress
from hlrp.foundation.checkpoint import METRICS_FILE
from hlrp.laq.checkpoint import QUALITY_FILE, load_laq
from hlrp.measure.success_rate import task_successes
from hlrp.report.curves import Series, read_lerobot_log, read_lightning_curves
from hlrp.report.pages.run_page import render_report
from hlrp.report.plots.latent_plots import first_camera
from hlrp.report.plots.reconstruction_plot import reconstruction_figure
from hlrp.report.plots.run_plots import (
    code_usage_figure,
    latent_quality_figure,
    loss_curves_figure,
    stage_time_figure,
    success_figure,
)
from hlrp.report.terminal import summary
from hlrp.report.videos import montage
from hlrp.storage.artefacts import CURVES_FILE, read_json
from hlrp.storage.files import new_file, write_json

_VERSIONS = ("lerobot_policy_felix_bundle", "lerobot", "torch", "transformers", "metaworld", "mujoco")
"""Packages whose versions are in the report."""
_CLIPS_SHOWN = 6
"""Number of held-out clips in the plot of reconstructions."""


def write_report(config: DemoConfig, progress: Progress, logs: Path) -> tuple[str, Path]:
    """Write the report.

    Args:
        config: Options of the demo.
        progress: Record of the finished stages.
        logs: Folder of the stages' log files.

    Returns:
        Summary for a terminal, and path of `report.html`.
    """
    report = gather(config, progress)
    videos = rollout_videos(config.evaluation(OUR_POLICY))
    montage(videos, config.output_dir / "rollouts.mp4")
    html = render_report(report, draw_plots(config, report, logs), videos)
    path = config.output_dir / "report.html"
    with new_file(path) as scratch:
        scratch.write_text(html, encoding="utf-8")
    write_json(config.output_dir / "report.json", report)
    return summary(report), path


def gather(config: DemoConfig, progress: Progress) -> dict[str, Any]:
    """Return all metrics of the demo as JSON values; the keys are those of `hlrp.report.pages.contents`."""
    stages = {name: record["seconds"] for name, record in progress.stages.items()}
    # Stages before the policy count as training of our policy: without them, the baseline would be at a disadvantage.
    policies = [OUR_POLICY, *(["act"] if config.baseline == "act" else [])]
    training = sum(stages[name] for name in TRAINING_STAGES)
    return {
        "seconds_total": sum(stages.values()),
        "stages": stages,
        "peak_memory_gib": max(record["peak_gib"] for record in progress.stages.values()),
        "laq": read_json(config.laq / QUALITY_FILE),
        "foundation": read_json(config.foundation / METRICS_FILE)["quality"],
        "policies": {
            policy: {
                **success(config.evaluation(policy) / "eval_info.json"),
                "train_seconds": training if policy == OUR_POLICY else stages[policy],
            }
            for policy in policies
        },
        "versions": {name: version(name) for name in _VERSIONS},
        "seed": config.seed,
        "commands": {name: shlex.join(record["command"]) for name, record in progress.stages.items()},
    }


def draw_plots(config: DemoConfig, report: dict[str, Any], logs: Path) -> dict[str, bytes]:
    """Draw the plots of the report; returns PNG files by name."""
    policies = report["policies"]
    curves: dict[str, Series] = {
        "LAQ: reconstruction": read_lightning_curves(config.laq / CURVES_FILE)["train/reconstruction"],
        "foundation: cross-entropy": read_lightning_curves(config.foundation / CURVES_FILE)["train/loss"],
        **{f"{policy}: loss": read_lerobot_log(logs / f"{policy}.log")["loss"] for policy in policies},
    }
    return {
        "success": success_figure(task_successes(policies)),
        "latent_quality": latent_quality_figure(report["laq"]),
        "reconstruction": reconstructions(config),
        "code_usage": code_usage_figure(report["laq"]["code_usage"], report["laq"]["perplexity"]),
        "loss_curves": loss_curves_figure(curves),
        "stage_time": stage_time_figure(report["stages"]),
    }


def reconstructions(config: DemoConfig) -> bytes:
    """Draw held-out clips beside the LAQ's predictions from frame t and the codes; returns a PNG file."""
    laq = load_laq(config.laq)
    spec = laq.model.spec
    dataset = open_dataset("local/hlrp_demos", config.dataset)
    source = lerobot_source(dataset, cameras=laq.cameras, image_size=laq.model.config.image_size, cache_gib=0)
    deltas = torch.tensor(spec.frame_deltas(source.fps))
    starts = clip_starts(source, deltas.tolist(), torch.tensor(laq.extra["sources"][0]["held_out_episodes"]))
    # Midpoints of equal parts: evenly spread, without the first and the last clip.
    starts = starts[torch.linspace(0, len(starts) - 1, 2 * _CLIPS_SHOWN + 1).long()[1::2]]
    clips = source.frames.read(starts[:, None] + deltas)
    with torch.no_grad():
        frames = laq.model.to_pixels(clips)
        result = laq.model(frames)
    before, after, predicted = (
        first_camera(pictures) for pictures in (frames[:, 0], frames[:, 1], result.frames[:, 0])
    )
    return reconstruction_figure(before, after, predicted, result.codes[:, 0])
