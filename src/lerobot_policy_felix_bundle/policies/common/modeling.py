"""Base class of all policies: foundation VLA, latent labels, action masks, loading, saving, and the action queue.

Shapes: b batch, h chunk steps, a action dimensions, r state values.
"""

import logging
from collections import deque
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from jaxtyping import Bool, Float
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor, nn

from hlrp.data.frame_rows import require_sound_rows
from hlrp.foundation.backends import FoundationLoss
from hlrp.foundation.batch import FoundationBatch, are_pixels, require_finite
from hlrp.foundation.checkpoint import (
    ASSETS_DIR,
    DESCRIPTION_FILE,
    FOUNDATION_FOLDER,
    FoundationDescription,
    read_description,
    write_assets,
)
from hlrp.foundation.lightning_weights import SUFFIX
from hlrp.laq.checkpoint import load_laq
from hlrp.report.cards.parts import license_entries
from hlrp.storage.artefacts import follow_umask
from hlrp.storage.hub import fetch_folder
from hlrp.training.optimization import learn_in_float32, parameter_groups
from hlrp.training.ranks import seed_by_rank

from .action_labels import ActionLabels
from .card import base_model, finished, safe_metadata, trained_on
from .configuration import HLRPConfig
from .features import keep_used_features
from .fine_tuning import (
    Comparison,
    changes,
    compare,
    follow_dataset,
    inherit_labelled,
    is_resumed,
    load_kept,
    require_in_adapter,
    require_no_other_vla,
    require_settings_of_run,
    saved_settings,
)
from .label_table import LabelTable, own_labels_first
from .labelled_batches import IdleSteps, fill_batches, frames_with_codes, least_labelled_share
from .labels import LabelSource
from .masks import action_target, masked_mean, mean_over_steps, to_floats
from .observations import current, foundation_batch, one_value_per_sample
from .online_teacher import OnlineTeacher
from .processors import require_float_step
from .run_episodes import frames_of_run
from .statistics import use_statistics_of_run
from .vla import new_vla, saved_vla

logger = logging.getLogger(__name__)

_CHUNK_WITHOUT_DATASET = 8
"""Chunk size if the option is None and there is no dataset whose frame rate would determine it."""
_LANGUAGE_PROJECTIONS = r"backend\.model\..*(language_model|text_model)\..*\.(q|k|v|o|gate|up|down)_proj"
"""Regular expression for the linear layers of the VLM's language model, which get PEFT adapters by default."""


