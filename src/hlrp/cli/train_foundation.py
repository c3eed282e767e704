"""`hlrp-train-foundation`: stage 2, teach a vision-language model to speak latent actions."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import draccus
import torch

from hlrp.cli.common import choose_device, run_cli
from hlrp.data.clips import split_episodes
from hlrp.data.dataset import (
    episode_bounds,
    episode_of_frame,
    frame_of_episode,
    open_dataset,
    read_instructions,
    require_camera,
)
from hlrp.data.frames import open_frames
from hlrp.data.labelled_frames import LabelledFrames, OrderedBatches, ShuffledBatches
from hlrp.data.labels import find_labels, require_labels_of
from hlrp.foundation.backends.qwen3vl_chat_backend import QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.checkpoint import save_foundation
from hlrp.foundation.vla_backend_module import VLABackendModule
from hlrp.optimization import OptimizerConfig
from hlrp.tables import table
from hlrp.training import StepData, TrainerConfig, TrainingRun

logger = logging.getLogger(__name__)

_VALIDATION_FRAMES = 1024


@dataclass
class TrainFoundationConfig:
    """Train a vision-language model to predict a LAQ's codes from one frame and an instruction; needs no actions."""

    dataset_repo_id: str = "local/hlrp_demos"
    """Repo id of the labelled dataset."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    labels_path: str | None = None
    """Folder of its latent labels; default: its own columns, else `latents` in its folder."""
    output_dir: str = "outputs/foundation"
    """Folder of the checkpoint; must not exist."""
    cameras: list[str] | None = None
    """Dataset keys of the cameras the model sees; default: the one the labels are of."""
    backend: QwenVLChatConfig = field(default_factory=lambda: QwenVLChatConfig(random_shift_px=2))
    """Which model, and how it is shown the frame."""
    steps: int = 1500
    batch_size: int = 64
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-3))
    held_out: float = 0.1
    """Share of episodes kept for validation."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size per camera; larger datasets are decoded on demand."""
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
        self.trainer.require_divisible(self.batch_size)


def train_foundation(config: TrainFoundationConfig) -> dict[str, float]:
    """Train, validate on held-out episodes, save; returns the validation figures.

    With several processes, the first one alone saves.
    """
    run = TrainingRun(config.output_dir, resume=config.resume)
    device = choose_device(config.device)
    dataset = open_dataset(config.dataset_repo_id, config.dataset_root)
    labels = find_labels(dataset.root, config.labels_path)
    labels.require_codes()
    bounds = episode_bounds(dataset.meta)
    episode = episode_of_frame(bounds)
    require_labels_of(labels, episode_index=episode, frame_index=frame_of_episode(bounds))
    cameras = [require_camera(dataset.meta, name) for name in config.cameras or [labels.metadata.camera]]
    sources = [
        open_frames(dataset, camera, config.backend.image_size, cache_gib=config.cache_gib) for camera in cameras
    ]
    frames = LabelledFrames(sources, read_instructions(dataset), labels.codes)
    train, held_out = split_episodes(len(bounds), held_out=config.held_out, seed=config.seed)
    train_index = (labels.valid & torch.isin(episode, train)).nonzero()[:, 0]
    val_index = (labels.valid & torch.isin(episode, held_out)).nonzero()[:, 0]
    if len(train_index) == 0 or len(val_index) == 0:
        raise ValueError("no labelled frame in the training or the held-out episodes; use more or longer episodes")
    generator = torch.Generator().manual_seed(config.seed)
    val_index = val_index[torch.randperm(len(val_index), generator=generator)[:_VALIDATION_FRAMES]].sort().values

    torch.manual_seed(config.seed)
    backend = QwenVLChatBackend.build(config.backend, labels.metadata.spec)
    parameters = sum(p.numel() for p in backend.parameters()) / 1e6
    logger.info(f"VLA of {parameters:.1f} M parameters on {len(train_index)} frames, {len(val_index)} held out")
    module = VLABackendModule(backend, config.optimizer)
    batch_size = min(config.batch_size, len(train_index))
    data = StepData(
        ShuffledBatches(frames, train_index, batch_size=batch_size, num_batches=config.steps, seed=config.seed),
        OrderedBatches(frames, val_index, batch_size=config.batch_size),
        num_workers=config.num_workers,
    )
    figures = run.fit(
        module,
        data,
        steps=config.steps,
        save_every=config.save_every,
        validate_every=config.steps,
        device=device,
        trainer=config.trainer,
    )
    figures = {name.removeprefix("val/"): value for name, value in figures.items() if name.startswith("val/")}
    if not run.is_main:
        return figures
    extra = {
        "dataset_repo_id": config.dataset_repo_id,
        "cameras": cameras,
        "steps": config.steps,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "validation": figures,
    }
    save_foundation(backend, config.output_dir, laq_fingerprint=labels.metadata.laq_fingerprint, extra=extra)
    run.finish()
    print(validation_table(figures))
    return figures


def validation_table(figures: dict[str, float]) -> str:
    """Held-out figures as a table for a terminal."""
    meaning = {
        "accuracy": "code right, given the true codes before it",
        "decoded_accuracy": "code right, decoding as at inference",
        "exact_sequence_accuracy": "all codes of a frame right",
        "marginal_accuracy": "always guessing the most frequent code",
    }
    rows = [[name.replace("_", " "), f"{figures[name]:.3f}", text] for name, text in meaning.items()]
    return table(["code prediction (held-out episodes)", "value", "what it means"], rows)


def main() -> None:
    """Entry point."""
    run_cli(lambda: train_foundation(draccus.parse(TrainFoundationConfig)))


if __name__ == "__main__":
    main()
