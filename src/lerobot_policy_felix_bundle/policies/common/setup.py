"""Parts that every policy is built from: the foundation VLA, latent labels and known actions, checked together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from lerobot.utils.constants import OBS_STATE
from torch import Tensor

from hlrp.data.frame_rows import require_sound_rows
from hlrp.foundation.backends import FoundationBackend
from hlrp.foundation.checkpoint import FOUNDATION_FOLDER, FoundationDescription, read_description
from hlrp.foundation.lightning_weights import SUFFIX
from hlrp.laq.checkpoint import load_laq
from hlrp.storage.hub import fetch_folder
from hlrp.training.optimization import learn_in_float32

from .action_labels import ActionLabels
from .configuration import HLRPConfig
from .geometry import settle_geometry, settle_laq
from .label_table import LabelTable, own_labels_first
from .labelled_batches import fill_batches, frames_with_codes, least_labelled_share
from .labels import LabelSource
from .online_teacher import OnlineTeacher
from .processors import require_float_step
from .run_episodes import frames_of_run
from .statistics import require_statistics, use_statistics_of_run
from .vla import needs_vectors, new_vla, saved_vla
from .vla_cameras import settle_vla_cameras
from .window_reads import read_columns_alone


@dataclass(frozen=True)
class PolicyParts:
    """Parts that every policy is built from."""

    backend: FoundationBackend
    """The foundation VLA."""
    labels: LabelSource | None
    """Source of latent labels; None outside training, and if training needs none."""
    action_labels: ActionLabels | None
    """Mask of the frames with a known action; None outside training, and if every frame has one."""


def build_parts(config: HLRPConfig, dataset_meta: Any | None, checkpoint_dir: Path | None) -> PolicyParts:
    """Find the labels of a run and build the VLA; the weights of a saved policy are loaded later.

    Args:
        config: Configuration of the policy; unset values are filled in.
        dataset_meta: Metadata of the training dataset; None outside training. Its statistics of action and state may
            be replaced by those of the frames that are learned; see `use_statistics_of_run`.
        checkpoint_dir: Folder of the saved policy that is being loaded.

    Raises:
        ValueError: If options, labels, dataset and VLA do not fit each other.
    """
    if dataset_meta is not None:
        config.require_effect()
        # Labels and actions are looked up by the column `index`, so it must count the frames from 0.
        require_sound_rows(dataset_meta, whole=False, tolerance_s=None)
    folder = checkpoint_dir or config.vla_checkpoint_path
    if folder is not None and not _is_lightning(config, checkpoint_dir):
        folder = fetch_folder(folder, FOUNDATION_FOLDER)
    vla = None if folder is None or _is_lightning(config, checkpoint_dir) else read_description(folder)
    trained: list[str] = []
    if vla is not None and checkpoint_dir is None:  # the configuration of a saved policy says what its VLA sees
        dataset = None if dataset_meta is None else dataset_meta.repo_id
        trained = vla.cameras_in(config.image_features, dataset=dataset)
    settle_vla_cameras(config, trained)
    labels = action_labels = None
    if dataset_meta is not None:
        if config.needs_labels:
            labels = _find_labels(config, dataset_meta, vla, checkpoint_dir)
        action_labels = _find_action_labels(config, dataset_meta, labels, checkpoint_dir)
    backend = _build_vla(
        config,
        folder,
        vla,
        labels,
        is_saved=checkpoint_dir is not None,
        is_training=dataset_meta is not None,
    )
    if config.freeze_vla:
        backend.requires_grad_(False)
    if dataset_meta is not None:
        learn_in_float32(backend)
    fps = None if dataset_meta is None else float(dataset_meta.fps)
    settle_geometry(config, backend.spec, labels, fps=fps, is_saved=checkpoint_dir is not None)
    return PolicyParts(backend, labels, action_labels)


def _is_lightning(config: HLRPConfig, checkpoint_dir: Path | None) -> bool:
    return checkpoint_dir is None and str(config.vla_checkpoint_path).endswith(SUFFIX)


def _build_vla(
    config: HLRPConfig,
    folder: Path | str | None,
    vla: FoundationDescription | None,
    labels: LabelSource | None,
    *,
    is_saved: bool,
    is_training: bool,
) -> FoundationBackend:
    """Build the VLA: from a foundation checkpoint, or a new one.

    Raises:
        ValueError: If actions would follow the codes of a VLA that has never learned codes and does not learn them in
            this run, or if the VLA has codes of another LAQ.
    """
    spec = None if labels is None else labels.spec
    if not is_saved and config.laq_checkpoint_path and config.latent_targets != "online":
        laq = load_laq(config.laq_checkpoint_path)
        settle_laq(config, laq.fingerprint, config.laq_checkpoint_path)
        spec = spec or laq.model.spec
    if vla is None:
        if is_training and folder is None and config.actions_need_codes and not config.learns_codes:
            raise ValueError(
                f"the actions of {config.type} follow codes that the VLA predicts, and a VLA that never learned codes "
                "would stay as it is in this run; name a trained one with --policy.vla_checkpoint_path, or train it "
                "with --policy.freeze_vla=false and latent_loss_weight above 0"
            )
        return new_vla(config, spec, lightning=folder)
    settle_laq(config, vla.laq_fingerprint, str(folder))
    return saved_vla(config, str(folder), vla, with_weights=not is_saved)


def _find_labels(
    config: HLRPConfig, dataset_meta: Any, vla: FoundationDescription | None, checkpoint_dir: Path | None
) -> LabelSource | None:
    if config.latent_targets == "online":
        return OnlineTeacher.of_config(config, fps=float(dataset_meta.fps))
    with_vectors = needs_vectors(config, vla)
    if checkpoint_dir is not None:
        config.latent_labels_path = own_labels_first(config.latent_labels_path, dataset_meta, checkpoint_dir)
    return LabelTable.of_dataset(dataset_meta, config.latent_labels_path, with_vectors=with_vectors)


def _find_action_labels(
    config: HLRPConfig, dataset_meta: Any, labels: LabelSource | None, checkpoint_dir: Path | None
) -> ActionLabels | None:
    """Mask of the frames with a known action, or None if every frame has one; also corrects the statistics.

    Raises:
        ValueError: If no frame has a known action, or a state of the run is not finite or has no statistics.
    """
    if checkpoint_dir is not None:
        require_float_step(checkpoint_dir, dataset_meta)
    if not config.learns_codes and 0 in (config.labelled_fraction, config.action_loss_weight):
        raise ValueError(
            "this run learns neither actions nor latent codes; set labelled_fraction and action_loss_weight above "
            "0, or let the VLA learn codes with latent_loss_weight above 0 and freeze_vla=false"
        )
    in_run = frames_of_run(dataset_meta)
    found = ActionLabels.of_dataset(
        dataset_meta,
        in_run,
        fraction=config.labelled_fraction,
        episodes=config.labelled_episodes,
        column=config.action_valid_column,
    )
    learnable = found.known  # frames whose action can be learned
    if config.actions_need_codes and labels is not None:
        with_codes = frames_with_codes(labels, dataset_meta)
        found.require_some_with_codes(in_run, with_codes, labels.spec)
        learnable = found.known & with_codes
    uses_state = OBS_STATE in (config.input_features or {})
    use_statistics_of_run(
        dataset_meta, in_run=in_run, known=found.known, state_option=config.state_option if uses_state else None
    )
    require_statistics(config, dataset_meta)
    _fill_batches(config, dataset_meta, in_run, found.known, learnable)
    read_columns_alone(dataset_meta)
    return None if found.known.all() else found


def _fill_batches(
    config: HLRPConfig,
    dataset_meta: Any,
    in_run: Bool[Tensor, " f"],
    known: Bool[Tensor, " f"],
    labelled: Bool[Tensor, " f"],
) -> None:
    """Ensure that every training batch has the share of labelled frames that `labelled_share` asks for."""
    all_known = bool(known[in_run].all())
    learns_codes = config.learns_codes and config.needs_labels
    share = least_labelled_share(config, learns_codes=learns_codes, all_known=all_known)
    fill_batches(dataset_meta, in_run=in_run, labelled=labelled, share=share, all_known=all_known)
