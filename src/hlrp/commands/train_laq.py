"""`hlrp-train-laq`: stage 1, train a latent action quantizer (LAQ) on video."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import torch

from hlrp.commands.running import choose_device
from hlrp.commands.training import training_run
from hlrp.data.clips import ClipBatches
from hlrp.data.episode_split import TrainingSource
from hlrp.data.recordings import describe_source
from hlrp.data.run_facts import clip_facts
from hlrp.data.source_config import ClipAugmentation
from hlrp.data.training_sources import open_training_sources
from hlrp.laq.batch import ClipBatch
from hlrp.laq.config import LAQConfig
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.code_fit import CodeFit
from hlrp.laq.objective.frozen_targets import feature_dim, frozen_targets
from hlrp.laq.objective.task import LAQTask
from hlrp.laq.quantizers import quantizer_class
from hlrp.laq.quantizers.kmeans import WhitenedKMeans
from hlrp.measure.across_sources import SourcePair, across_sources
from hlrp.measure.held_out import evaluate_laq, quality_clips
from hlrp.measure.laq_quality import LAQQuality
from hlrp.options.train_laq import TrainLAQConfig
from hlrp.report.cards.laq_card import NO_HELD_OUT
from hlrp.report.latent_table import quality_table, source_pairs_table
from hlrp.report.saving import save_laq
from hlrp.training.run import TrainingRun
from hlrp.training.step_data import StepData

logger = logging.getLogger(__name__)

_FIT_CLIPS, _FIT_BATCH = 2048, 64
"""Largest number of clips to which codes are fitted, and how many are encoded together."""


def train_laq(config: TrainLAQConfig) -> LAQQuality | None:
    """Train the LAQ, measure it on held-out episodes and save it; with several processes, rank 0 measures and saves.

    Returns:
        The quality card; None on other ranks than 0, and if no episode is held out.

    Raises:
        FileExistsError: If `config.output_dir` exists, or an unfinished run is there and `config.resume` is false.
        FileNotFoundError: If a dataset or a folder of videos does not exist.
        ValueError: If no episode has room for a clip, or a resumed run has other settings or data.
    """
    with training_run(config, command="hlrp-train-laq") as run:
        return _train(config, run)


def _train(config: TrainLAQConfig, run: TrainingRun) -> LAQQuality | None:
    device = choose_device(config.device)
    config.trainer.require_device(device)
    size = config.size()
    sources = _open(config, size)
    run.require_same_data(clip_facts(sources, [one.video_dir or one.dataset_root for one in config.source_configs()]))
    batches = ClipBatches(
        sources,
        size.spec,
        batch_size=config.batch_size,
        num_batches=config.steps,
        seed=config.seed,
        augmentation=config.augmentation,
        labelled_clips=config.labelled_clips,
        idle=config.idle_clips(),
        codes_fixed_at=_code_fit_step(config),
    )
    task = _task(config, size, sources, batches)
    _log_sizes(task.model, sources)
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
    model = task.model.to(device)
    quality = _measure(model, sources, seed=config.seed)
    pairs = _across_sources(model, sources, seed=config.seed)
    extra = {**_extra(config, sources, batches), "across_sources": [asdict(pair) for pair in pairs]}
    cameras = sources[0].source.cameras
    run.finish(
        lambda curves: save_laq(model, config.output_dir, cameras=cameras, quality=quality, extra=extra, beside=curves)
    )
    print(quality_table(quality) if quality is not None else NO_HELD_OUT)
    if pairs:
        print(f"\n{source_pairs_table(pairs)}")
    return quality


def _open(config: TrainLAQConfig, size: LAQConfig) -> list[TrainingSource]:
    return open_training_sources(
        config.source_configs(),
        size.spec,
        image_size=size.image_size,
        cache_gib=config.cache_gib,
        held_out=config.held_out,
        labelled=config.labelled_share(),
        seed=config.seed,
    )


def _task(config: TrainLAQConfig, size: LAQConfig, sources: Sequence[TrainingSource], batches: ClipBatches) -> LAQTask:
    """Build the model for the cameras of the sources, and its training task.

    Raises:
        ValueError: If codes shall be fitted to actions, and no training episode has any.
    """
    if config.fit_codes_to == "actions" and not batches.action_size:
        raise ValueError(
            "fit_codes_to=actions needs training episodes with known actions, and none is labelled; raise "
            "labelled_fraction, name labelled_episodes, or fit the codes to the video"
        )
    # The networks that make frozen targets also set the decoder's output sizes, so they are loaded before the model.
    frozen = frozen_targets(
        config.targets, grid=size.grid, feature_model=config.feature_model, flow_weights=config.flow_weights
    )
    laq_config = replace(
        size,
        num_cameras=sources[0].source.num_cameras,
        targets=tuple(config.targets),
        feature_dim=feature_dim(frozen),
        action_dim=batches.action_size,
    )
    torch.manual_seed(config.seed)  # only now: loading the targets' networks may draw random numbers too
    return LAQTask(LatentActionQuantizer(laq_config), config.training(), frozen, _code_fit(config, size, sources))


def _code_fit_step(config: TrainLAQConfig) -> int | None:
    """Step before which codes are fitted; None for a quantizer that learns its codes at every step."""
    return config.code_fit_step() if issubclass(quantizer_class(config.quantizer), WhitenedKMeans) else None


def _code_fit(config: TrainLAQConfig, size: LAQConfig, sources: Sequence[TrainingSource]) -> CodeFit | None:
    """When and on which clips codes are fitted: sampled like those of the training, neither reversed nor stretched.

    None for a quantizer that learns its codes at every step.
    """
    step = _code_fit_step(config)
    if step is None:
        return None
    to_actions = config.fit_codes_to == "actions"

    def clips() -> Iterator[ClipBatch]:
        batches = ClipBatches(
            sources,
            size.spec,
            batch_size=_FIT_BATCH,
            num_batches=_FIT_CLIPS // _FIT_BATCH,
            seed=config.seed,
            augmentation=ClipAugmentation(reverse_probability=0),
            labelled_clips=_FIT_BATCH // 2 if to_actions else 0,
            idle=config.idle_clips(),
        )
        return (batches[number] for number in range(min(len(batches), math.ceil(batches.num_clips / _FIT_BATCH))))

    return CodeFit(step, clips, to_actions=to_actions)


def _measure(model: LatentActionQuantizer, sources: Sequence[TrainingSource], *, seed: int) -> LAQQuality | None:
    """Measure the first source with held-out episodes; None if no source has any."""
    # Metrics of different sources cannot be averaged, since their actions and their motion differ.
    measured = next((part for part in sources if len(part.held_out)), None)
    if measured is None:
        return None
    return evaluate_laq(model, measured.source, measured.episodes, measured.held_out, seed=seed)


def _across_sources(model: LatentActionQuantizer, sources: Sequence[TrainingSource], *, seed: int) -> list[SourcePair]:
    """Measure whether codes mean the same on all sources; empty with fewer than two sources with held-out episodes."""
    clips = {
        f"{number}: {part.source.name}": quality_clips(part.source, model.spec, part.episodes, part.held_out, seed=seed)
        for number, part in enumerate(sources, start=1)
        if len(part.held_out)
    }
    return across_sources(model, clips) if len(clips) > 1 else []


def _extra(config: TrainLAQConfig, sources: Sequence[TrainingSource], batches: ClipBatches) -> dict[str, object]:
    """Return what the checkpoint records about its training, as JSON values."""
    return {
        "sources": [describe_source(part, share=share) for part, share in zip(sources, batches.shares, strict=True)],
        "action_statistics": None if batches.action_statistics is None else batches.action_statistics.to_dict(),
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "license": config.license,
    }


def _log_sizes(model: LatentActionQuantizer, sources: Sequence[TrainingSource]) -> None:
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    for part in sources:
        logger.info(
            f"LAQ of {parameters:.1f} M parameters on {len(part.episodes)} episodes of {part.source.name}, "
            f"{len(part.held_out)} held out, {len(part.labelled)} whose actions it learns from"
        )