class HLRPPolicy(PreTrainedPolicy):
    """Policy with a foundation VLA; a subclass adds the part that predicts actions."""

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
    """Names of the submodules that map codes or features to actions: the action head."""
    supports_gradient_checkpointing = True
    chunk_ends_with_label = False
    """Whether actions are decoded from codes alone, so that a chunk cannot be longer than the span of a label."""
    state_option = "expert_uses_state"
    """Name of the option that turns the robot's state off as an input."""

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
        """Load labels and build the VLA; a subclass builds the action head and then calls `reset`.

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
        keep_used_features(config, dataset_meta, state_option=self.state_option)
        config.validate_features()
        if dataset_meta is not None:
            config.require_effect()
            # Labels and actions are looked up by the column `index`, so it must count the frames from 0.
            require_sound_rows(dataset_meta, whole=False, tolerance_s=None)
        self._checkpoint_dir = checkpoint_dir
        self._saved = saved or {}
        self._is_trained = dataset_meta is not None
        folder = checkpoint_dir or config.vla_checkpoint_path
        is_lightning = checkpoint_dir is None and str(folder).endswith(SUFFIX)
        if folder is not None and not is_lightning:
            folder = fetch_folder(folder, FOUNDATION_FOLDER)
        vla = None if folder is None or is_lightning else read_description(folder)
        fps = None if dataset_meta is None else float(dataset_meta.fps)
        self.labels = None if fps is None or not self.needs_labels else self._find_labels(dataset_meta, fps, vla)
        self.action_labels = None if dataset_meta is None else self._find_action_labels(dataset_meta)
        spec = None if self.labels is None else self.labels.spec
        if checkpoint_dir is None and config.laq_checkpoint_path and config.latent_targets != "online":
            laq = load_laq(config.laq_checkpoint_path)
            config.laq_fingerprint = self._same_laq(laq.fingerprint, config.laq_checkpoint_path)
            spec = spec or laq.model.spec
        if vla is None:
            self.backend = new_vla(config, spec, lightning=folder)
        else:
            config.laq_fingerprint = self._same_laq(vla.laq_fingerprint, str(folder))
            self.backend = saved_vla(config, str(folder), vla, with_weights=checkpoint_dir is None)
        if config.freeze_vla:
            self.backend.requires_grad_(False)
        if dataset_meta is not None:
            learn_in_float32(self.backend)
        self._idle_steps = IdleSteps()
        self._seed: int | None = None  # seed of this process's random state, set in training
        self._check_compatibility(fps)

    @property
    def needs_labels(self) -> bool:
        """Whether training needs latent labels."""
        return True

    @property
    def actions_need_codes(self) -> bool:
        """Whether actions can be learned only on frames with latent codes."""
        return False

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

    def _find_labels(self, dataset_meta: Any, fps: float, vla: FoundationDescription | None) -> LabelSource | None:
        if self.config.latent_targets == "online":
            return OnlineTeacher.of_config(self.config, fps=fps)
        with_vectors = vla is not None and vla.config.get("vector_loss_weight", 0) > 0
        if self._checkpoint_dir is not None:
            self.config.latent_labels_path = own_labels_first(
                self.config.latent_labels_path, dataset_meta, self._checkpoint_dir
            )
        return LabelTable.of_dataset(dataset_meta, self.config.latent_labels_path, with_vectors=with_vectors)

    def _find_action_labels(self, dataset_meta: Any) -> ActionLabels | None:
        """Mask of the frames with a known action, or None if every frame has one; also corrects the statistics.

        Raises:
            ValueError: If no frame has a known action, or a state of the run is not finite.
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
        self._fill_batches(dataset_meta, in_run, labels.known)
        return None if labels.known.all() else labels

    def _fill_batches(self, dataset_meta: Any, in_run: Bool[Tensor, " f"], known: Bool[Tensor, " f"]) -> None:
        """See that every training batch has the share of labelled frames that `labelled_share` asks for."""
        all_known = bool(known[in_run].all())
        learns_codes = self._learns_codes and self.needs_labels
        share = least_labelled_share(self.config, learns_codes=learns_codes, all_known=all_known)
        labelled = known & frames_with_codes(self.labels, dataset_meta) if self.actions_need_codes else known
        fill_batches(dataset_meta, in_run=in_run, labelled=labelled, share=share, all_known=all_known)

    def _same_laq(self, fingerprint: str, owner: str) -> str | None:
        """Fingerprint of this policy's LAQ, checked against the `fingerprint` in `owner`; "" means unknown."""
        known = self.config.laq_fingerprint
        if known and fingerprint and known != fingerprint:
            raise ValueError(
                f"this policy uses codes of LAQ {known}, got LAQ {fingerprint} from {owner}; label the dataset with "
                "the same LAQ, or start a new policy"
            )
        return known or fingerprint or None

    def _check_compatibility(self, fps: float | None) -> None:
        config, spec = self.config, self.backend.spec
        for name in ("codebook_size", "code_seq_len"):
            mine, theirs = getattr(config, name), getattr(spec, name)
            if mine not in (None, theirs):
                raise ValueError(
                    f"--policy.{name}={mine}, but the LAQ of this run has {name}={theirs}; leave it out, or set "
                    f"--policy.{name}={theirs}"
                )
            setattr(config, name, theirs)
        if self.labels is not None:
            config.laq_fingerprint = self._same_laq(self.labels.laq_fingerprint, "the latent labels")
            spec.require_same_codes(self.labels.spec, this="the foundation model", that="the latent labels")
        self._settle_chunk(fps)

    def _settle_chunk(self, fps: float | None) -> None:
        """Set the chunk size from the option, from the span of a label at the dataset's frame rate, or to the default.

        Raises:
            ValueError: If a chunk is longer than the span of a label or than the window of actions that was loaded.
        """
        config, spec = self.config, self.backend.spec
        # A decoder from codes alone cannot predict beyond the span; other action heads accept any chunk size.
        is_free = config.chunk_size is not None and not self.chunk_ends_with_label
        if fps is None or is_free:
            config.settle_chunk(config.chunk_size or _CHUNK_WITHOUT_DATASET)
            return
        span = spec.offset_frames(fps) * spec.num_transitions
        window = len(config.action_delta_indices)
        if config.chunk_size is None and span > window:
            raise ValueError(
                f"a latent action spans {span} frames at {fps:g} fps, more than the {window} for which "
                f"chunk_size can be left out; set --policy.chunk_size={span} or less"
            )
        config.settle_chunk(config.chunk_size or span)
        if self.chunk_ends_with_label and self.chunk_size > span:
            or_not = "" if self._checkpoint_dir else "leave it out, or "  # a saved policy has its length already
            raise ValueError(
                f"chunk_size={self.chunk_size} is longer than the {span} frames a latent action spans at {fps:g} fps; "
                f"{or_not}set --policy.chunk_size={span} or less"
            )

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: HLRPConfig | None = None, **kwargs: Any
    ) -> "HLRPPolicy":
        """Load a saved policy; a local folder needs no network.

        All weights must fit. Only in training, layers of the action head whose shapes do not fit the dataset's actions,
        state or cameras are started anew, with a warning in the log.

        Args:
            pretrained_name_or_path: Folder, or name of a repository on the hub.
            config: Configuration to use; None for the saved one.
            **kwargs: Arguments of LeRobot: access to the hub, `dataset_stats` and `dataset_meta`.

        Raises:
            ValueError: If `config` has another policy type or VLA, or weights do not fit.
        """
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    str(pretrained_name_or_path),
                    revision=kwargs.get("revision"),
                    cache_dir=kwargs.get("cache_dir"),
                    token=kwargs.get("token"),
                    allow_patterns=[CONFIG_NAME, DESCRIPTION_FILE, f"{ASSETS_DIR}/*"],
                )
            )
        saved = saved_settings(folder)
        if config is not None:
            require_no_other_vla(config, saved, folder)
            if kwargs.get("dataset_meta") is not None:
                follow_dataset(config, kwargs["dataset_meta"])
                cls._follow_run(config, folder)
        kwargs["strict"] = True
        return super().from_pretrained(
            pretrained_name_or_path, config=config, checkpoint_dir=folder, saved=saved, **kwargs
        )

    @staticmethod
    def _follow_run(config: HLRPConfig, folder: Path) -> None:
        """Compare the settings of a training run with those saved where it starts: in `folder`, or with its adapter."""
        start = folder if config.pretrained_path is None else Path(config.pretrained_path)
        if not (start / CONFIG_NAME).is_file():
            start = folder
        check = require_settings_of_run if is_resumed() else inherit_labelled
        check(config, saved_settings(start), start)

    @classmethod
    def _load_as_safetensor(cls, model: "HLRPPolicy", model_file: str, map_location: str, strict: bool) -> "HLRPPolicy":
        """Load the weights of a saved policy; see `from_pretrained`."""
        comparison = compare(model, model_file, model.saved_name)
        differences = changes(model._saved, model.config)
        parts = {name.split(".")[0] for name in (*comparison.anew, *comparison.dropped)}
        if comparison.is_exact or not differences or not parts <= set(model.action_modules):
            return super()._load_as_safetensor(model, model_file, map_location, strict)
        if parts:
            model.require_new_layers(comparison, "; ".join(differences))
        load_kept(model, model_file, comparison.source, device=map_location)
        return model

    def saved_name(self, name: str) -> str | None:
        """Name in the saved policy of the weight `name`; None if the saved policy cannot have it."""
        return name

    def require_new_layers(self, comparison: Comparison, differences: str) -> None:
        """Log which layers are started anew, and the differences to the saved policy that cause this.

        Raises:
            ValueError: If the new layers would not be trained.
        """
        where = f"the policy in {self._checkpoint_dir} differs from the one asked for ({differences})"
        if self.config.use_peft:  # LeRobot loads these weights with the adapter
            require_in_adapter(comparison.anew, self.config, where)
            return
        if not self._is_trained:
            raise ValueError(
                f"{where}: layers for it are started anew only in training; fine-tune with lerobot-train --policy.path="
                f"{self._checkpoint_dir} on a dataset of this robot, and use the policy that comes out"
            )
        if is_resumed():
            raise ValueError(
                f"{where}, and a resumed run goes on as it was; fine-tune on the new data with --policy.path="
                f"{self._checkpoint_dir}"
            )
        frozen = sorted({name for name, p in self.named_parameters() if not p.requires_grad} - set(comparison.source))
        frozen = [name for name in frozen if not name.startswith("backend.")]
        if frozen:
            raise ValueError(
                f"{where}: {', '.join(frozen)} would be started anew and stay untrained; leave out "
                "--policy.freeze_decoder"
            )
        logger.warning(f"{where}: started anew are {comparison.summary()}; the VLA and everything else is kept")

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        super()._save_pretrained(save_directory, **kwargs)
        follow_umask(save_directory / SAFETENSORS_SINGLE_FILE)
        write_assets(self.backend, save_directory, laq_fingerprint=self.config.laq_fingerprint or "")

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

    def _get_default_peft_targets(self) -> dict[str, Any]:
        """Defaults for PEFT: adapters on the VLM's language model; the action head is trained in full."""
        saved = [name for part in self.action_modules for name in self._trained_whole(part)]
        return {"target_modules": _LANGUAGE_PROJECTIONS, "modules_to_save": saved}

    def _trained_whole(self, name: str) -> list[str]:
        """Largest submodules of `name`, or `name` itself, whose parameters are all trained."""
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
        """Compile the repeated blocks in place, if `compile_model` is true; weight names do not change."""
        if not self.config.compile_model:
            return
        for module in self.modules():
            if type(module).__name__ in self._fsdp_wrap_modules:
                module.compile(mode=self.config.compile_mode)

    def get_optim_params(self) -> list[dict[str, object]]:
        """Parameter groups for the optimizer: weight matrices with weight decay, biases and norms without."""
        return parameter_groups(self, self.config.optimizer_weight_decay)

    def reset(self) -> None:
        """Discard the queued actions; LeRobot calls this at the start of every episode."""
        self._action_queue: deque[Tensor] = deque(maxlen=self.config.n_action_steps)

    def train(self, mode: bool = True) -> "HLRPPolicy":
        """Set training or evaluation mode; a frozen VLA stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze_vla:
            self.backend.eval()
        if mode:
            self._seed = seed_by_rank(self._seed)
        return self

    def _see(self, batch: dict[str, Any], **labels: Any) -> FoundationBatch:
        """Input of the VLA: frames at t, instructions, and in training the labels."""
        return foundation_batch(batch, self.config.image_features, instruction=self.config.instruction, **labels)

    def _see_to_act(self, batch: dict[str, Any]) -> FoundationBatch:
        """Input of the VLA at inference, without labels, and with a check of the pixels.

        Raises:
            ValueError: If a pixel is not finite or far outside [0, 1].
        """
        inputs = self._see(batch)
        require_finite(inputs.images)
        return inputs

    @property
    def _learns_codes(self) -> bool:
        """Whether training updates the VLA with the loss on latent codes."""
        return self.config.latent_loss_weight > 0 and not self.config.freeze_vla

    def _actions_known(self, batch: dict[str, Any]) -> Bool[Tensor, " b"]:
        """Mask of the samples whose action at frame t is known; the others do not contribute to the action loss."""
        if self.action_labels is None:
            return torch.ones(len(batch[ACTION]), dtype=torch.bool, device=batch[ACTION].device)
        return self.action_labels.lookup(batch["index"], 1)[:, 0]

    def _is_pad(self, batch: dict[str, Any]) -> Bool[Tensor, "b h"] | None:
        """Mask of the chunk steps that are not learned: after the episode's end or after the first unknown action."""
        is_pad = batch.get(f"{ACTION}_is_pad")
        is_pad = None if is_pad is None else is_pad[:, : self.chunk_size]
        if self.action_labels is None:
            return is_pad
        unknown = ~self.action_labels.lookup(batch["index"], self.chunk_size)
        return (unknown if is_pad is None else unknown | is_pad).cumsum(1) > 0

    def _target(self, batch: dict[str, Any], taught: Bool[Tensor, " b"]) -> Float[Tensor, "b h a"]:
        """Normalized target actions of a chunk; see `action_target`."""
        actions = batch[ACTION]
        if actions.ndim == 2 and self.action_dim == 1:  # LeRobot omits the last axis of a one-dimensional action
            actions = actions[..., None]
        if actions.shape[1] < self.chunk_size:
            raise ValueError(
                f"the batch has {actions.shape[1]} actions of a sample, and chunk_size is {self.chunk_size}"
            )
        return action_target(actions[:, : self.chunk_size], self._is_pad(batch), taught)

    def _over_steps(
        self, error: Float[Tensor, "b h"], batch: dict[str, Any], taught: Bool[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Mean action error of each sample over its learned steps; see `mean_over_steps`."""
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
        """Weighted sum of the losses, and their values as plain numbers for the log, copied to the CPU in one transfer.

        Args:
            inputs: Input of the VLA; its pixels are checked here, so that the check needs no transfer of its own.
            reduction: "mean", or "none" for a loss per sample.
            latent: Loss on latent codes; None if they are not learned.
            error: Action error of each sample.
            taught: Samples whose actions are learned.
            shares: Further numbers for the log.

        Raises:
            ValueError: If a pixel is not finite, or `reduction` is unknown.
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
                "code_share": latent.counted.float().mean(),
            }
        numbers = to_floats({**values, "are_pixels": are_pixels(inputs.images)})
        if not numbers.pop("are_pixels"):
            require_finite(inputs.images)
        if self.training:
            actions = numbers["action_share"] > 0 and config.learns_actions
            self._idle_steps.count(learned=actions or numbers.get("code_share", 0) > 0)
        return (per_sample if reduction == "none" else loss), numbers

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """The next action (b, a) from a queue, which `n_action_steps` actions of a new chunk fill when it is empty."""
        if not self._action_queue:
            chunk = self.predict_action_chunk(batch)[:, : self.config.n_action_steps]
            self._action_queue.extend(chunk.unbind(1))
        return self._action_queue.popleft()

    def _current_state(self, batch: dict[str, Any]) -> Float[Tensor, "b r"]:
        """Normalized state of the robot at time t.

        Raises:
            ValueError: If the batch has no state or one of another width, or at inference a value is not finite.
        """
        if OBS_STATE not in batch:
            raise ValueError(
                f"the batch lacks {OBS_STATE!r}, which this policy was trained with; train with --policy."
                f"{self.state_option}=false to do without"
            )
        state, feature = batch[OBS_STATE], self.config.robot_state_feature
        if feature is not None and feature.shape == (1,):
            state = one_value_per_sample(state, len(batch[next(iter(self.config.image_features))]))
        state = current(state, ndim=2)
        if feature is not None and state.shape[1] != feature.shape[0]:
            raise ValueError(
                f"{OBS_STATE!r} has {state.shape[1]} values, and this policy was trained with {feature.shape[0]}; "
                "fine-tune it on data of this robot"
            )
        if not self.training and not bool(torch.isfinite(state).all()):
            raise ValueError(f"{OBS_STATE!r} holds NaN or infinite values; check the robot's sensors, or the dataset")
        return state
