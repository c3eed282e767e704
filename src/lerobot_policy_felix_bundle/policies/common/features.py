"""Choose and check the dataset features that a policy uses."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from lerobot.configs import FeatureType
from lerobot.utils.constants import ACTION, OBS_STATE

from .configuration import HLRPConfig
from .run_settings import columns_by_name

logger = logging.getLogger(__name__)


def keep_used_features(config: HLRPConfig, dataset_meta: Any | None, *, state_option: str) -> None:
    """Reduce `config.input_features` to what the policy uses: colour cameras, and `observation.state` if it is on.

    The pipelines are built from this configuration afterwards. Unused features must not reach the normalizer, which
    would fail on a depth map, a boolean or a text.

    Args:
        config: Configuration of the policy; modified in place.
        dataset_meta: Metadata of the training dataset; None outside training.
        state_option: Name of the option that turns the state off.

    Raises:
        ValueError: If no colour camera is left, or a camera, the state or the action has an unusable type or shape.
    """
    given = config.input_features or {}
    columns = {} if dataset_meta is None else columns_by_name(dataset_meta)
    depth = [] if dataset_meta is None else [key for key in given if columns.get(key) in dataset_meta.depth_keys]
    kept = {
        key: feature
        for key, feature in given.items()
        if (feature.type is FeatureType.VISUAL and key not in depth)
        or (key == OBS_STATE and getattr(config, state_option, True))
    }
    if depth and not any(feature.type is FeatureType.VISUAL for feature in kept.values()):
        raise ValueError(
            f"{config.type} needs a colour camera, and the dataset has only depth maps: {', '.join(depth)}"
        )
    config.input_features = kept
    if dataset_meta is None:
        return
    left_out = [key for key in given if key not in kept]
    if left_out:
        logger.info(f"{config.type} does not use the features {', '.join(left_out)}")
    for key in kept:
        if key not in columns:
            continue
        if key == OBS_STATE:
            _require_vector(columns[key], dataset_meta, remedy=f"or do without it: --policy.{state_option}=false")
        else:
            _require_picture(columns[key], dataset_meta)
    if ACTION in dataset_meta.features:
        _require_vector(ACTION, dataset_meta, remedy="and record the dataset again")


def _require_vector(key: str, dataset_meta: Any, *, remedy: str) -> None:
    dtype, shape = dataset_meta.features[key]["dtype"], tuple(dataset_meta.features[key]["shape"])
    try:
        is_numeric = np.dtype(dtype).kind in "biuf"
    except TypeError:  # LeRobot's own types "string" and "image"
        is_numeric = False
    if not is_numeric or len(shape) != 1:
        raise ValueError(
            f"{key!r} of the dataset has dtype {dtype} and shape {shape}, and a policy needs a vector of numbers; "
            f"flatten or convert it, {remedy}"
        )
    if np.dtype(dtype).kind != "f":
        logger.warning(f"{key!r} of the dataset has dtype {dtype}: the policy treats its values as real numbers")


def _require_picture(key: str, dataset_meta: Any) -> None:
    feature = dataset_meta.features[key]
    names = list(feature.get("names") or [])
    # Not strict: LeRobot leaves the names of axes to whoever recorded the dataset, and some name none.
    channels = [size for name, size in zip(names, feature["shape"], strict=False) if name in ("channel", "channels")]
    if channels and channels[0] not in (1, 3, 4):
        raise ValueError(
            f"camera {key!r} has {channels[0]} channels, expected 1 (grey), 3 (RGB) or 4 (RGB and alpha); record it "
            "again, or remove it with lerobot-edit-dataset --operation.type=remove_feature"
        )
