"""`hlrp-train-foundation`: stage 2, teach a vision-language model to speak latent actions."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import draccus
import torch

from hlrp.cli.common import choose_device, run_cli
from hlrp.data.labelled_frames import OrderedBatches, ShuffledBatches
from hlrp.data.observation_sources import (
    HeldOut,
    ObservationConfig,
    ObservationSource,
    open_labelled,
    open_taught,
    require_one_teacher,
)
from hlrp.data.source_config import DEFAULT_REPO_ID
from hlrp.foundation.backends import BackendConfig, FoundationBackend, QwenVLChatConfig, build_backend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import save_foundation
from hlrp.foundation.code_metrics import (
    CodeFigures,
    CodePredictions,
    LastCodeGuess,
    code_counts,
    code_figures,
    predict_codes,
)
from hlrp.foundation.code_metrics import last_code_guess as guess_last_code
from hlrp.foundation.language import LanguageFigures, language_figures, swapped_instructions
from hlrp.foundation.online_labels import OnlineLabels, TaughtBatch
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.laq.checkpoint import load_laq
from hlrp.optimization import OptimizerConfig
from hlrp.report.foundation_page import example_predictions, render_foundation_page
from hlrp.tables import table
from hlrp.training import StepData, TrainerConfig, TrainingRun

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.json"
PAGE_FILE = "report.html"
_VALIDATION_FRAMES = 1024
_LANGUAGE_FRAMES = 512
_EXAMPLES = 12


@dataclass
class TrainFoundationConfig:
    """Train a vision-language model to predict a LAQ's codes from one frame and an instruction; needs no actions."""

    dataset_repo_id: str = DEFAULT_REPO_ID
    """Repo id of the labelled dataset."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    labels_path: str | None = None
    """Folder of its latent labels; default: its own columns, else `latents` in its folder."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras the model sees; default: the one the labels are of."""
    sources: list[ObservationConfig] = field(default_factory=list)
    """Several datasets instead, such as [{dataset_root: a, weight: 2}, {dataset_root: b, weight: 1}]."""
    laq_path: str | None = None
    """Folder of a LAQ, or its name on the hub, that labels while training, instead of labels on the disk."""
    output_dir: str = "outputs/foundation"
    """Folder of the checkpoint; must not exist."""
    backend: BackendConfig = field(default_factory=lambda: QwenVLChatConfig(random_shift_px=2))
    """Which model, and how it is shown the frame; --backend.type names another kind."""
    steps: int = 1500
    batch_size: int = 64
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-3))
    held_out: float = 0.1
    """Share of the episodes of each dataset kept for validation."""
    validate_every: int | None = None
    """Steps between validations; default: at the end only."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    num_workers: int = 0
    """Processes that prepare batches; worth it where frames are decoded on demand."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """Devices, precision, accumulation, loggers: how the steps are run."""
    save_every: int = 100
    """Steps between resumable states."""
    resume: bool = False
    """Continue an interrupted run."""
    seed: int = 0
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be positive, got {self.steps} and {self.batch_size}")
        if self.validate_every is not None and self.validate_every < 1:
            raise ValueError(f"validate_every must be 1 or more, got {self.validate_every}")
        if self.sources and (self.dataset_root or self.labels_path or self.cameras):
            raise ValueError("name all datasets, labels and cameras inside sources, or use none")
        self.trainer.require_divisible(self.batch_size)
        frozen = self.backend.freeze_backbone or self.backend.lora.is_on
        if self.trainer.strategy == "fsdp" and frozen:
            raise ValueError("fsdp shards what is trained, and next to nothing is with a frozen backbone; use ddp")

    @property
    def datasets(self) -> list[ObservationConfig]:
        """All that is trained on."""
        return self.sources or [
            ObservationConfig(
                dataset_repo_id=self.dataset_repo_id,
                dataset_root=self.dataset_root,
                labels_path=self.labels_path,
                cameras=self.cameras,
            )
        ]


def train_foundation(config: TrainFoundationConfig) -> dict[str, float]:
    """Train, validate on held-out episodes, save; returns the validation figures.

    With several processes, the first one alone saves.
    """
    run = TrainingRun(config.output_dir, resume=config.resume)
    device = choose_device(config.device)
    sources, online = _open(config)
    spec, fingerprint = sources[0].spec, sources[0].laq_fingerprint

    torch.manual_seed(config.seed)
    backend = build_backend(config.backend, spec)
    frames = sum(len(source.train.index) for source in sources)
    held_out = sum(len(source.held_out.index) for source in sources)
    parameters, trained = _millions(backend)
    logger.info(f"VLA of {parameters} parameters, {trained} of them trained, on {frames} frames; {held_out} held out")
    module = VLABackendModule(
        backend, config.optimizer, training_counts=_training_counts(sources, spec.codebook_size), online=online
    )
    validation = OrderedBatches([source.held_out for source in sources], batch_size=config.batch_size)
    data = StepData(
        ShuffledBatches(
            [source.train for source in sources],
            batch_size=min(config.batch_size, frames),
            num_batches=config.steps,
            seed=config.seed,
        ),
        validation,
        num_workers=config.num_workers,
    )
    logged = run.fit(
        module,
        data,
        steps=config.steps,
        save_every=config.save_every,
        validate_every=min(config.validate_every or config.steps, config.steps),
        device=device,
        trainer=config.trainer,
    )
    figures = {name.removeprefix("val/"): value for name, value in logged.items() if name.startswith("val/")}
    if not run.is_main:
        return figures
    backend.merge_adapters()
    backend.to(device)
    batches = [_labelled(batch.to(device), online) for batch in validation]
    predictions = module.predictions or predict_codes(backend, batches)  # under fsdp a copy was validated
    quality = _quality(predictions, sources, spec.codebook_size)
    language = _language(backend, batches, sources)
    about = {
        "model": f"{config.backend.model_name or f'embedded {config.backend.embedded_size}'}, {backend.backend_type}, "
        f"{parameters} parameters, {trained} trained",
        "latents": f"{spec.num_codes} codes of {spec.codebook_size}, LAQ {fingerprint}",
        "datasets": ", ".join(source.name for source in sources),
        "training": f"{config.steps} steps of {config.batch_size} frames, seed {config.seed}",
        "held out": f"{config.held_out:.0%} of the episodes, seed {config.seed}",
    }
    # One batch holds neighbouring frames: examples come from all over the held-out episodes.
    spread = torch.linspace(0, len(batches) - 1, min(_EXAMPLES, len(batches))).long().tolist()
    each = -(-_EXAMPLES // len(spread))
    examples = [example for number in spread for example in example_predictions(backend, batches[number], each)]
    metrics = {"quality": quality.to_dict(), "language": language.to_dict(), "about": about}
    save_foundation(
        backend,
        config.output_dir,
        laq_fingerprint=fingerprint,
        extra={
            "datasets": [source.name for source in sources],
            "cameras": sources[0].cameras,
            "labels": "online" if online else "precomputed",
            "steps": config.steps,
            "batch_size": config.batch_size,
            "seed": config.seed,
            "validation": figures,
        },
        beside={
            METRICS_FILE: json.dumps(metrics, indent=2),
            PAGE_FILE: render_foundation_page(quality, language, examples, about),
        },
    )
    run.finish()
    print(validation_table(quality, language))
    return figures


def _open(config: TrainFoundationConfig) -> tuple[list[ObservationSource], OnlineLabels | None]:
    """All datasets, and the quantizer that labels them online where there is one."""
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
    assert online is not None, "clips come with the quantizer that labels them"
    return online.label(batch)


def _training_counts(sources: Sequence[ObservationSource], codebook_size: int) -> torch.Tensor | None:
    """How often each slot holds each code in training; None where labels are made online."""
    counts = [
        code_counts(source.labels.codes[source.train.index], codebook_size)
        for source in sources
        if source.labels is not None
    ]
    return torch.stack(counts).sum(0) if len(counts) == len(sources) else None


def _quality(predictions: CodePredictions, sources: Sequence[ObservationSource], codebook_size: int) -> CodeFigures:
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


def _millions(backend: FoundationBackend) -> tuple[str, str]:
    counts = [[p.numel() for p in backend.parameters() if p.requires_grad or not only] for only in (False, True)]
    total, trained = (f"{sum(count) / 1e6:.3g} M" for count in counts)
    return total, trained


def validation_table(figures: CodeFigures, language: LanguageFigures) -> str:
    """Held-out figures as a table for a terminal."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    rows = [
        ["decoded accuracy", number(figures.accuracy), "code right, decoding as at inference"],
        ["accuracy", number(figures.teacher_accuracy), "code right, given the true codes before it"],
        ["exact sequence accuracy", number(figures.exact_sequence_accuracy), "all codes of a frame right"],
        ["marginal accuracy", number(figures.marginal_accuracy), "always guessing the most frequent code"],
        ["last code accuracy", number(figures.last_code_accuracy), "repeating the true codes of the span before"],
        ["calibration error", number(figures.ece), "distance of confidence and accuracy"],
        ["instruction", number(language.accuracy_drop), "accuracy lost under another task's instruction"],
    ]
    return table(["code prediction (held-out episodes)", "value", "what it means"], rows)


def main() -> None:
    """Entry point."""
    run_cli(lambda: train_foundation(draccus.parse(TrainFoundationConfig)))


if __name__ == "__main__":
    main()
