"""Base class of all policies: building, loading, saving, inputs and losses, and the action queue."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from jaxtyping import Bool, Float, Int, UInt8
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from hlrp.experts.registry import block_names
from hlrp.foundation.backends import FoundationLoss
from hlrp.foundation.batch import FoundationBatch, require_finite
from hlrp.foundation.checkpoint import ASSETS_DIR, DESCRIPTION_FILE, write_assets
from hlrp.report.cards.parts import license_entries
from hlrp.storage.artefacts import COPY_AGAIN, follow_umask
from hlrp.storage.safetensors_header import sort_metadata
from hlrp.training.optimization import parameter_groups
from hlrp.training.step_noise import noise_of_step

from .action_target import ActionTarget
from .adapters import adapts_vla, default_peft_targets
from .card import base_model, finished, safe_metadata, trained_on
from .configuration import HLRPConfig
from .features import keep_used_features
from .fine_tuning import (
    changes,
    compare,
    follow_dataset,
    follow_run,
    load_kept,
    require_loadable_adapter,
    require_new_layers,
    require_no_other_vla,
    saved_settings,
    steps_of_resumed_run,
)
from .imagination import Imagination, as_video
from .labelled_batches import IdleSteps
from .losses import total_loss
from .observations import foundation_batch
from .robot_state import robot_state
from .run_settings import is_resumed
from .saved_files import require_saved_weights, saved_config
from .saved_processors import require_safe_pipelines
from .setup import build_parts
from .weight_names import follow_saved_expert, rename_weights


def training_step[Forward: Callable[..., Any]](forward: Forward) -> Forward:
    """Decorator for a policy's `forward`: in training, its random numbers are those of the step (`noise_of_step`)."""

    @wraps(forward)
    def run(self: "HLRPPolicy", *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return forward(self, *args, **kwargs)
        if self._seed is None:
            self._seed = torch.initial_seed()
        step, self._step = self._step, self._step + 1
        with noise_of_step(self._seed, step, device=self.backend.draws.device):
            return forward(self, *args, **kwargs)

    return cast(Forward, run)


class HLRPPolicy(PreTrainedPolicy):
    """Policy with a foundation VLA; a subclass adds the action head, the part that predicts actions."""

    config_class = HLRPConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPConfig
    name = "hlrp"  # pyright: ignore[reportAssignmentType]
    action_modules: tuple[str, ...] = ()
    """Names of the submodules that map codes or features to actions: the action head."""
    supports_gradient_checkpointing = True

    def __init__(
        self,
        config: HLRPConfig,
        dataset_stats: dict[str, Any] | None = None,
        dataset_meta: Any | None = None,
        *,
        checkpoint_dir: Path | None = None,
        saved: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Build VLA, labels and action head.

        A subclass repeats `config` with its own type, which LeRobot's conventions ask for, and passes everything on.

        Args:
            config: Configuration of the policy; unset values are filled in.
            dataset_stats: Ignored, because the processors normalize the data; LeRobot passes it to every policy.
            dataset_meta: Metadata of the training dataset; None outside training. Its statistics of action and state
                may be replaced by those of the frames that are learned; see `use_statistics_of_run`.
            checkpoint_dir: Folder of the saved policy that is being loaded; its weights are loaded afterwards.
            saved: Configuration in `checkpoint_dir`, as plain values.
            **kwargs: Further arguments of LeRobot, which are ignored.
        """
        super().__init__(config)
        keep_used_features(config, dataset_meta, state_option=config.state_option)
        config.validate_features()
        self._checkpoint_dir, self._saved = checkpoint_dir, saved or {}
        self._is_trained = dataset_meta is not None
        self._idle_steps = IdleSteps()
        self._seed: int | None = None  # seed of the run, known from its first training step on
        self._step = 0  # training steps of the run so far
        parts = build_parts(config, dataset_meta, checkpoint_dir)
        self.backend, self.labels, self.action_labels = parts.backend, parts.labels, parts.action_labels
        self._build_head(dataset_meta)
        self._imagination = Imagination.of_config(config) if config.save_predicted_video else None
        self.last_predicted_latents: Float[Tensor, "b 3 1 y x"] | None = None
        self.register_load_state_dict_pre_hook(rename_weights)
        self._compile()
        self.reset()

    @abstractmethod
    def _build_head(self, dataset_meta: Any | None) -> None:
        """Build the submodules in `action_modules`; VLA and labels exist already.

        Args:
            dataset_meta: Metadata of the training dataset; None outside training.
        """

    @property
    def _fsdp_wrap_modules(self) -> tuple[str, ...]:
        """Class names of the layers that VLA and action experts repeat, which FSDP shards one by one."""
        return (*self.backend.repeated_blocks, *block_names())

    def _compile(self) -> None:
        """Compile the repeated blocks in place, if `compile_model` is true; weight names do not change."""
        if not self.config.compile_model:
            return
        for module in self.modules():
            if type(module).__name__ in self._fsdp_wrap_modules:
                module.compile(mode=self.config.compile_mode)

    @property
    def action_dim(self) -> int:
        """Action dimensions a."""
        assert self.config.action_feature is not None, "checked with the features"
        return self.config.action_feature.shape[0]

    @property
    def chunk_size(self) -> int:
        """Actions predicted at once, h."""
        assert self.config.chunk_size is not None, "settled when the policy was built"
        return self.config.chunk_size

    # ---- Loading and saving ----

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: HLRPConfig | None = None, **kwargs: Any
    ) -> "HLRPPolicy":
        """Load a saved policy; a local folder needs no network.

        All weights must fit. Only in training, layers of the action head whose shapes do not fit the dataset's actions,
        state or cameras are started anew, with a warning in the log, and steps count from 0 unless a run is resumed.

        Args:
            pretrained_name_or_path: Folder, or name of a repository on the hub.
            config: Configuration to use; None for the saved one.
            **kwargs: Arguments of LeRobot: access to the hub, `dataset_stats` and `dataset_meta`.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If `config` has another policy type or VLA, a file is damaged, or weights do not fit.
        """
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    str(pretrained_name_or_path),
                    revision=kwargs.get("revision"),
                    cache_dir=kwargs.get("cache_dir"),
                    token=kwargs.get("token"),
                    allow_patterns=[CONFIG_NAME, DESCRIPTION_FILE, f"{ASSETS_DIR}/*", "policy_*processor*"],
                )
            )
        saved = saved_settings(folder)
        require_safe_pipelines(folder)
        steps = 0
        if config is None:
            config = saved_config(folder, str(cls.name))
        else:
            require_no_other_vla(config, saved, folder)
            require_loadable_adapter(config)
            if kwargs.get("dataset_meta") is not None:
                follow_dataset(config, kwargs["dataset_meta"])
                follow_run(config, folder)
                steps = steps_of_resumed_run(config)
        kwargs["strict"] = True
        policy = super().from_pretrained(
            pretrained_name_or_path, config=config, checkpoint_dir=folder, saved=saved, **kwargs
        )
        policy._step = steps
        if policy._is_trained and (policy.config.use_peft or not is_resumed()):
            policy._count_steps(steps)  # an adapter holds no buffers, and those loaded are from before the run
        return policy

    def _count_steps(self, steps: int) -> None:
        """Count the `steps` that this run has done in the buffers that count steps; their values are from before it."""
        self.backend.draws += steps

    @classmethod
    def _load_as_safetensor(cls, model: "HLRPPolicy", model_file: str, map_location: str, strict: bool) -> "HLRPPolicy":
        """Load the weights of a saved policy; see `from_pretrained`."""
        require_saved_weights(model._checkpoint_dir, model_file)
        follow_saved_expert(getattr(model, "expert", None), model_file)
        comparison = compare(model, model_file, model.saved_name)
        differences = changes(model._saved, model.config)
        parts = {name.split(".")[0] for name in (*comparison.anew, *comparison.dropped)}
        if comparison.is_exact or not differences or not parts <= set(model.action_modules):
            try:
                return super()._load_as_safetensor(model, model_file, map_location, strict)
            except RuntimeError as error:  # weights of other names or sizes
                reason = " ".join(str(error).split())[:200]
                raise ValueError(
                    f"the weights in {model_file} do not fit the policy that its {CONFIG_NAME} describes ({reason}); "
                    f"{COPY_AGAIN}"
                ) from error
        if parts:
            folder = model._checkpoint_dir
            assert folder is not None, "weights are loaded from a saved policy"
            where = f"the policy in {folder} differs from the one asked for ({'; '.join(differences)})"
            require_new_layers(model, model.config, comparison, where, folder=folder, is_trained=model._is_trained)
        load_kept(model, model_file, comparison.source, device=map_location)
        return model

    def saved_name(self, name: str) -> str | None:
        """Name in the saved policy of the weight `name`; None if the saved policy cannot have it."""
        return name

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        super()._save_pretrained(save_directory, **kwargs)
        sort_metadata(save_directory / SAFETENSORS_SINGLE_FILE)
        follow_umask(save_directory / SAFETENSORS_SINGLE_FILE)
        # The folder of a policy is a foundation checkpoint, too: others who take its VLA need to know what it sees.
        extra = {"cameras": self.config.cameras_of_vla}
        write_assets(self.backend, save_directory, laq_fingerprint=self.config.laq_fingerprint or "", extra=extra)

    def generate_model_card(
        self,
        dataset_repo_id: str,
        model_type: str,
        license: str | None,
        tags: list[str] | None,
        cfg: Any | None = None,
        dataset_meta: Any | None = None,
    ) -> ModelCard:
        """LeRobot's model card, with the sources, base model and licence of this policy; see `card.py`."""
        name = trained_on(cfg, dataset_repo_id)
        base = base_model(self.config.vla_checkpoint_path, self.backend.config_dict().get("model_name"))
        terms = license_entries(license, base)
        card = super().generate_model_card(
            dataset_repo_id, model_type, terms["license"], tags, cfg=cfg, dataset_meta=safe_metadata(dataset_meta, name)
        )
        return finished(card, name=name, terms=terms, base_model=base)

    # ---- Training ----

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer: weight matrices with weight decay, biases and norms without; the action
        head in groups of its own if it has another learning rate."""
        groups = parameter_groups(self, self.config.optimizer_weight_decay)
        if self.config.optimizer_lr_action is None:
            return groups
        parts = (getattr(self, name, None) for name in self.action_modules)
        of_head = {id(value) for part in parts if part is not None for value in part.parameters()}
        split = []
        for group in groups:
            head = [value for value in group["params"] if id(value) in of_head]
            others = [value for value in group["params"] if id(value) not in of_head]
            split += [{**group, "params": others}, {**group, "params": head, "lr": self.config.optimizer_lr_action}]
        return [group for group in split if group["params"]]

    def train(self, mode: bool = True) -> "HLRPPolicy":
        """Set training or evaluation mode; a frozen VLA stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze_vla:
            self.backend.eval()
        return self

    def _get_default_peft_targets(self) -> dict[str, Any]:
        return default_peft_targets(self, self.backend.lora_targets, self.action_modules)

    def _validate_peft_config(self, peft_config: Any) -> None:
        super()._validate_peft_config(peft_config)
        if self.config.freeze_vla:
            raise ValueError("adapters on a frozen VLA would learn nothing; set --policy.freeze_vla=false")
        if not adapts_vla(self, peft_config):
            return
        if self.config.freeze_vla_backbone:
            raise ValueError(
                "freeze_vla_backbone trains no weight of the VLM, and these adapters train some; set "
                "--policy.freeze_vla_backbone=false"
            )
        if not (self.config.learns_codes or self.config.actions_teach_vla):
            raise ValueError(
                "adapters on a VLA without a loss would learn nothing; set --policy.latent_loss_weight above 0"
            )

    def _action_target(self, batch: dict[str, Any], codes_counted: Bool[Tensor, " b"] | None = None) -> ActionTarget:
        """Target actions of a training batch; only of the samples in `codes_counted`, if it is given."""
        return ActionTarget.of_batch(
            batch,
            self.action_labels,
            chunk_size=self.chunk_size,
            action_dim=self.action_dim,
            codes_counted=codes_counted,
        )

    def _total_loss(
        self,
        inputs: FoundationBatch,
        *,
        reduction: str,
        latent: FoundationLoss | None,
        error: Float[Tensor, "b h"],
        target: ActionTarget,
        shares: dict[str, Float[Tensor, ""]] | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the losses, given the action error of every chunk step; see `total_loss`."""
        loss, numbers = total_loss(
            self.config,
            inputs,
            reduction=reduction,
            latent=latent,
            error=target.mean(error),
            counted=target.counted,
            shares=shares,
        )
        # A loss without gradients is no step of a training; hlrp-check-leak computes many, with labels that it changes.
        if self.training and torch.is_grad_enabled():
            learns_actions = numbers["action_share"] > 0 and self.config.learns_actions
            self._idle_steps.count(learned=learns_actions or numbers.get("code_share", 0) > 0)
        return loss, numbers

    # ---- Inputs and actions ----

    def _vla_inputs(self, batch: dict[str, Any], **labels: Any) -> FoundationBatch:
        """Input of the VLA: frames at t, instructions, and in training the labels."""
        size = self.backend.config.image_size
        return foundation_batch(
            batch, self.config.cameras_of_vla, size=size, instruction=self.config.instruction, **labels
        )

    def _inference_inputs(self, batch: dict[str, Any]) -> FoundationBatch:
        """Input of the VLA at inference, without labels, and with a check of the pixels.

        Raises:
            ValueError: If a pixel is not finite or far outside [0, 1].
        """
        inputs = self._vla_inputs(batch)
        require_finite(inputs.images)
        return inputs

    def _state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"] | None:
        """Normalized state of the robot at time t, checked at inference; None if the action head gets no state."""
        if self.config.state_dim is None:
            return None
        return robot_state(batch, self.config, check_finite=not self.training)

    def _imagine(self, batch: dict[str, Any], inputs: FoundationBatch, codes: Int[Tensor, "b q"] | None = None) -> None:
        """With `save_predicted_video`, draw the frames to which the codes lead, and keep them where LeRobot looks.

        Args:
            batch: Observations at time t.
            inputs: The same as input of the VLA.
            codes: The predicted codes; None if this policy predicts none for its actions, so that they are predicted
                for the picture alone.
        """
        if self._imagination is not None:
            codes = self.backend.predict(inputs).codes if codes is None else codes
            self.last_predicted_latents = self._imagination.pairs(batch, codes)

    def decode_predicted_latents(self, pairs: Float[Tensor, "b 3 p y x"]) -> UInt8[Tensor, "_ y _ 3"]:
        """Frames of a video of what `_imagine` kept in one episode, at the episode's speed; lerobot-eval calls this."""
        return as_video(pairs, repeats=self.config.n_action_steps or 1)

    def reset(self) -> None:
        """Discard the queued actions; LeRobot calls this at the start of every episode."""
        self._action_queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """The next action (b, a) from a queue, which `n_action_steps` actions of a new chunk fill when it is empty."""
        if not self._action_queue:
            chunk = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            self._action_queue.extend(chunk.unbind(1))
        return self._action_queue.popleft()
