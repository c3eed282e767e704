"""`hlrp-train-foundation`: stage 2, train a vision-language model (VLM) to predict latent action codes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import torch

from hlrp.commands.running import choose_device, resume_command
from hlrp.data.labelled_frames import OrderedBatches, ShuffledBatches
from hlrp.data.observation_sources import (
    HeldOut,
    ObservationSource,
    open_labelled,
    open_taught,
    require_one_teacher,
)
from hlrp.data.run_facts import observation_facts
from hlrp.foundation.backends import FoundationBackend, build_backend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import METRICS_FILE
from hlrp.foundation.online_labels import OnlineLabels, TaughtBatch
from hlrp.foundation.predictions import CodePredictions, predict_codes
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.laq.checkpoint import load_laq
from hlrp.measure.code_accuracy import CodeFigures, LastCodeGuess, code_counts, code_figures, validation_log
from hlrp.measure.code_accuracy import last_code_guess as guess_last_code
from hlrp.measure.language import LanguageFigures, language_figures, swapped_instructions
from hlrp.options.train_foundation import TrainFoundationConfig
from hlrp.report.cards.foundation_card import NO_HELD_OUT
from hlrp.report.foundation_table import foundation_table
from hlrp.report.pages.foundation_page import example_predictions, render_foundation_page
from hlrp.report.saving import save_foundation
from hlrp.report.verdicts.foundation import foundation_conclusion
from hlrp.runtime.progress import progress
from hlrp.training.run import TrainingRun
from hlrp.training.settings import lasting_settings
from hlrp.training.step_data import StepData

logger = logging.getLogger(__name__)

PAGE_FILE = "report.html"
_VALIDATION_FRAMES = 1024
"""Largest number of held-out frames to validate on, summed over all datasets."""
_LANGUAGE_FRAMES = 512
"""About how many held-out frames are predicted again under another instruction."""
_EXAMPLES = 12
"""About how many held-out frames the report shows."""


def train_foundation(config: TrainFoundationConfig) -> dict[str, float]:
    """Train the model, validate it on held-out episodes and save the checkpoint; with several processes, rank 0 saves.

    Returns:
        Validation metrics by name; empty if no episode is held out.

    Raises:
        FileExistsError: If `config.output_dir` exists, or an unfinished run is there and `config.resume` is false.
        FileNotFoundError: If a dataset or its labels do not exist.
        ValueError: If labels of different LAQs are mixed, or a resumed run has other settings or data.
    """
    with TrainingRun(
        config.output_dir,
        resume=config.resume,
        settings=lasting_settings(config),
        resume_command=resume_command("hlrp-train-foundation"),
    ) as run:
        return _train(config, run)


def _train(config: TrainFoundationConfig, run: TrainingRun) -> dict[str, float]:
    device = choose_device(config.device)
    config.trainer.require_device(device)
    sources, online = _open(config)
    run.require_same_data(observation_facts(sources, [one.dataset_root for one in config.datasets]))
    spec, fingerprint = sources[0].spec, sources[0].laq_fingerprint

    torch.manual_seed(config.seed)
    backend = build_backend(config.backend, spec)
    frames = sum(len(source.train.index) for source in sources)
    held_out = sum(len(source.held_out.index) for source in sources)
    parameters, trained = _millions(backend)
    logger.info(f"VLA of {parameters} parameters, {trained} of them trained, on {frames} frames; {held_out} held out")
    module = VLABackendModule(
        backend, config.optimizer, figures=_validation_figures(sources, spec.codebook_size), online=online
    )
    validation = OrderedBatches([source.held_out for source in sources], batch_size=config.batch_size)
    batches = ShuffledBatches(
        [source.train for source in sources],
        batch_size=min(config.batch_size, frames),
        num_batches=config.steps,
        seed=config.seed,
    )
    data = StepData(batches, validation if held_out else None, num_workers=config.num_workers)
    logged = run.fit(
        module,
        data,
        steps=config.steps,
        save_every=config.save_every,
        validate_every=min(config.validate_every or config.steps, config.steps) if held_out else None,
        device=device,
        trainer=config.trainer,
    )
    figures = {name.removeprefix("val/"): value for name, value in logged.items() if name.startswith("val/")}
    if not run.is_main:
        return figures
    backend.merge_adapters()
    backend.to(device)
    extra = {
        "datasets": list(dict.fromkeys(source.name for source in sources)),
        "sources": [_describe(source, share=share) for source, share in zip(sources, batches.shares, strict=True)],
        "episodes": [one.episodes for one in config.datasets],
        "cameras": sources[0].cameras,
        "labels": "online" if online else "precomputed",
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "license": config.license,
    }
    if not held_out:
        save_foundation(backend, config.output_dir, laq_fingerprint=fingerprint, extra={**extra, "validation": {}})
        run.finish()
        print(NO_HELD_OUT)
        return figures
    numbers = progress(range(len(validation)), "reading held-out frames")
    measured = [_labelled(validation[number].to(device), online) for number in numbers]
    predictions = module.predictions
    # The saved weights must be measured anew if the validated ones differ from them: under fsdp a copy was validated
    # (predictions is None), merging LoRA adapters rounds the weights, and mixed precision rounds the activations.
    if predictions is None or config.backend.lora.is_on or config.trainer.precision != "32-true":
        predictions = predict_codes(backend, progress(measured, "measuring the checkpoint"))
    quality = _quality(predictions, sources, spec.codebook_size)
    figures |= {name.removeprefix("val/"): value for name, value in validation_log(quality).items()}
    extra["validation"] = figures
    language = _language(backend, measured, sources)
    about = {
        "model": f"{config.backend.model_name or f'embedded {config.backend.embedded_size}'}, {backend.backend_type}, "
        f"{parameters} parameters, {trained} trained",
        "latents": f"{spec.num_codes} codes of {spec.codebook_size}, LAQ {fingerprint}",
        "datasets": ", ".join(extra["datasets"]),
        "training": f"{config.steps} steps of {config.batch_size} frames, seed {config.seed}",
        "held out": f"{config.held_out:.0%} of the episodes, seed {config.seed}; not from the LAQ that labelled them",
    }
    # A batch holds neighbouring frames, which look alike: take a few examples from each of several distant batches.
    spread = torch.linspace(0, len(measured) - 1, min(_EXAMPLES, len(measured))).long().tolist()
    each = -(-_EXAMPLES // len(spread))
    examples = [
        example
        for number in progress(spread, "predicting examples")
        for example in example_predictions(backend, measured[number], each)
    ]
    metrics = {
        "quality": quality.to_dict(),
        "language": language.to_dict(),
        "verdict": foundation_conclusion(quality.to_dict()).to_dict(),
        "about": about,
    }
    save_foundation(
        backend,
        config.output_dir,
        laq_fingerprint=fingerprint,
        extra=extra,
        quality=quality,
        language=language,
        beside={
            METRICS_FILE: json.dumps(metrics, indent=2),
            PAGE_FILE: render_foundation_page(quality, language, examples, about),
        },
    )
    run.finish()
    print(foundation_table(quality, language))
    return figures


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
        sources = [open_taught(one, laq, held_out, image_size=size, cache_gib=cache) for one in config.datasets]
    require_one_teacher(sources)
    return sources, None if laq is None else OnlineLabels(laq.model)


def _labelled(batch: FoundationBatch | TaughtBatch, online: OnlineLabels | None) -> FoundationBatch:
    if isinstance(batch, FoundationBatch):
        return batch
    assert online is not None, "only a run with laq_path has batches of clips"
    return online.label(batch)


def _validation_figures(
    sources: Sequence[ObservationSource], codebook_size: int
) -> Callable[[CodePredictions], dict[str, float]]:
    """Figures that every validation logs, by their names in the log."""
    counts = _training_counts(sources, codebook_size)

    def figures(predictions: CodePredictions) -> dict[str, float]:
        return validation_log(code_figures(predictions, codebook_size=codebook_size, training_counts=counts))

    return figures


def _training_counts(sources: Sequence[ObservationSource], codebook_size: int) -> torch.Tensor | None:
    """Count the training frames of each code of each slot, shape (s, k); None if labels are made during training."""
    counts = [
        code_counts(source.labels.codes[source.train.index], codebook_size)
        for source in sources
        if source.labels is not None
    ]
    return torch.stack(counts).sum(0) if len(counts) == len(sources) else None


def _quality(predictions: CodePredictions, sources: Sequence[ObservationSource], codebook_size: int) -> CodeFigures:
    # Episodes of every dataset are numbered from 0; an offset keeps them apart for the bootstrap over episodes.
    offsets = torch.tensor([0, *(len(source.episode) for source in sources[:-1])]).cumsum(0)
    episode = torch.cat(
        [source.episode[source.held_out.index] + offset for source, offset in zip(sources, offsets, strict=True)]
    )
    return code_figures(
        predictions,
        codebook_size=codebook_size,
        training_counts=_training_counts(sources, codebook_size),
        episode=episode,
        last_code=_last_code(sources[0]) if len(sources) == 1 else None,
    )


def _last_code(source: ObservationSource) -> LastCodeGuess | None:
    """Measure the guess that the codes of the clip before frame t repeat; None if labels are made during training."""
    labels = source.labels
    if labels is None:
        return None
    span = source.spec.frame_deltas(source.fps)[-1]
    return guess_last_code(labels.codes, labels.valid, source.episode, source.held_out.index, span=span)


def _language(
    backend: FoundationBackend, batches: Sequence[FoundationBatch], sources: Sequence[ObservationSource]
) -> LanguageFigures:
    others = swapped_instructions(text for source in sources for text in source.instructions)
    enough = max(_LANGUAGE_FRAMES // len(batches[0]), 1)
    every = max(len(batches) // enough, 1)
    return language_figures(backend, batches[::every], others)


def _describe(source: ObservationSource, *, share: float) -> dict[str, object]:
    """Return what the checkpoint records about a dataset it was trained on, as JSON values."""
    trained = set(source.episode[source.train.index].tolist())
    episodes = sorted(set(source.episode.tolist()))
    return {
        "name": source.name,
        "share": share,
        "episodes": len(episodes),
        "held_out_episodes": [episode for episode in episodes if episode not in trained],
    }


def _millions(backend: FoundationBackend) -> tuple[str, str]:
    """Return the numbers of all and of the trained parameters, such as ("4.2 M", "1.3 M")."""
    counts = [[p.numel() for p in backend.parameters() if p.requires_grad or not only] for only in (False, True)]
    total, trained = (f"{sum(count) / 1e6:.3g} M" for count in counts)
    return total, trained
