"""`hlrp-train-laq`: stage 1, train a latent action quantizer (LAQ) on video."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from hlrp.commands.running import choose_device, resume_command
from hlrp.data.clips import ClipBatches
from hlrp.data.recordings import describe_source
from hlrp.data.run_facts import clip_facts
from hlrp.data.training_sources import open_training_sources
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.frozen_targets import feature_dim, frozen_targets
from hlrp.laq.objective.task import LAQTask
from hlrp.measure.held_out import evaluate_laq
from hlrp.measure.laq_quality import LAQQuality
from hlrp.options.train_laq import TrainLAQConfig
from hlrp.report.cards.laq_card import NO_HELD_OUT
from hlrp.report.latent_table import quality_table
from hlrp.report.saving import save_laq
from hlrp.training.run import TrainingRun
from hlrp.training.settings import lasting_settings
from hlrp.training.step_data import StepData

logger = logging.getLogger(__name__)


def train_laq(config: TrainLAQConfig) -> LAQQuality | None:
    """Train the LAQ, measure it on held-out episodes and save it; with several processes, rank 0 measures and saves.

    Returns:
        The quality card; None on other ranks than 0, and if no episode is held out.

    Raises:
        FileExistsError: If `config.output_dir` exists, or an unfinished run is there and `config.resume` is false.
        FileNotFoundError: If a dataset or a folder of videos does not exist.
        ValueError: If no episode has room for a clip, or a resumed run has other settings or data.
    """
    with TrainingRun(
        config.output_dir,
        resume=config.resume,
        settings=lasting_settings(config),
        resume_command=resume_command("hlrp-train-laq"),
    ) as run:
        return _train(config, run)


def _train(config: TrainLAQConfig, run: TrainingRun) -> LAQQuality | None:
    device = choose_device(config.device)
    config.trainer.require_device(device)
    size = config.size()
    sources = open_training_sources(
        config.source_configs(),
        size.spec,
        image_size=size.image_size,
        cache_gib=config.cache_gib,
        held_out=config.held_out,
        labelled=config.labelled_share(),
        seed=config.seed,
    )
    run.require_same_data(clip_facts(sources, [one.video_dir or one.dataset_root for one in config.source_configs()]))
    batches = ClipBatches(
        sources,
        size.spec,
        batch_size=config.batch_size,
        num_batches=config.steps,
        seed=config.seed,
        augmentation=config.augmentation,
        idle=config.idle_clips(),
    )
    # The networks that make frozen targets also set the decoder's output sizes, so they are loaded before the model.
    first = sources[0].source
    frozen = frozen_targets(
        config.targets, grid=size.grid, feature_model=config.feature_model, flow_weights=config.flow_weights
    )
    laq_config = replace(
        size,
        num_cameras=first.num_cameras,
        targets=tuple(config.targets),
        feature_dim=feature_dim(frozen),
        action_dim=batches.action_size,
    )

    torch.manual_seed(config.seed)  # only now: loading the targets' networks may draw random numbers too
    model = LatentActionQuantizer(laq_config)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    for part in sources:
        logger.info(
            f"LAQ of {parameters:.1f} M parameters on {len(part.episodes)} episodes of {part.source.name}, "
            f"{len(part.held_out)} held out, {len(part.labelled)} with actions"
        )
    task = LAQTask(model, config.training(), frozen)
    run.fit(
        task,
        StepData(batches, None, num_workers=config.num_workers),
        steps=config.steps,
        save_every=config.save_every,
        device=device,
        trainer=config.trainer,
    )
    if not run.is_main:
        return None
    model.to(device)
    # Metrics of different sources cannot be averaged: the card describes the first source with held-out episodes.
    measured = next((part for part in sources if len(part.held_out)), None)
    quality = (
        None
        if measured is None
        else evaluate_laq(model, measured.source, measured.episodes, measured.held_out, seed=config.seed)
    )
    extra = {
        "sources": [describe_source(part, share=share) for part, share in zip(sources, batches.shares, strict=True)],
        "action_statistics": None if batches.action_statistics is None else batches.action_statistics.to_dict(),
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "license": config.license,
    }
    save_laq(model, config.output_dir, cameras=first.cameras, quality=quality, extra=extra)
    run.finish()
    print(quality_table(quality) if quality is not None else NO_HELD_OUT)
    return quality
