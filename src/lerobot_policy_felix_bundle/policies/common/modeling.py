"""What the policies have in common: a foundation VLA with its labels, loading and saving, and the queue of actions.

Shapes: b batch, h chunk steps, a action dimensions, r state values.
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
from torch import Tensor, nn

from hlrp.foundation.backends import FoundationLoss
from hlrp.foundation.batch import FoundationBatch, are_pixels, require_finite
from hlrp.foundation.checkpoint import (
    ASSETS_DIR,
    DESCRIPTION_FILE,
    FoundationDescription,
    read_description,
    write_assets,
)
from hlrp.foundation.lightning_weights import SUFFIX
from hlrp.optimization import parameter_groups

from .action_labels import ActionLabels
from .configuration import HLRPConfig
from .features import keep_used_features
from .label_table import LabelTable
from .labels import LabelSource
from .masks import action_target, masked_mean, mean_over_steps, to_floats
from .observations import current, foundation_batch, one_value_per_sample
from .online_teacher import OnlineTeacher
from .processors import require_float_step
from .run_episodes import frames_of_run
from .statistics import use_statistics_of_run
from .vla import new_vla, saved_vla

logger = logging.getLogger(__name__)

_LANGUAGE_PROJECTIONS = r"backend\.model\..*(language_model|text_model)\..*\.(q|k|v|o|gate|up|down)_proj"
"""Linear layers of the VLM's language model, by name."""


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
        "FlowBlock",
        "DiffusionConditionalResidualBlock1d",
    )
    action_modules: tuple[str, ...] = ()
    """Parts that turn codes or features into actions."""
    supports_gradient_checkpointing = True
    chunk_ends_with_label = False
    """Whether actions come from codes alone, which say nothing of what follows the frames they span."""
    state_option = "expert_uses_state"
    """Name of the option by which a policy does without the robot's state."""

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
            dataset_meta: Metadata of the dataset trained on; None outside training. Its statistics of action and state
                are replaced where they are not those of the frames that teach; see `use_statistics_of_run`.
            checkpoint_dir: Folder this policy is being loaded from; its weights follow.
        """
        super().__init__(config)
        keep_used_features(config, dataset_meta, state_option=self.state_option)
        config.validate_features()
        self._checkpoint_dir = checkpoint_dir
        folder = checkpoint_dir or config.vla_checkpoint_path
        is_lightning = checkpoint_dir is None and str(folder).endswith(SUFFIX)
        saved = None if folder is None or is_lightning else read_description(folder)
        fps = None if dataset_meta is None else float(dataset_meta.fps)
        self.labels = None if fps is None or not self.needs_labels else self._find_labels(dataset_meta, fps, saved)
        self.action_labels = None if dataset_meta is None else self._find_action_labels(dataset_meta)
        if saved is None:
            self.backend = new_vla(config, None if self.labels is None else self.labels.spec, lightning=folder)
        else:
            config.laq_fingerprint = self._same_laq(saved.laq_fingerprint, str(folder))
            self.backend = saved_vla(config, str(folder), saved, with_weights=checkpoint_dir is None)
        if config.freeze_vla:
            self.backend.requires_grad_(False)
        self._check_compatibility(fps)

    @property
    def needs_labels(self) -> bool:
        """Whether training looks at latent labels."""
        return True

    @property
    def actions_need_codes(self) -> bool:
        """Whether an action can be learnt only where the frame has latent codes."""
        return False

    @property
    def action_dim(self) -> int:
        """Action dimensions a."""
        assert self.config.action_feature is not None, "checked with the features"
        return self.config.action_feature.shape[0]

    def _find_labels(self, dataset_meta: Any, fps: float, saved: FoundationDescription | None) -> LabelSource | None:
        if self.config.latent_targets == "online":
            return OnlineTeacher.of_config(self.config, fps=fps)
        with_vectors = saved is not None and saved.config.get("vector_loss_weight", 0) > 0
        return LabelTable.of_dataset(dataset_meta, self.config.latent_labels_path, with_vectors=with_vectors)

    def _find_action_labels(self, dataset_meta: Any) -> ActionLabels | None:
        """Which frames have an action to learn from; None where all of them do.

        Raises:
            ValueError: If none has, or a state of the run is not finite.
        """
        config = self.config
        if self._checkpoint_dir is not None:
            require_float_step(self._checkpoint_dir, dataset_meta)
        if not self._learns_codes and 0 in (config.labelled_fraction, config.action_loss_weight):
            raise ValueError(
                "this run learns neither actions nor latent codes; set labelled_fraction and action_loss_weight above "
                "0, or let the VLA learn codes with latent_loss_weight above 0 and freeze_vla=false"
            )
        in_run = frames_of_run(dataset_meta)
        labels = ActionLabels.of_dataset(
            dataset_meta,
            in_run,
            fraction=config.labelled_fraction,
            episodes=config.labelled_episodes,
            column=config.action_valid_column,
        )
        if self.actions_need_codes and self.labels is not None:
            labels.require_some_within_clips(dataset_meta, in_run, self.labels.spec)
        uses_state = OBS_STATE in (config.input_features or {})
        use_statistics_of_run(
            dataset_meta, in_run=in_run, known=labels.known, state_option=self.state_option if uses_state else None
        )
        taught = int((labels.known & in_run).sum())
        if taught < int(in_run.sum()):
            logger.info(f"{taught} of the {int(in_run.sum())} frames of this run have an action to learn from")
        return None if labels.known.all() else labels

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
            config.laq_fingerprint = self._same_laq(self.labels.laq_fingerprint, "whoever labels this dataset")
            spec.require_same_codes(self.labels.spec, this="the foundation model", that="the latent labels")
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

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """Adapters on the VLM's language model; what turns codes or features into actions is trained as it is."""
        saved = [name for part in self.action_modules for name in self._trained_whole(part)]
        return {"target_modules": _LANGUAGE_PROJECTIONS, "modules_to_save": saved}

    def _trained_whole(self, name: str) -> list[str]:
        """A part of the policy if all of it is trained, else those of its own parts of which that is true."""
        part = self.get_submodule(name)
        trained = [parameter.requires_grad for parameter in part.parameters()]
        if not any(trained):
            return []
        if all(trained) and not isinstance(part, nn.ModuleList):  # PEFT does not wrap a list
            return [name]
        return [found for child, _ in part.named_children() for found in self._trained_whole(f"{name}.{child}")]

    def _validate_peft_config(self, peft_config: Any) -> None:
        super()._validate_peft_config(peft_config)
        if self.config.freeze_vla:
            raise ValueError("adapters on a frozen VLA would learn nothing; set --policy.freeze_vla=false")

    def _compile(self) -> None:
        """Compile the repeated blocks in place, where that is asked for; names of weights stay."""
        if not self.config.compile_model:
            return
        for module in self.modules():
            if type(module).__name__ in self._fsdp_wrap_modules:
                module.compile(mode=self.config.compile_mode)

    def get_optim_params(self) -> list[dict[str, object]]:
        """Matrices with weight decay, vectors without."""
        return parameter_groups(self, self.config.optimizer_weight_decay)

    def reset(self) -> None:
        """Forget the actions still to be executed."""
        self._action_queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    def train(self, mode: bool = True) -> "HLRPPolicy":
        """Training mode; a frozen VLA stays as it acts."""
        super().train(mode)
        if self.config.freeze_vla:
            self.backend.eval()
        return self

    def _see(self, batch: dict[str, Any], **labels: Any) -> FoundationBatch:
        """What the VLA is shown of a batch: frames at t, instructions, and in training the labels."""
        return foundation_batch(batch, self.config.image_features, instruction=self.config.instruction, **labels)

    def _see_to_act(self, batch: dict[str, Any]) -> FoundationBatch:
        """The same at inference; labels are not looked at.

        Raises:
            ValueError: If a pixel is not finite.
        """
        inputs = self._see(batch)
        require_finite(inputs.images)
        return inputs

    @property
    def _learns_codes(self) -> bool:
        """Whether the VLA is trained to predict codes here."""
        return self.config.latent_loss_weight > 0 and not self.config.freeze_vla

    def _actions_known(self, batch: dict[str, Any]) -> Bool[Tensor, " b"]:
        """Which samples have an action to learn from: that of frame t is known."""
        if self.action_labels is None:
            return torch.ones(len(batch[ACTION]), dtype=torch.bool, device=batch[ACTION].device)
        return self.action_labels.lookup(batch["index"], 1)[:, 0]

    def _is_pad(self, batch: dict[str, Any]) -> Bool[Tensor, "b h"] | None:
        """Steps of the chunk that are not learnt: beyond the episode, and all from the first unknown action on."""
        is_pad = batch.get(f"{ACTION}_is_pad")
        if self.action_labels is None:
            return is_pad
        unknown = ~self.action_labels.lookup(batch["index"], batch[ACTION].shape[1])
        return (unknown if is_pad is None else unknown | is_pad).cumsum(1) > 0

    def _target(self, batch: dict[str, Any], taught: Bool[Tensor, " b"]) -> Float[Tensor, "b h a"]:
        """Actions to learn; see `action_target`."""
        actions = batch[ACTION]
        if actions.ndim == 2 and self.action_dim == 1:  # LeRobot stores an action of one value as a plain number
            actions = actions[..., None]
        return action_target(actions, self._is_pad(batch), taught)

    def _over_steps(
        self, error: Float[Tensor, "b h"], batch: dict[str, Any], taught: Bool[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Error of each sample; see `mean_over_steps`."""
        return mean_over_steps(error, self._is_pad(batch), taught)

    def _add_up(
        self,
        inputs: FoundationBatch,
        *,
        reduction: str,
        latent: FoundationLoss | None,
        error: Float[Tensor, " b"],
        taught: Bool[Tensor, " b"],
        shares: dict[str, Float[Tensor, ""]] | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch and its parts as plain numbers, with one copy to the host.

        Args:
            inputs: What the VLA was shown.
            reduction: "mean", or "none" for a loss per sample.
            latent: Loss of the codes, where they are learnt.
            error: Error of the actions.
            taught: Samples whose actions are learnt.
            shares: Further numbers for the log.

        Raises:
            ValueError: If a pixel is not finite, or the reduction unknown.
        """
        if reduction not in ("mean", "none"):
            raise ValueError(f"reduction must be mean or none, got {reduction!r}")
        config = self.config
        action_loss = masked_mean(error, taught)
        loss, per_sample = config.action_loss_weight * action_loss, config.action_loss_weight * error
        values = {"action_loss": action_loss, "action_share": taught.float().mean(), **(shares or {})}
        if latent is not None:
            loss = loss + config.latent_loss_weight * latent.loss
            per_sample = per_sample + config.latent_loss_weight * latent.per_sample
            values |= {
                "latent_loss": latent.loss,
                "code_accuracy": latent.accuracy.mean(),
                "labelled_share": latent.counted.float().mean(),
            }
        numbers = to_floats({**values, "are_pixels": are_pixels(inputs.images)})
        if not numbers.pop("are_pixels"):
            require_finite(inputs.images)
        return (per_sample if reduction == "none" else loss), numbers

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
            ValueError: If the batch has none, or at inference a value of it is not finite.
        """
        if OBS_STATE not in batch:
            raise ValueError(
                f"the batch lacks {OBS_STATE!r}, which this policy was trained with; train with --policy."
                f"{self.state_option}=false to do without"
            )
        state = batch[OBS_STATE]
        feature = self.config.robot_state_feature
        if feature is not None and feature.shape == (1,):
            state = one_value_per_sample(state, len(batch[next(iter(self.config.image_features))]))
        state = current(state, ndim=2)
        if not self.training and not bool(torch.isfinite(state).all()):
            raise ValueError(f"{OBS_STATE!r} holds NaN or infinite values; check the robot's sensors, or the dataset")
        return state
