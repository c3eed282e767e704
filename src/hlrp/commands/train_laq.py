"""`hlrp-train-laq`: stage 1, learn latent actions from video alone."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from hlrp.cli.common import choose_device
from hlrp.cli.train_laq import TrainLAQConfig
from hlrp.data.clips import ClipBatches
from hlrp.data.evaluation import evaluate_laq
from hlrp.data.training_sources import open_training_sources
from hlrp.laq.checkpoint import save_laq
from hlrp.laq.frozen_targets import feature_dim, frozen_targets
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.quality import LAQQuality
from hlrp.laq.task import LAQTask
from hlrp.report.latent_table import quality_table
from hlrp.training import StepData, TrainingRun

logger = logging.getLogger(__name__)


def train_laq(config: TrainLAQConfig) -> LAQQuality | None:
    """Train, measure on held-out episodes, save; with several processes, the first alone measures and saves."""
    run = TrainingRun(config.output_dir, resume=config.resume)
    device = choose_device(config.device)
    size = config.size()
    frozen = frozen_targets(
        config.targets, grid=size.grid, feature_model=config.feature_model, flow_weights=config.flow_weights
    )
    sources = open_training_sources(
        config.source_configs(),
        size.spec,
        image_size=size.image_size,
        cache_gib=config.cache_gib,
        held_out=config.held_out,
        labelled=config.labelled_share(),
        seed=config.seed,
    )
    batches = ClipBatches(
        sources,
        size.spec,
        batch_size=config.batch_size,
        num_batches=config.steps,
        seed=config.seed,
        augmentation=config.augmentation,
        idle=config.idle_clips(),
    )
    first = sources[0].source
    laq_config = replace(
        size,
        num_cameras=first.num_cameras,
        targets=tuple(config.targets),
        feature_dim=feature_dim(frozen),
        action_dim=batches.action_size,
    )

    torch.manual_seed(config.seed)
    model = LatentActionQuantizer(laq_config)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    for part in sources:
        logger.info(
            f"LAQ of {parameters:.1f} M parameters on {len(part.episodes)} episodes of {part.source.name}, "
            f"{len(part.held_out)} held out, {len(part.labelled)} with actions; offset "
            f"{laq_config.spec.offset_frames(part.source.fps)} frames"
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
    quality = evaluate_laq(model, first, sources[0].episodes, sources[0].held_out, seed=config.seed)
    extra = {
        "sources": [
            {
                "name": part.source.name,
                "held_out_episodes": part.held_out.tolist(),
                "labelled_episodes": part.labelled.tolist(),
            }
            for part in sources
        ],
        "action_statistics": None if batches.action_statistics is None else batches.action_statistics.to_dict(),
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
    }
    save_laq(model, config.output_dir, cameras=first.cameras, quality=quality, extra=extra)
    run.finish()
    print(quality_table(quality))
    return quality
