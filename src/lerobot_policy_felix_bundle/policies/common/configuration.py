"""What the configurations of all policies have in common.

Not `from __future__ import annotations`: LeRobot reads the types of the fields.
"""

import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

from hlrp.runtime.checks import require_numbers, told_by_draccus

from .open_chunk import open_window

# Not taken from `hlrp.foundation`: every LeRobot command reads this file, and would pay for transformers.
VLA_BACKENDS = ("qwen3vl_chat", "smol_latent_head")
DTYPES = ("float32", "bfloat16", "float16")


_NORMALIZATION = {
    "VISUAL": NormalizationMode.IDENTITY,
    "STATE": NormalizationMode.MEAN_STD,
    "ACTION": NormalizationMode.MEAN_STD,
}


@dataclass
class HLRPConfig(PreTrainedConfig):
    """One frame and an instruction in, a chunk of continuous actions out, a foundation VLA in between."""

    n_obs_steps: int = 1
    """Always 1: the policy sees the current frame only."""
    chunk_size: int | None = None
    """Actions predicted at once. None: as many as the frames that a label spans, which is also the most that can be
    decoded from codes alone."""
    n_action_steps: int | None = None
    """Actions executed before the next prediction, in lerobot-eval and the synchronous loop of lerobot-rollout; the
    policy server and real-time chunking ask for whole chunks. None: half of chunk_size, rounded up."""

    vla_model_name: str | None = None
    """Hub name or folder of a Qwen3-VL chat model. None: the embedded demo-size model, offline and untrained."""
    vla_checkpoint_path: str | None = None
    """Folder written by hlrp-train-foundation, or its name on the hub, to start from: its settings then hold, and
    vla_model_name is not used. Or a Lightning checkpoint (.ckpt), which holds weights alone: vla_model_name and the
    settings below are its model's."""
    vla_backend: str | None = None
    """qwen3vl_chat or smol_latent_head. None: the checkpoint's, else qwen3vl_chat."""
    instruction: str | None = None
    """Used wherever a batch names no task, as PushT's environment does. None: such a batch is refused."""
    image_size: tuple[int, int] | None = None
    """Height and width the VLM sees. None: the checkpoint's, else 64x64."""
    system_prompt: str | None = None
    """Opens every prompt. None: the checkpoint's, else the default of QwenVLChatConfig."""
    attn_implementation: str = "sdpa"
    """Attention implementation of transformers."""
    dtype: str = "float32"
    """float32, bfloat16 or float16: Accelerate's mixed precision, and the type of the VLM's weights; those that learn
    are float32 while they do, as steps of a usual size would round to nothing."""
    gradient_checkpointing: bool = False
    """Recompute the VLM's activations in the backward pass."""
    compile_model: bool = False
    """Compile the layers of VLM and expert with torch.compile: a slow start, then faster steps on a GPU."""
    compile_mode: str = "default"
    """Mode of torch.compile."""
    random_shift_px: int = 2
    """In training, shift every picture by up to this many pixels along each axis."""

    codebook_size: int | None = None
    """Codes k per slot. None: the LAQ's, as the VLA's checkpoint, the labels or the LAQ itself tell it."""
    code_seq_len: int | None = None
    """Code slots s per transition. None: the LAQ's, likewise."""
    latent_targets: str = "precomputed"
    """precomputed: labels written by hlrp-precompute-latent-codes. online: a frozen LAQ labels every batch."""
    laq_checkpoint_path: str | None = None
    """Folder of the LAQ, or its name on the hub, for online targets and for a decoder that is its own; not needed to
    act."""
    teacher_offsets: tuple[int, ...] = ()
    """Frames after t that the LAQ sees in online training, and nothing else does: its offset in seconds times the
    dataset's fps, and the multiples of that where it sees more than two frames."""
    teacher_cameras: list[str] = field(default_factory=list)
    """Cameras the LAQ sees in online training. Empty: those it was trained on."""
    latent_labels_path: str | None = None
    """Folder of the latent labels. None: `latents` in the dataset's folder, else its own columns. Not saved with the
    policy, which may go on to another dataset; LeRobot's train_config.json keeps it to resume a run."""
    labelled_fraction: float = 1.0
    """Share of the episodes of the run whose actions may be learnt from; the others teach the latent loss alone."""
    labelled_episodes: list[int] = field(default_factory=list)
    """Or these episodes."""
    action_valid_column: str | None = None
    """Or a boolean column of the dataset that is true where a frame's action is known. NaN and infinity never are."""
    laq_fingerprint: str | None = None
    """The LAQ whose codes this policy speaks; filled in from the labels, and checked ever after."""

    freeze_vla: bool = False
    """Train only what turns codes or features into actions."""
    freeze_vla_backbone: bool = False
    """Train only what is new in the VLM (action tokens' rows or latent head), and what turns it into actions."""
    latent_loss_weight: float = 1.0
    """Weight of the cross-entropy of the codes."""
    action_loss_weight: float = 1.0
    """Weight of the error of the actions (normalized)."""

    optimizer_lr: float = 5e-4
    """Learning rate of AdamW after the warmup."""
    optimizer_betas: tuple[float, float] = (0.9, 0.98)
    """Decay of AdamW's running means of the gradient and of its square."""
    optimizer_eps: float = 1e-8
    """Added to AdamW's denominator."""
    optimizer_weight_decay: float = 0.05
    """Weight decay of matrices; vectors have none."""
    optimizer_grad_clip_norm: float = 1.0
    """Norm that gradients are clipped to; 0 leaves them."""
    scheduler_warmup_steps: int = 50
    """Steps over which the learning rate grows from 0."""
    scheduler_decay_steps: int = 100_000
    """Longer than the run: LeRobot scales the schedule down to the run's steps."""
    scheduler_decay_lr: float = 1e-5
    """Learning rate at the end of the schedule."""

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_NORMALIZATION.copy)
    """How each kind of feature is normalized; a kind that is not named keeps its default."""

    @told_by_draccus
    def __post_init__(self) -> None:
        super().__post_init__()
        # draccus replaces the whole mapping by the kinds that a flag names; LeRobot would not normalize the others.
        (mapping,) = (f for f in fields(self) if f.name == "normalization_mapping")
        self.normalization_mapping = {**mapping.default_factory(), **self.normalization_mapping}  # pyright: ignore[reportCallIssue]
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps must be 1, got {self.n_obs_steps}; this policy sees one frame")
        if self.chunk_size is not None:
            self.settle_chunk(self.chunk_size)
        for name, least in (("codebook_size", 2), ("code_seq_len", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.vla_backend is not None and self.vla_backend not in VLA_BACKENDS:
            raise ValueError(f"vla_backend must be one of {', '.join(VLA_BACKENDS)}, got {self.vla_backend!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        self._check_latent_targets()
        require_numbers(self, "labelled_fraction", at_least=0, at_most=1)
        require_numbers(self, "labelled_episodes", "latent_loss_weight", "action_loss_weight", at_least=0)
        require_numbers(self, "image_size", at_least=1)
        require_numbers(self, "random_shift_px", at_least=0)
        require_numbers(self, "optimizer_lr", "optimizer_eps", above=0)
        require_numbers(self, "optimizer_betas", at_least=0, below=1)
        require_numbers(self, "optimizer_weight_decay", "optimizer_grad_clip_norm", at_least=0)
        require_numbers(self, "scheduler_warmup_steps", "scheduler_decay_steps", "scheduler_decay_lr", at_least=0)

    def _check_latent_targets(self) -> None:
        if self.latent_targets not in ("precomputed", "online"):
            raise ValueError(f"latent_targets must be precomputed or online, got {self.latent_targets!r}")
        if self.latent_targets == "precomputed":
            if self.teacher_offsets:
                raise ValueError("teacher_offsets are for --policy.latent_targets=online; leave them out")
            return
        if not self.laq_checkpoint_path:
            raise ValueError("--policy.latent_targets=online needs the quantizer: name it with laq_checkpoint_path")
        offsets = list(self.teacher_offsets)
        if not offsets or offsets[0] < 1 or offsets != [offsets[0] * (i + 1) for i in range(len(offsets))]:
            raise ValueError(
                "--policy.latent_targets=online needs --policy.teacher_offsets, the quantizer's offset in frames and "
                f"its multiples, such as [8] or [8, 16]; got {offsets}"
            )

    def require_effect(self) -> None:
        """Raise where an option would have no effect in training beside the others.

        Not a part of `__post_init__`: a saved policy acts whatever it was trained with.

        Raises:
            ValueError: Naming the option.
        """
        if self.latent_targets == "online":
            if self.latent_labels_path:
                raise ValueError(
                    f"latent_labels_path={self.latent_labels_path} is not read with --policy.latent_targets=online, "
                    "where the quantizer itself makes the labels; set --policy.latent_labels_path=null"
                )
        elif self.teacher_cameras and not self.looks_through_laq:
            raise ValueError("teacher_cameras are for --policy.latent_targets=online; leave them out")

    @property
    def looks_through_laq(self) -> bool:
        """Whether a part of the LAQ is a part of the policy."""
        return False

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write config.json without the place of this dataset's labels."""
        saved = copy.copy(self)
        saved.latent_labels_path = None
        super(HLRPConfig, saved)._save_pretrained(save_directory)

    def vla_choices(self) -> dict[str, Any]:
        """Settings that a trained VLA has made for good, as plain values; those that are left open are missing."""
        size = None if self.image_size is None else list(self.image_size)
        chosen = {"image_size": size, "system_prompt": self.system_prompt}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def observation_delta_indices(self) -> list[int] | None:
        """One frame, at t; an online teacher adds those that only it sees."""
        return [0, *self.teacher_offsets] if self.teacher_offsets else None

    @property
    def image_observation_delta_indices(self) -> list[int] | None:
        """Where LeRobot tells pictures from states: only pictures have later frames."""
        return self.observation_delta_indices

    @property
    def state_observation_delta_indices(self) -> None:
        """The state at t."""
        return None

    def settle_chunk(self, chunk_size: int) -> None:
        """Fix the length of a chunk, and with it how much of it is executed where that is left open.

        Raises:
            ValueError: If a chunk is shorter than what shall be executed of it.
        """
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be 1 or more, got {chunk_size}")
        self.chunk_size = chunk_size
        if self.n_action_steps is None:
            self.n_action_steps = (chunk_size + 1) // 2
        if not 1 <= self.n_action_steps <= chunk_size:
            raise ValueError(f"n_action_steps must be between 1 and chunk_size {chunk_size}, got {self.n_action_steps}")

    @property
    def action_delta_indices(self) -> list[int]:
        """The chunk that starts at t; where its length is left open, enough actions for any, see `open_window`."""
        return list(range(self.chunk_size or open_window(self.pretrained_path, self.vla_checkpoint_path)))

    @property
    def reward_delta_indices(self) -> None:
        """No rewards."""
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW with the fields above."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """Warmup and cosine with the fields above."""
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    def validate_features(self) -> None:
        """Check the features once they are known.

        Raises:
            ValueError: If there is no camera, or no action.
        """
        if not self.image_features:
            raise ValueError(f"{self.type} needs a camera, and the input features have none")
        if self.action_feature is None:
            raise ValueError(f"{self.type} needs an 'action' output feature, and there is none")
        visual = self.normalization_mapping.get("VISUAL", NormalizationMode.IDENTITY)
        if visual is not NormalizationMode.IDENTITY:
            raise ValueError(
                f"{self.type} takes pixels in [0, 1] and normalizes them as its VLM does; set the normalization of "
                f"VISUAL to IDENTITY, got {visual.value}"
            )
