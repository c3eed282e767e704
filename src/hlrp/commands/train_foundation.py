"""`hlrp-train-foundation`: stage 2, train a vision-language model (VLM) to predict latent action codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from hlrp.commands.running import choose_device
from hlrp.commands.training import training_run
from hlrp.data.labelled_frames import OrderedBatches, ShuffledBatches
from hlrp.data.observation_sources import (
    HeldOut,
    ObservationSource,
    open_for_online_labels,
    open_labelled,
    require_one_teacher,
    require_unseen_episodes,
)
from hlrp.data.recordings import describe_observations
from hlrp.data.run_facts import observation_facts
from hlrp.foundation.backends import FoundationBackend, build_backend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.online_labels import OnlineLabels
from hlrp.foundation.predictions import CodePredictions, device_of, predict_codes
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.laq.checkpoint import load_laq
from hlrp.measure.code_accuracy import validation_log
from hlrp.measure.foundation_quality import measure_held_out, validation_metrics
from hlrp.options.train_foundation import TrainFoundationConfig
from hlrp.report.cards.foundation_card import NO_HELD_OUT
from hlrp.report.foundation_table import foundation_table
from hlrp.report.pages.foundation_page import foundation_report
from hlrp.report.saving import save_foundation
from hlrp.runtime.progress import progress
from hlrp.runtime.tables import with_noun
from hlrp.training.run import TrainingRun
from hlrp.training.step_data import StepData

logger = logging.getLogger(__name__)

_VALIDATION_FRAMES = 1024
"""Largest number of held-out frames to validate on, summed over all datasets."""


def train_foundation(config: TrainFoundationConfig) -> dict[str, float]:
    """Train the model, validate it on held-out episodes and save the checkpoint; with several processes, rank 0 saves.

    Returns:
        Validation metrics by name; empty if no episode is held out.

    Raises:
        FileExistsError: If `config.output_dir` exists, or an unfinished run is there and `config.resume` is false.
        FileNotFoundError: If a dataset or its labels do not exist.
        ValueError: If labels of different LAQs are mixed, or a resumed run has other settings or data.
    """
    with training_run(config, command="hlrp-train-foundation") as run:
        return _train(config, run)


def _train(config: TrainFoundationConfig, run: TrainingRun) -> dict[str, float]:
    device = choose_device(config.device)
    config.trainer.require_device(device)
    sources, online = _open(config)
    run.require_same_data(observation_facts(sources, [one.dataset_root for one in config.datasets]))
    torch.manual_seed(config.seed)
    backend = build_backend(config.backend, sources[0].spec)
    size = _size(backend)  # of the model that is trained: adapters are merged at the end
    _log_sizes(size, sources)
    batches, held_out = _batches(config, sources)
    module = VLABackendModule(backend, config.optimizer, metrics=validation_metrics(sources), online=online)
    validation = _fit(config, run, module, StepData(batches, held_out, num_workers=config.num_workers), device)
    if not run.is_main:
        return validation
    if not (config.backend.freeze_backbone or config.backend.lora.is_on):
        # Trained weights are float32, and a checkpoint of another type would round them when it is loaded.
        backend.config = replace(backend.config, dtype="float32")
    backend.merge_adapters()
    backend.to(device)
    metrics, report = None, {}
    if held_out is not None:
        labelled = _read_labelled(module, held_out)
        metrics = measure_held_out(backend, _predictions(config, module, labelled), labelled, sources)
        validation |= _without_prefix(validation_log(metrics.quality))
        report = foundation_report(backend, metrics, labelled, _about(config, backend, sources, batches, size))
    run.finish(
        lambda curves: save_foundation(
            backend,
            config.output_dir,
            laq_fingerprint=sources[0].laq_fingerprint,
            extra={**_extra(config, sources, batches), "validation": validation},
            quality=None if metrics is None else metrics.quality,
            language=None if metrics is None else metrics.language,
            beside={**report, **curves},
        )
    )
    print(NO_HELD_OUT if metrics is None else foundation_table(metrics.quality, metrics.language))
    return validation


def _fit(
    config: TrainFoundationConfig, run: TrainingRun, module: VLABackendModule, data: StepData, device: str
) -> dict[str, float]:
    """Train the model; returns the metrics of the last validation by name, none if no frame is held out."""
    logged = run.fit(
        module,
        data,
        steps=config.steps,
        save_every=config.save_every,
        validate_every=None if data.val is None else min(config.validate_every or config.steps, config.steps),
        device=device,
        trainer=config.trainer,
    )
    return _without_prefix({name: value for name, value in logged.items() if name.startswith("val/")})


def _without_prefix(metrics: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("val/"): value for name, value in metrics.items()}


def _open(config: TrainFoundationConfig) -> tuple[list[ObservationSource], OnlineLabels | None]:
    """Open all datasets; with `laq_path`, also load the LAQ that labels them during training."""
    held_out = HeldOut(share=config.held_out, frames=_VALIDATION_FRAMES // len(config.datasets), seed=config.seed)
    size, cache = config.backend.image_size, config.cache_gib / len(config.datasets)
    laq = None if config.laq_path is None else load_laq(config.laq_path)
    if laq is None:
        sources = [
            open_labelled(one, held_out, image_size=size, cache_gib=cache, with_vectors=config.backend.needs_vectors)
            for one in config.datasets
        ]
    else:
        sources = [
            open_for_online_labels(one, laq, held_out, image_size=size, cache_gib=cache) for one in config.datasets
        ]
    require_one_teacher(sources)
    require_unseen_episodes(sources)
    return sources, None if laq is None else OnlineLabels(laq.model)


def _batches(
    config: TrainFoundationConfig, sources: Sequence[ObservationSource]
) -> tuple[ShuffledBatches, OrderedBatches | None]:
    """Training batches, and batches of all held-out frames in order; None if no frame is held out."""
    train = ShuffledBatches(
        [source.train for source in sources],
        batch_size=config.batch_size,
        num_batches=config.steps,
        seed=config.seed,
    )
    held_out = OrderedBatches([source.held_out for source in sources], batch_size=config.batch_size)
    return train, held_out if len(held_out) else None


def _read_labelled(module: VLABackendModule, held_out: OrderedBatches) -> list[FoundationBatch]:
    """All held-out frames, with the codes that the LAQ gives them if labels are made during training."""
    numbers = progress(range(len(held_out)), "reading held-out frames")
    return [module.labelled(held_out[number].to(device_of(module.backend))) for number in numbers]


def _predictions(
    config: TrainFoundationConfig, module: VLABackendModule, batches: Sequence[FoundationBatch]
) -> CodePredictions:
    """Predictions of the weights that are saved: those of the last validation, or new ones if its weights differed.

    Under fsdp a copy was validated (`module.predictions` is None), merging LoRA adapters rounds the weights, and mixed
    precision rounds the activations.
    """
    predictions = module.predictions
    if predictions is None or config.backend.lora.is_on or config.trainer.precision != "32-true":
        return predict_codes(module.backend, progress(batches, "measuring the checkpoint"))
    return predictions


def _extra(
    config: TrainFoundationConfig, sources: Sequence[ObservationSource], batches: ShuffledBatches
) -> dict[str, object]:
    """Return what the checkpoint records about its training, as JSON values."""
    return {
        "datasets": list(dict.fromkeys(source.name for source in sources)),
        "sources": [
            describe_observations(source, share=share) for source, share in zip(sources, batches.shares, strict=True)
        ],
        "episodes": [one.episodes for one in config.datasets],
        "cameras": sources[0].cameras,
        "labels": "precomputed" if config.laq_path is None else "online",
        "steps": config.steps,
        "batch_size": batches.batch_size,
        "seed": config.seed,
        "license": config.license,
    }


def _about(
    config: TrainFoundationConfig,
    backend: FoundationBackend,
    sources: Sequence[ObservationSource],
    batches: ShuffledBatches,
    size: str,
) -> dict[str, str]:
    """Return what was measured on what, as rows of the report's last table."""
    spec, name = backend.spec, config.backend.model_name or f"embedded {config.backend.embedded_size}"
    held_out = sum(len(source.held_out_episodes) for source in sources)
    chosen = sum(len(source.chosen) for source in sources)
    return {
        "model": f"{name}, {backend.backend_type}, {size}",
        "latents": f"{spec.num_codes} codes of {spec.codebook_size}, LAQ {sources[0].laq_fingerprint}",
        "datasets": ", ".join(dict.fromkeys(source.name for source in sources)),
        "training": f"{config.steps} steps of {batches.batch_size} frames, seed {config.seed}",
        "held out": f"{held_out} of {with_noun(chosen, 'episode')}, seed {config.seed}; not from the LAQ that labelled "
        "them",
    }


def _log_sizes(size: str, sources: Sequence[ObservationSource]) -> None:
    trained_on, held_out = (
        sum(len(pool.index) for pool in pools)
        for pools in ([source.train for source in sources], [source.held_out for source in sources])
    )
    logger.info(f"VLA of {size}, on {trained_on} frames; {held_out} held out")


def _size(backend: FoundationBackend) -> str:
    """Text of the numbers of all and of the trained parameters, such as "4.2 M parameters, 1.3 M trained"."""
    counts = [[p.numel() for p in backend.parameters() if p.requires_grad or not only] for only in (False, True)]
    total, trained = (f"{sum(count) / 1e6:.3g} M" for count in counts)
    return f"{total} parameters, {trained} trained"
