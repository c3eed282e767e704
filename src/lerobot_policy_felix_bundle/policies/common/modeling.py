"""What the policies have in common: a foundation VLA with its labels, loading and saving, and the queue of actions.

Shapes: b batch, c codes of one label, h chunk steps, a action dimensions, r state values.
"""

import logging
from collections import deque
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from jaxtyping import Bool, Float
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from hlrp.foundation.backends import FoundationBackend, QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.checkpoint import (
    ASSETS_DIR,
    DESCRIPTION_FILE,
    load_foundation,
    read_description,
    rebuild,
    write_assets,
)
from hlrp.foundation.lightning_weights import SUFFIX, load_lightning_weights
from hlrp.latents import LatentSpec
from hlrp.optimization import parameter_groups

from .action_labels import ActionLabels
from .configuration import HLRPConfig
from .label_table import LabelTable
from .observations import current

logger = logging.getLogger(__name__)


class HLRPPolicy(PreTrainedPolicy):
    """A foundation VLA and, in a subclass, what turns it into actions."""

    config_class = HLRPConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPConfig
    name = "hlrp"  # pyright: ignore[reportAssignmentType]
    _fsdp_wrap_modules = (
        "Qwen3VLTextDecoderLayer",
        "Qwen3VLVisionBlock",
        "LlamaDecoderLayer",
        "SmolVLMEncoderLayer",
    )
    supports_gradient_checkpointing = True
    chunk_ends_with_label = True
    """Whether actions come from codes, which say nothing of what follows the frames they span."""

    def __init__(
        self,
        config: HLRPConfig,
        dataset_stats: dict[str, Any] | None = None,
        dataset_meta: Any | None = None,
        *,
        checkpoint_dir: Path | None = None,
        **kwargs: Any,
    ) -> None:
        """Build labels and VLA; a subclass builds the rest, and ends with `reset`.

        Args:
            config: Its configuration.
            dataset_stats: Not used: normalization is the processors' work.
            dataset_meta: Metadata of the dataset trained on; None outside training.
            checkpoint_dir: Folder this policy is being loaded from; its weights follow.
        """
        super().__init__(config)
        config.validate_features()
        self.labels = None if dataset_meta is None else LabelTable.of_dataset(dataset_meta, config.latent_labels_path)
        self.action_labels = (
            None
            if dataset_meta is None
            else ActionLabels.of_dataset(
                dataset_meta,
                fraction=config.labelled_fraction,
                episodes=config.labelled_episodes,
                column=config.action_valid_column,
            )
        )
        self.backend = self._build_backend(checkpoint_dir)
        self._check_compatibility(None if dataset_meta is None else float(dataset_meta.fps))

    @property
    def action_dim(self) -> int:
        """Action dimensions a."""
        assert self.config.action_feature is not None, "checked with the features"
        return self.config.action_feature.shape[0]

    def _build_backend(self, checkpoint_dir: Path | None) -> FoundationBackend:
        config = self.config
        overrides: dict[str, Any] = {
            "freeze_backbone": config.freeze_vla_backbone,
            "attn_implementation": config.attn_implementation,
            "dtype": config.dtype,
            "gradient_checkpointing": config.gradient_checkpointing,
            "random_shift_px": config.random_shift_px,
        }
        prompt: dict[str, Any] = {
            name: value
            for name, value in (("image_size", config.image_size), ("system_prompt", config.system_prompt))
            if value is not None
        }
        folder = checkpoint_dir or config.vla_checkpoint_path
        lightning = folder if checkpoint_dir is None and str(folder).endswith(SUFFIX) else None
        if folder is None or lightning is not None:
            if config.vla_model_name is None and lightning is None:
                logger.warning(
                    f"{config.type} starts from the embedded demo-size VLM, untrained; name a real one with "
                    "--policy.vla_model_name or a trained one with --policy.vla_checkpoint_path"
                )
            spec = self.labels.metadata.spec if self.labels is not None else self._default_spec()
            backend = QwenVLChatBackend.build(
                QwenVLChatConfig(model_name=config.vla_model_name, **overrides, **prompt), spec
            )
            if lightning is not None:
                load_lightning_weights(backend, lightning)
            return backend
        saved = read_description(folder)
        for name, value in prompt.items():
            theirs = saved.config[name]
            if (tuple(theirs) if isinstance(theirs, list) else theirs) != value:
                raise ValueError(
                    f"--policy.{name}={value} differs from the {theirs} that {folder} was trained with; leave it out"
                )
        config.laq_fingerprint = self._same_laq(saved.laq_fingerprint, str(folder))
        if checkpoint_dir is not None:
            return rebuild(checkpoint_dir, overrides=overrides).backend
        return load_foundation(folder, overrides=overrides).backend

    def _default_spec(self) -> LatentSpec:
        return LatentSpec(codebook_size=self.config.codebook_size, code_seq_len=self.config.code_seq_len)

    def _same_laq(self, fingerprint: str, owner: str) -> str | None:
        """The LAQ this policy speaks, after `owner` names its own; "" names none."""
        known = self.config.laq_fingerprint
        if known and fingerprint and known != fingerprint:
            raise ValueError(
                f"{owner} speaks the codes of LAQ {fingerprint}, this policy those of LAQ {known}; label the dataset "
                "with the same LAQ, or start a new policy"
            )
        return known or fingerprint or None

    def _check_compatibility(self, fps: float | None) -> None:
        config, spec = self.config, self.backend.spec
        for name in ("codebook_size", "code_seq_len"):
            mine, theirs = getattr(config, name), getattr(spec, name)
            if mine != theirs:
                raise ValueError(
                    f"--policy.{name}={mine}, but the LAQ of this run has {name}={theirs}; set --policy.{name}={theirs}"
                )
        if self.labels is not None:
            metadata = self.labels.metadata
            config.laq_fingerprint = self._same_laq(metadata.laq_fingerprint, "the dataset's latent labels")
            spec.require_same_codes(metadata.spec, this="the foundation model", that="the latent labels")
        if fps is not None:
            span = spec.offset_frames(fps) * spec.num_transitions
            if self.chunk_ends_with_label and config.chunk_size > span:
                raise ValueError(
                    f"chunk_size={config.chunk_size} is longer than the {span} frames a latent action spans at "
                    f"{fps:g} fps; set --policy.chunk_size={span} or less"
                )

    @classmethod
    def from_pretrained(cls, pretrained_name_or_path: str | Path, **kwargs: Any) -> "HLRPPolicy":
        """Load a saved policy, strictly; offline where `pretrained_name_or_path` is a folder."""
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            patterns = [DESCRIPTION_FILE, f"{ASSETS_DIR}/*"]
            folder = Path(
                snapshot_download(
                    str(pretrained_name_or_path),
                    revision=kwargs.get("revision"),
                    cache_dir=kwargs.get("cache_dir"),
                    token=kwargs.get("token"),
                    allow_patterns=patterns,
                )
            )
        kwargs["strict"] = True
        return super().from_pretrained(pretrained_name_or_path, checkpoint_dir=folder, **kwargs)

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        super()._save_pretrained(save_directory, **kwargs)
        write_assets(self.backend, save_directory, laq_fingerprint=self.config.laq_fingerprint or "")

    def get_optim_params(self) -> list[dict[str, object]]:
        """Matrices with weight decay, vectors without."""
        return parameter_groups(self, self.config.optimizer_weight_decay)

    def reset(self) -> None:
        """Forget the actions still to be executed."""
        self._action_queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    def _actions_known(self, batch: dict[str, Any]) -> Bool[Tensor, " b"]:
        """Which samples have an action to learn from."""
        if self.action_labels is None:
            return torch.ones(len(batch[ACTION]), dtype=torch.bool, device=batch[ACTION].device)
        return self.action_labels.lookup(batch["index"])

    def _over_steps(
        self, error: Float[Tensor, "b h"], batch: dict[str, Any], counted: Bool[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Mean error over the steps inside the episode; 0 for samples that do not count."""
        is_pad = batch.get(f"{ACTION}_is_pad")
        keep = counted[:, None] if is_pad is None else counted[:, None] & ~is_pad
        return torch.where(keep, error, 0.0).sum(1) / keep.expand_as(error).sum(1).clamp_min(1)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """The next action (b, a): predicts a chunk whenever the last one's first `n_action_steps` are used up."""
        if not self._action_queue:
            chunk = self._next_chunk(batch)[:, : self.config.n_action_steps]
            self._action_queue.extend(chunk.unbind(1))
        return self._action_queue.popleft()

    def _next_chunk(self, batch: dict[str, Any]) -> Float[Tensor, "b h a"]:
        """The chunk that follows the one used up."""
        return self.predict_action_chunk(batch)

    def _current_state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"]:
        """The robot's state at time t.

        Raises:
            ValueError: If the batch has none.
        """
        if OBS_STATE not in batch:
            raise ValueError(
                f"the batch lacks {OBS_STATE!r}, which this policy was trained with; train with "
                "--policy.decoder_uses_state=false to do without"
            )
        return current(batch[OBS_STATE], ndim=2)
