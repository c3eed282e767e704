"""Base configuration of all policies.

This file must not use `from __future__ import annotations`, because LeRobot reads the types of the fields.
"""

import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig

import hlrp.foundation.backends  # noqa: F401  registers the backends
from hlrp.foundation.config import BACKENDS, DTYPE_NAMES
from hlrp.runtime.checks import (
    raises_parsing_errors,
    require_cameras,
    require_number,
    require_numbers,
    require_one_of,
)
from hlrp.runtime.size_limits import LARGEST_SIDE_PX, LONGEST_CHUNK, MOST_CODE_SLOTS, MOST_CODEBOOK_ENTRIES

from .open_chunk import open_window

_NORMALIZATION = {
    "VISUAL": NormalizationMode.IDENTITY,
    "STATE": NormalizationMode.MEAN_STD,
    "ACTION": NormalizationMode.MEAN_STD,
}


@dataclass
class HLRPConfig(PreTrainedConfig):
    """Options of all policies: a foundation VLA, and a part that maps its output to a chunk of actions."""

    state_option: ClassVar[str] = "expert_uses_state"
    """Name of the option that turns the robot's state off as an input."""
    chunk_ends_with_label: ClassVar[bool] = False
    """Whether actions are decoded from codes alone, so that a chunk cannot be longer than the span of a label."""
    actions_teach_vla: ClassVar[bool] = False
    """Whether the loss on actions trains the VLA, too; otherwise only the loss on latent codes does."""

    n_obs_steps: int = 1
    """Number of observation steps; must be 1, because the policy sees only the current frame."""
    chunk_size: int | None = None
    """Actions predicted at once. None: the number of frames that one latent action spans, which is also the maximum for
    policies that decode actions from codes alone."""
    n_action_steps: int | None = None
    """Actions executed before the next prediction, in lerobot-eval and in the synchronous loop of lerobot-rollout. The
    policy server and real-time chunking request whole chunks instead. None: half of chunk_size, rounded up."""

    vla_model_name: str | None = None
    """Hub name or local folder of a pretrained VLM. None: a small untrained model of size demo, built offline."""
    vla_checkpoint_path: str | None = None
    """Foundation VLA to start from: a folder written by hlrp-train-foundation, or its name on the hub. Its settings are
    used and vla_model_name is ignored. Or a Lightning checkpoint (.ckpt), which has only weights: vla_model_name and
    the settings below must describe its model."""
    vla_cameras: list[str] | None = None
    """Cameras that the VLA sees, in this order; an action head with its own image encoder sees all cameras. None: those
    that the VLA in vla_checkpoint_path was trained on, or all cameras if they are not known. Empty: all cameras."""
    vla_backend: str | None = None
    """Foundation backend: qwen3vl_chat or smol_latent_head. None: that of vla_checkpoint_path, or else qwen3vl_chat."""
    instruction: str | None = None
    """Instruction for batches without a task, such as those of the PushT environment. None: refuse such batches."""
    image_size: tuple[int, int] | None = None
    """Height and width of the VLM's input images, in pixels. None: those of vla_checkpoint_path, or else 64x64."""
    system_prompt: str | None = None
    """System prompt of the VLM. None: that of vla_checkpoint_path, or else the backend's default."""
    attn_implementation: str = "sdpa"
    """Attention implementation of transformers: sdpa, eager or flash_attention_2."""
    dtype: str = "float32"
    """Type of the VLM's weights, and Accelerate's mixed precision: float32, bfloat16 or float16. Trained weights are
    kept in float32 during training, because updates of usual size would be lost in rounding."""
    gradient_checkpointing: bool = False
    """Recompute the VLM's activations in the backward pass: less memory, more time."""
    compile_model: bool = False
    """Compile the layers of VLM and action expert with torch.compile: a slow start, then faster steps on a GPU."""
    compile_mode: str = "default"
    """Mode of torch.compile, if compile_model is true."""
    random_shift_px: int = 2
    """Augmentation: in training, shift every image by up to this many pixels along each axis."""

    codebook_size: int | None = None
    """Codebook size k of the LAQ. None: read from vla_checkpoint_path, the latent labels or the LAQ."""
    code_seq_len: int | None = None
    """Code slots s per transition of the LAQ. None: read from vla_checkpoint_path, the latent labels or the LAQ."""
    latent_targets: str = "precomputed"
    """Source of latent labels. precomputed: read what hlrp-precompute-latent-codes wrote. online: run a frozen LAQ."""
    laq_checkpoint_path: str | None = None
    """Folder of the LAQ, or its name on the hub. Training needs it if latent_targets is online or if actions are
    decoded by the LAQ's decoder; inference does not need it, unless save_predicted_video is true."""
    save_predicted_video: bool = False
    """Draw, with the decoder of the LAQ at laq_checkpoint_path, the frame to which predicted codes should lead.
    lerobot-eval saves these frames as a video beside those of its episodes. The actions stay the same."""
    teacher_offsets: tuple[int, ...] = ()
    """Offsets in frames, relative to t, of the later frames that the LAQ sees if latent_targets is online: its offset
    in seconds times the dataset's fps, and multiples of this if the LAQ sees more than two frames."""
    teacher_cameras: list[str] = field(default_factory=list)
    """Cameras that the LAQ sees, if it is used in training. Empty: the cameras that it was trained on."""
    latent_labels_path: str | None = None
    """Folder of the precomputed latent labels. None: `latents` in the dataset's folder, or else the dataset's columns.
    Not saved with the policy, which may be fine-tuned on another dataset; a resumed run reads train_config.json."""
    labelled_fraction: float = 1.0
    """Share of the run's episodes whose actions are learned; the others only contribute to the latent loss."""
    labelled_episodes: list[int] = field(default_factory=list)
    """Episodes whose actions are learned, as an alternative to labelled_fraction. Empty: not used."""
    action_valid_column: str | None = None
    """Boolean dataset column, true for frames whose action is known, as an alternative to labelled_fraction. Actions
    that are NaN or infinite are never learned."""
    labelled_share: float | None = None
    """Least share of every training batch that has an action to learn from: surplus other frames are replaced by
    frames with one. 0: batches are as LeRobot samples them. None: 0.5 if the VLA also learns codes, or else 1; and 0 if
    all actions are known."""
    laq_fingerprint: str | None = None
    """Fingerprint of the LAQ whose codes this policy uses. Filled in by the first training run, and then checked."""

    freeze_vla: bool = False
    """Freeze the foundation VLA; train only the action decoder or expert."""
    freeze_vla_backbone: bool = False
    """Freeze the pretrained VLM; train its new weights (rows of action tokens, or latent head) and the action part."""
    latent_loss_weight: float = 1.0
    """Weight of the foundation VLA's loss on latent codes."""
    action_loss_weight: float = 1.0
    """Weight of the loss on actions, which are normalized."""

    optimizer_lr: float = 5e-4
    """Peak learning rate of AdamW, reached after the warmup."""
    optimizer_lr_action: float | None = None
    """Peak learning rate of the action head (decoder or expert), which starts untrained while the VLA does not. None:
    optimizer_lr."""
    optimizer_betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates (betas) of AdamW's running means of the gradient and of its square."""
    optimizer_eps: float = 1e-8
    """Epsilon that AdamW adds to the denominator."""
    optimizer_weight_decay: float = 0.05
    """Weight decay of weight matrices; biases and norms have none."""
    optimizer_grad_clip_norm: float = 1.0
    """Maximum norm of the gradient; 0 turns clipping off."""
    scheduler_warmup_steps: int = 50
    """Optimizer steps over which the learning rate grows from 0 to its peak."""
    scheduler_decay_steps: int = 100_000
    """Optimizer steps of the cosine decay. If the run is shorter, LeRobot scales the schedule down to its steps."""
    scheduler_decay_lr: float = 1e-5
    """Learning rate at the end of the schedule."""

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_NORMALIZATION.copy)
    """Normalization by kind of feature (VISUAL, STATE, ACTION); a kind that is not named keeps its default."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        super().__post_init__()
        # A flag that names some kinds replaces the whole mapping, and LeRobot would not normalize the other kinds.
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
        if self.vla_backend is not None:
            require_one_of("vla_backend", self.vla_backend, BACKENDS)
        require_one_of("dtype", self.dtype, DTYPE_NAMES)
        self._check_latent_targets()
        require_numbers(self, "labelled_fraction", "labelled_share", at_least=0, at_most=1)
        require_numbers(self, "labelled_episodes", "latent_loss_weight", "action_loss_weight", at_least=0)
        require_numbers(self, "image_size", at_least=1, limit=LARGEST_SIDE_PX)
        require_numbers(self, "codebook_size", limit=MOST_CODEBOOK_ENTRIES)
        require_numbers(self, "code_seq_len", limit=MOST_CODE_SLOTS)
        require_numbers(self, "random_shift_px", at_least=0)
        require_numbers(self, "optimizer_lr", "optimizer_lr_action", "optimizer_eps", above=0)
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
        """Refuse a camera that is named twice, and an option that has no effect in training, given the other options.

        `__post_init__` does not call this, because a saved policy must load for inference with any of them.

        Raises:
            ValueError: If an option has no effect, or names a camera twice; the message names the option.
        """
        for name in ("vla_cameras", "teacher_cameras"):
            require_cameras(name, getattr(self, name))
        if self.labelled_share and not self.learns_actions:
            raise ValueError(
                f"labelled_share={self.labelled_share:g} has no effect in a run that learns no actions; leave it out"
            )
        if self.optimizer_lr_action not in (None, type(self).optimizer_lr_action) and not self.learns_actions:
            raise ValueError(
                f"optimizer_lr_action={self.optimizer_lr_action:g} has no effect in a run that learns no actions; "
                "leave it out"
            )
        if self.use_amp:
            raise ValueError(
                "use_amp=true has no effect in training, where LeRobot takes the precision from dtype; leave it out, "
                "and set --policy.dtype=bfloat16 to compute in bfloat16"
            )
        if self.latent_labels_path and not self.needs_labels:
            raise ValueError(
                f"latent_labels_path={self.latent_labels_path} has no effect: with latent_loss_weight="
                f"{self.latent_loss_weight:g} and freeze_vla={str(self.freeze_vla).lower()}, this run learns nothing "
                "from latent codes; leave it out, or let the VLA learn them"
            )
        if self.latent_targets == "online":
            if self.latent_labels_path:
                raise ValueError(
                    f"latent_labels_path={self.latent_labels_path} is not read with --policy.latent_targets=online, "
                    "where the quantizer itself makes the labels; set --policy.latent_labels_path=null"
                )
        elif self.teacher_cameras and not self.looks_through_laq:
            raise ValueError("teacher_cameras are for --policy.latent_targets=online; leave them out")

    @property
    def learns_actions(self) -> bool:
        """Whether training learns anything from the actions of the dataset."""
        return self.labelled_fraction > 0 and self.action_loss_weight > 0

    @property
    def looks_through_laq(self) -> bool:
        """Whether the policy contains the LAQ's decoder."""
        return False

    @property
    def learns_codes(self) -> bool:
        """Whether training updates the VLA with the loss on latent codes."""
        return self.latent_loss_weight > 0 and not self.freeze_vla

    @property
    def needs_labels(self) -> bool:
        """Whether training needs latent labels."""
        return True

    @property
    def actions_need_codes(self) -> bool:
        """Whether actions can be learned only on frames with latent codes."""
        return False

    @property
    def cameras_of_vla(self) -> list[str]:
        """Cameras that the VLA sees, in its order."""
        return list(self.vla_cameras or self.image_features)

    @property
    def state_dim(self) -> int | None:
        """State values r that the action head gets; None if it gets no state."""
        feature = self.robot_state_feature if getattr(self, self.state_option, True) else None
        return None if feature is None else feature.shape[0]

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write config.json without `latent_labels_path`, which belongs to one dataset."""
        saved = copy.copy(self)
        saved.latent_labels_path = None
        super(HLRPConfig, saved)._save_pretrained(save_directory)

    def vla_choices(self) -> dict[str, Any]:
        """Settings that must equal those of a trained VLA, as plain values; settings that are None are left out."""
        size = None if self.image_size is None else list(self.image_size)
        chosen = {"image_size": size, "system_prompt": self.system_prompt}
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def observation_delta_indices(self) -> list[int] | None:
        """Frames to load, relative to t: only frame t (None), or also the later frames that an online LAQ sees."""
        return [0, *self.teacher_offsets] if self.teacher_offsets else None

    @property
    def image_observation_delta_indices(self) -> list[int] | None:
        """Frames to load of cameras, relative to t, in LeRobot versions that distinguish cameras from states."""
        return self.observation_delta_indices

    @property
    def state_observation_delta_indices(self) -> None:
        """None: the state is loaded at t only."""
        return None

    def settle_chunk(self, chunk_size: int) -> None:
        """Set `chunk_size`, and set `n_action_steps` to half of it if that is None.

        Raises:
            ValueError: If `chunk_size` is below 1, or `n_action_steps` does not lie in [1, chunk_size].
        """
        require_number("chunk_size", chunk_size, at_least=1, limit=LONGEST_CHUNK)
        self.chunk_size = chunk_size
        if self.n_action_steps is None:
            self.n_action_steps = (chunk_size + 1) // 2
        if not 1 <= self.n_action_steps <= chunk_size:
            raise ValueError(f"n_action_steps must be between 1 and chunk_size {chunk_size}, got {self.n_action_steps}")

    @property
    def action_delta_indices(self) -> list[int]:
        """Actions to load, relative to t: one chunk, or a long window while `chunk_size` is None; see `open_window`."""
        return list(range(self.chunk_size or open_window(self.pretrained_path, self.vla_checkpoint_path)))

    @property
    def reward_delta_indices(self) -> None:
        """None: no rewards are loaded."""
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW with the `optimizer_*` options."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            betas=self.optimizer_betas,
            eps=self.optimizer_eps,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """Linear warmup and cosine decay with the `scheduler_*` options."""
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    def validate_features(self) -> None:
        """Check the input and output features, which LeRobot fills in from the dataset or environment.

        Raises:
            ValueError: If there is no camera or no action, or if images are normalized.
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
