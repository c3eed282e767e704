"""What the configurations of all policies have in common.

Not `from __future__ import annotations`: LeRobot reads the types of the fields.
"""

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

# Not taken from `hlrp.foundation`: every LeRobot command reads this file, and would pay for transformers.
VLA_BACKENDS = ("qwen3vl_chat", "smol_latent_head")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class HLRPConfig(PreTrainedConfig):
    """One frame and an instruction in, a chunk of continuous actions out, a foundation VLA in between."""

    n_obs_steps: int = 1
    """Always 1: the policy sees the current frame only."""
    chunk_size: int = 8
    """Actions predicted at once; where they are decoded from codes alone, at most the frames that a label spans."""
    n_action_steps: int = 4
    """Actions executed before the next prediction."""

    vla_model_name: str | None = None
    """Hub name or folder of a Qwen3-VL chat model. None: the embedded demo-size model, offline and untrained."""
    vla_checkpoint_path: str | None = None
    """Folder written by hlrp-train-foundation to start from: its settings then hold, and vla_model_name is not used. Or
    a Lightning checkpoint (.ckpt), which holds weights alone: vla_model_name and the settings below are its model's."""
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
    """float32, bfloat16 or float16: the weights' type, and Accelerate's mixed precision."""
    gradient_checkpointing: bool = False
    """Recompute the VLM's activations in the backward pass."""
    compile_model: bool = False
    """Compile the layers of VLM and expert with torch.compile: a slow start, then faster steps on a GPU."""
    compile_mode: str = "default"
    """Mode of torch.compile."""
    random_shift_px: int = 2
    """In training, shift every picture by up to this many pixels along each axis."""

    codebook_size: int = 8
    """Codes k per slot; must be the LAQ's."""
    code_seq_len: int = 4
    """Slots s per transition; must be the LAQ's."""
    latent_targets: str = "precomputed"
    """precomputed: labels written by hlrp-precompute-latent-codes. online: a frozen LAQ labels every batch."""
    laq_checkpoint_path: str | None = None
    """Folder of the LAQ, for online targets and for a decoder that is its own; not needed to act."""
    teacher_offsets: tuple[int, ...] = ()
    """Frames after t that the LAQ sees in online training, and nothing else does: its offset in seconds times the
    dataset's fps, and the multiples of that where it sees more than two frames."""
    teacher_cameras: list[str] = field(default_factory=list)
    """Cameras the LAQ sees in online training. Empty: those it was trained on."""
    latent_labels_path: str | None = None
    """Folder of the latent labels. None: the dataset's own columns, else `latents` in its folder."""
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
    optimizer_betas: tuple[float, float] = (0.9, 0.98)
    optimizer_eps: float = 1e-8
    optimizer_weight_decay: float = 0.05
    optimizer_grad_clip_norm: float = 1.0
    scheduler_warmup_steps: int = 50
    scheduler_decay_steps: int = 100_000
    """Longer than the run: LeRobot scales the schedule down to the run's steps."""
    scheduler_decay_lr: float = 1e-5

    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        }
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps must be 1, got {self.n_obs_steps}; this policy sees one frame")
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps must be between 1 and chunk_size {self.chunk_size}, got {self.n_action_steps}"
            )
        if self.codebook_size < 2 or self.code_seq_len < 1:
            raise ValueError(
                f"codebook_size must be at least 2 and code_seq_len at least 1, got {self.codebook_size} and "
                f"{self.code_seq_len}"
            )
        if self.vla_backend is not None and self.vla_backend not in VLA_BACKENDS:
            raise ValueError(f"vla_backend must be one of {', '.join(VLA_BACKENDS)}, got {self.vla_backend!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        self._check_latent_targets()
        if not 0 <= self.labelled_fraction <= 1:
            raise ValueError(f"labelled_fraction must be in [0, 1], got {self.labelled_fraction}")
        if self.latent_loss_weight < 0 or self.action_loss_weight < 0:
            raise ValueError(
                f"loss weights must not be negative, got {self.latent_loss_weight} and {self.action_loss_weight}"
            )

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

    @property
    def action_delta_indices(self) -> list[int]:
        """The chunk that starts at t."""
        return list(range(self.chunk_size))

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
