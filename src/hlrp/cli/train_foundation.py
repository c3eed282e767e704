"""`hlrp-train-foundation`: stage 2, teach a vision-language model to speak latent actions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import draccus

from hlrp.checks import require_numbers, require_seed
from hlrp.cli.common import run_cli
from hlrp.data.source_config import DEFAULT_TOLERANCE_S, ObservationConfig, require_episode_numbers
from hlrp.foundation.config import BackendConfig, FoundationOptimizerConfig, QwenVLChatConfig
from hlrp.training_config import TrainerConfig


@dataclass
class TrainFoundationConfig:
    """Train a vision-language model to predict a LAQ's codes from one frame and an instruction; needs no actions."""

    dataset_repo_id: str | None = None
    """Repo id of the labelled dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    labels_path: str | None = None
    """Folder of its latent labels; default: `latents` in its folder, else its own columns."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras the model sees; default: the one the labels are of."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use, trained on or held out; default: all."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest difference between the time stamps of the dataset and its frame rate, in seconds; raise it where they are
    rough."""
    sources: list[ObservationConfig] = field(default_factory=list)
    """Several datasets instead, such as [{dataset_root: a, weight: 2}, {dataset_root: b, weight: 1}]; each has
    dataset_repo_id, dataset_root, labels_path and cameras, which mean what they mean here, and a weight: its share of
    the samples, relative to the others (default: every frame once an epoch)."""
    laq_path: str | None = None
    """Folder of a LAQ, or its name on the hub, that labels while training, instead of labels on the disk."""
    output_dir: str = "outputs/foundation"
    """Folder of the checkpoint; must not exist."""
    backend: BackendConfig = field(default_factory=QwenVLChatConfig)
    """Which model, and how it is shown the frame: a qwen3vl_chat, unless --backend.type names another kind."""
    steps: int = 1500
    """Optimizer steps in all."""
    batch_size: int = 64
    """Frames of one optimizer step, over all processes."""
    optimizer: FoundationOptimizerConfig = field(default_factory=FoundationOptimizerConfig)
    """AdamW, its warmup and its decay."""
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
    """Continue an interrupted run, with the settings it began with; steps and what computes them may change."""
    seed: int = 0
    """Of the split into training and held-out episodes, of the weights and of all draws."""
    license: str | None = None
    """Licence of the weights, for the model card, as the hub spells it; default: that of the pretrained backbone, or
    apache-2.0 for an embedded one."""
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        require_numbers(self, "steps", "batch_size", "validate_every", "save_every", at_least=1)
        require_numbers(self, "num_workers", "cache_gib", at_least=0)
        require_numbers(self, "held_out", above=0, below=1)
        require_seed(self.seed)
        require_numbers(self, "tolerance_s", above=0)
        require_episode_numbers(self.episodes)
        single = self.dataset_repo_id or self.dataset_root or self.labels_path or self.cameras or self.episodes
        if self.sources and (single or self.tolerance_s != DEFAULT_TOLERANCE_S):
            raise ValueError("name all datasets, labels, cameras and episodes inside sources, or use none")
        self.trainer.require_divisible(self.batch_size)
        mixed = {"bf16-mixed": "float16", "16-mixed": "bfloat16"}
        if mixed.get(self.trainer.precision) == self.backend.dtype:
            raise ValueError(
                f"weights of {self.backend.dtype} cannot compute in {self.trainer.precision}; set backend.dtype to "
                "float32, or to the type that the precision names"
            )
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
                episodes=self.episodes,
                tolerance_s=self.tolerance_s,
            )
        ]


def train_foundation(config: TrainFoundationConfig) -> Any:
    """Do what `hlrp.commands.train_foundation` describes; its imports take many seconds and so come last."""
    from hlrp.commands import train_foundation as command

    return command.train_foundation(config)


def main() -> None:
    """Entry point."""
    run_cli(lambda: train_foundation(draccus.parse(TrainFoundationConfig)))


if __name__ == "__main__":
    main()
