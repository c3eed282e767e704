"""Options of `hlrp-train-foundation`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.data.source_config import DEFAULT_TOLERANCE_S, ObservationConfig, require_episode_numbers
from hlrp.foundation.backends import BackendConfig
from hlrp.foundation.config import FoundationOptimizerConfig
from hlrp.runtime.checks import require_cameras, require_numbers, require_seed
from hlrp.training.config import TrainerConfig


def _default_backend() -> BackendConfig:
    return BackendConfig.get_choice_class(BackendConfig.default_choice_name())()


@dataclass
class TrainFoundationConfig:
    """Train a vision-language model to predict a LAQ's codes from one frame and an instruction; needs no actions."""

    dataset_repo_id: str | None = None
    """Repo id of the labelled dataset; default: local/hlrp_demos."""
    dataset_root: str | None = None
    """Folder of the dataset; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    labels_path: str | None = None
    """Folder of the dataset's latent labels; default: the folder `latents` inside the dataset, else the label columns
    of the dataset."""
    cameras: list[str] = field(default_factory=list)
    """Dataset keys of the cameras the model sees; default: the first camera that was labelled."""
    episodes: list[int] | None = None
    """Numbers of the episodes to use, for training and validation together; default: all."""
    tolerance_s: float = DEFAULT_TOLERANCE_S
    """Largest accepted difference between a frame's time stamp and the dataset's frame rate, in seconds. Raise it for
    datasets with imprecise time stamps."""
    sources: list[ObservationConfig] = field(default_factory=list)
    """Several datasets, instead of the single one above, such as [{dataset_root: a, weight: 2}, {dataset_root: b,
    weight: 1}]. Each has the options dataset_repo_id, dataset_root, labels_path, cameras, episodes and tolerance_s, and
    weight: the dataset's share of the samples, relative to the other datasets (default: every frame once an epoch)."""
    laq_path: str | None = None
    """Folder of a LAQ checkpoint, or repo id of a LAQ on the hub, that labels each batch during training. Default: read
    precomputed labels from the disk."""
    output_dir: str = "outputs/foundation"
    """Folder of the new checkpoint; must not exist."""
    backend: BackendConfig = field(default_factory=_default_backend)
    """Architecture and weights of the VLM, and its input images; --backend.type is qwen3vl_chat (the default) or
    smol_latent_head."""
    steps: int = 1500
    """Number of optimizer steps."""
    batch_size: int = 64
    """Frames per optimizer step, summed over all processes."""
    optimizer: FoundationOptimizerConfig = field(default_factory=FoundationOptimizerConfig)
    """AdamW with its learning rate, linear warmup and cosine decay."""
    held_out: float = 0.1
    """Share of the episodes of each dataset that is kept for validation, in (0, 1)."""
    validate_every: int | None = None
    """Optimizer steps between validations; default: validate once, at the end."""
    cache_gib: float = 2.0
    """Size of the cache of decoded frames in memory, in GiB; larger datasets are decoded on demand."""
    num_workers: int = 0
    """Number of processes that prepare batches; helps if frames are decoded on demand."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How the optimizer steps are computed: devices, precision, gradient accumulation, loggers."""
    log_json: str | None = None
    """File to which every event of the run is appended as a line of JSON, for programs that watch it; default: none."""
    save_every: int = 100
    """Optimizer steps between saved training states, from which --resume continues."""
    resume: bool = False
    """Continue an interrupted run with the same settings. Only steps, save_every, validate_every, paths, device,
    num_workers, cache_gib and, of trainer, devices, num_nodes, strategy (not to fsdp), compile, loggers and gates may
    differ."""
    seed: int = 0
    """Seed of the split into training and held-out episodes, of the initial weights and of all random choices."""
    license: str | None = None
    """Licence of the weights for the model card, in the hub's spelling; default: the licence of the pretrained
    backbone, or apache-2.0 for a backbone trained from scratch."""
    device: str | None = None
    """Device: cpu, cuda or mps; default: the best device of this machine."""

    def __post_init__(self) -> None:
        require_numbers(self, "steps", "batch_size", "validate_every", "save_every", at_least=1)
        require_numbers(self, "num_workers", "cache_gib", at_least=0)
        require_numbers(self, "held_out", above=0, below=1)
        require_seed(self.seed)
        require_numbers(self, "tolerance_s", above=0)
        require_episode_numbers(self.episodes)
        require_cameras("cameras", self.cameras)
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
            raise ValueError("fsdp shards what is trained, and a frozen backbone or LoRA trains few weights; use ddp")

    @property
    def datasets(self) -> list[ObservationConfig]:
        """All datasets of the run: `sources`, or the single dataset that the other options name."""
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
