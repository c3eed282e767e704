"""Statistics for the normalization of states and actions, computed over the finite frames that a run learns from.

LeRobot computes statistics over all frames: a single NaN action makes them NaN, and with them every loss.

Shapes: f frames.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool
from lerobot.configs import FeatureType, NormalizationMode
from lerobot.datasets.compute_stats import get_feature_stats
from lerobot.processor import rename_stats
from lerobot.utils.constants import ACTION, OBS_STATE
from torch import Tensor

from hlrp.data.dataset import read_vectors

from .configuration import HLRPConfig
from .run_settings import columns_by_name, rename_map

logger = logging.getLogger(__name__)


def use_statistics_of_run(
    dataset_meta: Any, *, in_run: Bool[Tensor, " f"], known: Bool[Tensor, " f"], state_option: str | None
) -> None:
    """Correct the statistics in `dataset_meta.stats`, from which LeRobot builds the pipelines afterwards.

    They get the names that `rename_map` gives to the data, which LeRobot renames before it normalizes them. Action
    statistics are recomputed over frames with a known action if some actions are unknown. State statistics are
    recomputed if they are missing or not finite, as in a dataset that was repaired by hand.

    Args:
        dataset_meta: Metadata of the dataset; its `stats` are modified in place.
        in_run: Frames of the episodes that the run uses.
        known: Frames whose action is known.
        state_option: Name of the option that turns the state off; None if the policy does not use the state.

    Raises:
        ValueError: If a state of the run is not finite, or statistics cannot be recomputed without local data.
    """
    _rename(dataset_meta)
    labelled = known & in_run
    if not (known[in_run].all() and _are_finite(dataset_meta, ACTION)):
        _recompute(dataset_meta, ACTION, labelled if labelled.any() else in_run, column=ACTION)
    column = columns_by_name(dataset_meta).get(OBS_STATE)
    if state_option is None or column is None:
        return
    states = read_vectors(dataset_meta, column)
    if states is not None:
        wrong = (in_run & ~states.isfinite().all(1)).nonzero()[:, 0]
        if len(wrong):
            raise ValueError(
                f"{column!r} is NaN or infinite in {len(wrong)} of the {int(in_run.sum())} frames of this run "
                f"(first at index {int(wrong[0])}), and a policy cannot act on it; remove those episodes with "
                "lerobot-edit-dataset --operation.type=delete_episodes or leave them out with --dataset.episodes, or "
                f"train without the state: --policy.{state_option}=false"
            )
    if not _are_finite(dataset_meta, OBS_STATE):
        _recompute(dataset_meta, OBS_STATE, in_run, column=column)


def require_statistics(config: HLRPConfig, dataset_meta: Any) -> None:
    """Check that LeRobot can normalize the state and the action; it passes on unchanged what has no statistics.

    Raises:
        ValueError: If the dataset has no statistics of one that is normalized.
    """
    for key in _normalized(config):
        if not dataset_meta.stats.get(key):
            raise ValueError(
                f"the dataset has no statistics of {key!r}, and LeRobot would pass its values on without "
                "normalization; map the column that holds it with --rename_map, or do without the state: "
                f"--policy.{config.state_option}=false"
            )


def require_finite_statistics(config: HLRPConfig, stats: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Refuse statistics that would turn normalized states or actions into NaN.

    Raises:
        ValueError: If statistics of the state or the action are not finite.
    """
    for key in _normalized(config):
        values = (stats or {}).get(key, {})
        wrong = [name for name, value in values.items() if not np.isfinite(np.asarray(value, dtype=float)).all()]
        if wrong:
            raise ValueError(
                f"the statistics of {key!r} are not finite ({', '.join(wrong)}): some frames of the dataset hold NaN "
                "or infinity there; build the policy before its processors with dataset_meta=dataset.meta, which puts "
                "the statistics of the finite frames into dataset.meta.stats"
            )


def _normalized(config: HLRPConfig) -> list[str]:
    """Which of the state and the action the policy uses, and LeRobot normalizes by statistics."""
    used = {**(config.input_features or {}), **(config.output_features or {})}
    modes = {
        key: config.normalization_mapping.get(kind.value, NormalizationMode.IDENTITY)
        for key, kind in ((OBS_STATE, FeatureType.STATE), (ACTION, FeatureType.ACTION))
    }
    return [key for key, mode in modes.items() if key in used and mode is not NormalizationMode.IDENTITY]


def _rename(dataset_meta: Any) -> None:
    """Rename the statistics by `rename_map`, in place."""
    if dataset_meta.stats is None:  # the dataset has no meta/stats.json
        dataset_meta.stats = {}
    renamed = rename_stats(dataset_meta.stats, rename_map())
    dataset_meta.stats.clear()
    dataset_meta.stats.update(renamed)


def _are_finite(dataset_meta: Any, key: str) -> bool:
    stats = (dataset_meta.stats or {}).get(key, {})
    return "mean" in stats and all(np.isfinite(np.asarray(value)).all() for value in stats.values())


def _recompute(dataset_meta: Any, key: str, rows: Bool[Tensor, " f"], *, column: str) -> None:
    values = read_vectors(dataset_meta, column)
    if values is None:
        if _are_finite(dataset_meta, key):
            return  # LeRobot's statistics over all frames; better ones need the data
        raise ValueError(
            f"the statistics of {column!r} in meta/stats.json are not finite, and the data to compute them again is "
            "not on this disk; train from a local copy of the dataset"
        )
    rows = rows & values.isfinite().all(1)
    if not rows.any():
        raise ValueError(f"{column!r} is NaN or infinite in every frame of this run, and a policy needs its range")
    logger.info(f"normalizing {column!r} by the statistics of {int(rows.sum())} of {len(rows)} frames")
    dataset_meta.stats[key] = get_feature_stats(values[rows].numpy(), axis=0, keepdims=False)
