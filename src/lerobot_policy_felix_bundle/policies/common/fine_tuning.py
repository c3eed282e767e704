"""Fine-tune a saved policy for another robot: keep matching weights, and start the other layers of the head anew.

When LeRobot loads a policy, it takes the action features from the current dataset or environment, but the observation
features from the saved policy. In training, `follow_dataset` takes the observation features from the dataset, too.
`compare` then compares the saved weights with the policy by name and shape. A layer with any difference is started
anew as a whole, but only in the action head and only in training; all other weights must fit exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import draccus
from huggingface_hub.constants import CONFIG_NAME
from lerobot.configs import FeatureType, PreTrainedConfig, parser
from lerobot.utils.constants import ACTION, OBS_STATE, TRAINING_STATE_DIR, TRAINING_STEP
from lerobot.utils.feature_utils import dataset_to_policy_features
from safetensors import safe_open
from torch import nn

from hlrp.experts.registry import shaping_options
from hlrp.foundation.checkpoint import POLICY_PREFIX, load_weights
from hlrp.storage.artefacts import read_json

from .configuration import HLRPConfig
from .run_settings import columns_by_name, is_resumed, rename_map
from .weight_names import current_name, require_current_names

logger = logging.getLogger(__name__)

SHAPING = (
    "chunk_size",
    "decoder",
    "decoder_hidden_dim",
    "decoder_layers",
    "decoder_uses_state",
    "expert",
    "expert_uses_state",
    "vision_backbone",
    "spatial_softmax_num_keypoints",
    "latent_conditioning",
    "latent_embed_dim",
)
"""Options of the policies that determine the shapes of an action head's weights, beside those of the experts."""

MAY_CHANGE_ON_RESUME = (
    "attn_implementation",
    "compile_mode",
    "compile_model",
    "gradient_checkpointing",
    "laq_checkpoint_path",
    "latent_labels_path",
    "rtc_config",
)
"""Settings of a policy that do not change what a resumed run learns; codes are compared by their LAQ's fingerprint."""
_ADAPTER_FILE = "adapter_config.json"
"""PEFT's file with the settings of an adapter."""
LABELLED: dict[str, Any] = {"labelled_fraction": 1.0, "labelled_episodes": [], "action_valid_column": None}
"""Options that choose the frames whose actions are learned, and the value of each option that chooses all."""


def saved_settings(folder: Path) -> dict[str, Any]:
    """Configuration of the policy saved in `folder`, as plain values."""
    return read_json(folder / CONFIG_NAME)


def follow_dataset(config: HLRPConfig, dataset_meta: Any) -> None:
    """Adapt the input features of a saved policy to the dataset that it is fine-tuned on, in place.

    The dataset's names are those after LeRobot's `rename_map`. A state of another width replaces the saved one, and a
    state or camera that the dataset lacks is removed. If the dataset has other camera names, the saved names are kept:
    LeRobot refuses names that do not match.

    Raises:
        ValueError: If the dataset has no camera, or `rename_map` gives two of its columns the same name.
    """
    columns = columns_by_name(dataset_meta)
    features = dataset_to_policy_features({name: dataset_meta.features[column] for name, column in columns.items()})
    known = dict(config.input_features or {})
    if OBS_STATE in known and OBS_STATE in features:
        known[OBS_STATE] = features[OBS_STATE]
    elif all(feature.type is not FeatureType.STATE for feature in features.values()):
        known.pop(OBS_STATE, None)
    there = {name for name, feature in features.items() if feature.type is FeatureType.VISUAL}
    mine = set(config.image_features)
    if not there:
        raise ValueError(f"{config.type} needs a camera, and the dataset has none")
    if there < mine:
        known = {name: feature for name, feature in known.items() if name not in mine - there}
    elif there != mine and not rename_map():
        logger.warning(
            f"this policy sees the cameras {', '.join(sorted(mine))}, and the dataset has {', '.join(sorted(there))}: "
            "the policy uses only the former; map names with --rename_map, or take all of the dataset's cameras with "
            "--policy.input_features=null"
        )
    config.input_features = known


def require_no_other_vla(config: HLRPConfig, saved: Mapping[str, Any], folder: Path) -> None:
    """Refuse a configuration whose policy type or VLA differs from the saved policy.

    Raises:
        ValueError: If they differ; the message says how to use the saved VLA in a new policy.
    """
    if saved["type"] != config.type:
        raise ValueError(
            f"{folder} holds a policy of type {saved['type']}, not {config.type}; to take its VLA into a new one, use "
            f"--policy.type={config.type} --policy.vla_checkpoint_path={folder}"
        )
    for name in ("vla_checkpoint_path", "vla_model_name"):
        mine = getattr(config, name)
        if name in saved and mine != saved[name]:
            raise ValueError(
                f"--policy.{name}={mine} has no effect on a saved policy, which brings its own VLA ({folder}); leave "
                f"it out, or start a new policy with --policy.type={config.type}"
            )


def require_loadable_adapter(config: HLRPConfig) -> None:
    """Check the PEFT adapter that LeRobot loads after the policy, if it does.

    Raises:
        ValueError: If the adapter names modules as an earlier version did.
    """
    if config.use_peft and config.pretrained_path is not None:
        adapter = Path(config.pretrained_path)
        if (adapter / _ADAPTER_FILE).is_file():
            settings = read_json(adapter / _ADAPTER_FILE)
            require_current_names(settings.get("modules_to_save") or [], adapter)


def steps_of_resumed_run(config: HLRPConfig) -> int:
    """Training steps that a resumed run has done before; 0 for any other run."""
    if config.pretrained_path is None or not is_resumed():
        return 0
    state = Path(config.pretrained_path).parent / TRAINING_STATE_DIR / TRAINING_STEP
    return int(read_json(state)["step"]) if state.is_file() else 0  # LeRobot refuses to resume without this file


def follow_run(config: HLRPConfig, folder: Path) -> None:
    """Compare the settings of a training run with those saved where it starts: in `folder`, or with its adapter."""
    start = folder if config.pretrained_path is None else Path(config.pretrained_path)
    if not (start / CONFIG_NAME).is_file():
        start = folder
    check = require_settings_of_run if is_resumed() else inherit_labelled
    check(config, saved_settings(start), start)


def require_settings_of_run(config: HLRPConfig, saved: Mapping[str, Any], folder: Path) -> None:
    """Raise if a resumed run has other settings of the policy than it was saved with.

    LeRobot would apply some changed settings in mid-run, and ignore others: optimizer and pipelines continue as they
    were saved. A run that was started by a version without `labelled_share` keeps the batches of LeRobot's sampler, and
    one without `optimizer_lr_action` keeps its single learning rate.

    Raises:
        ValueError: If a setting differs; the message names all settings that do.
    """
    if "labelled_share" not in saved:
        config.labelled_share = 0.0
    if "optimizer_lr_action" not in saved:
        config.optimizer_lr_action = None
    of_host = {field.name for field in fields(PreTrainedConfig)} | {"type"}
    now = draccus.encode(config)
    other = [
        f"{name}={now[name]} (was {saved[name]})"
        for name in now
        if name in saved and name not in of_host and name not in MAY_CHANGE_ON_RESUME and saved[name] != now[name]
    ]
    if other:
        raise ValueError(
            f"a resumed run keeps the settings it was started with, got --policy.{', --policy.'.join(other)}; leave "
            f"them out, or start a new run from its weights with --policy.path={folder}"
        )


def inherit_labelled(config: HLRPConfig, saved: Mapping[str, Any], folder: Path) -> None:
    """Log that the choice of frames whose actions are learned comes from a saved policy, which had another dataset.

    If this run makes such a choice itself, by any of the options, the saved choice is dropped.
    """
    made = {name: getattr(config, name) for name, every in LABELLED.items() if getattr(config, name) != every}
    inherited = {
        name: value
        for name, value in made.items()
        if saved.get(name) == value and parser.parse_arg(f"policy.{name}") is None
    }
    for name, value in inherited.items():
        if len(inherited) < len(made):
            setattr(config, name, LABELLED[name])
            continue
        every = "null" if LABELLED[name] is None else LABELLED[name]
        logger.warning(
            f"{name}={value} is the choice saved in {folder}, and holds for this run too: actions of other frames are "
            f"not learned; choose anew with --policy.{name}, where {every} is all"
        )


def changes(saved: Mapping[str, Any], config: HLRPConfig) -> list[str]:
    """Differences to a saved policy that change the shapes of the action head's weights, one short text each."""
    now = draccus.encode(config)
    found = [
        f"{name} {saved[name]} -> {now[name]}"
        for name in (*SHAPING, *shaping_options())
        if name in saved and name in now and saved[name] != now[name]
    ]
    for what, features, key in (("state", "input_features", OBS_STATE), ("action", "output_features", ACTION)):
        before, after = (_width(one[features], key) for one in (saved, now))
        if before != after:
            found.insert(0, f"{what} values {before} -> {after}")
    before, after = cameras_of(saved), cameras_of(now)
    if before != after:
        found.append(f"cameras {', '.join(before)} -> {', '.join(after)}")
    return found


def cameras_of(settings: Mapping[str, Any]) -> list[str]:
    """Cameras of a configuration given as plain values, in the policy's order."""
    return [key for key, one in (settings["input_features"] or {}).items() if one["type"] == FeatureType.VISUAL.value]


def _width(features: Mapping[str, Any] | None, key: str) -> int:
    return (features or {}).get(key, {"shape": [0]})["shape"][0]


@dataclass(frozen=True)
class Comparison:
    """How the weights in a file match those of a policy; the weights of its VLA are not compared."""

    source: dict[str, str]
    """Name in the file of each weight to load, by its name in the policy."""
    anew: list[str]
    """Layers of the policy to start anew, because a weight is missing in the file or has another shape."""
    dropped: list[str]
    """Layers in the file that the policy does not have."""
    layers: list[str]
    """All layers of the policy."""

    @property
    def is_exact(self) -> bool:
        """Whether all weights match under the same name."""
        return not self.anew and not self.dropped and all(mine == current_name(it) for mine, it in self.source.items())

    def summary(self) -> str:
        """Text for the log: the layers to start anew, or their number per part if there are more than six."""
        if len(self.anew) <= 6:
            return ", ".join(self.anew)
        parts = dict.fromkeys(name.split(".")[0] for name in self.anew)
        counts = {part: (_within(self.anew, part), _within(self.layers, part)) for part in parts}
        return ", ".join(f"{part} ({few} of {all_} layers)" for part, (few, all_) in counts.items())


def compare(policy: nn.Module, file: Path | str, saved_name: Callable[[str], str | None]) -> Comparison:
    """Compare the weights of a policy with those in a file.

    Args:
        policy: The policy, whose VLA is its submodule `backend`.
        file: Weights of the saved policy, as safetensors.
        saved_name: Maps the name of a weight in the policy to its name in the saved policy; None if the saved policy
            cannot have it. Names of earlier versions in the file are understood.
    """
    with safe_open(file, framework="pt") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    in_file = {current_name(name): name for name in shapes if not name.startswith(POLICY_PREFIX)}
    theirs = {name: shapes[earlier] for name, earlier in in_file.items()}
    mine = {
        name: tuple(value.shape) for name, value in policy.state_dict().items() if not name.startswith(POLICY_PREFIX)
    }
    source = {name: saved_name(name) for name in mine}
    anew = {_layer(name) for name, shape in mine.items() if theirs.get(source[name] or "") != shape}
    kept = {name: in_file[place] for name, place in source.items() if place is not None and _layer(name) not in anew}
    unused = {_layer(name) for name in set(theirs) - set(source.values())}
    layers = dict.fromkeys(_layer(name) for name in mine)
    return Comparison(kept, [name for name in layers if name in anew], sorted(unused), list(layers))


def load_kept(policy: nn.Module, file: Path | str, kept: Mapping[str, str], *, device: str) -> None:
    """Load the VLA of a policy strictly, and the other weights in `kept`: name in the file by name in the policy."""
    load_weights(policy.get_submodule("backend"), file)
    with safe_open(file, framework="pt", device=device) as weights:
        found = {name: weights.get_tensor(place) for name, place in kept.items()}
    # Not strict, because layers that are started anew are missing in `kept`; a name that the policy lacks is a fault.
    unexpected = policy.load_state_dict(found, strict=False).unexpected_keys
    assert not unexpected, f"weights that this policy does not have: {unexpected}"


def require_new_layers(
    policy: nn.Module, config: HLRPConfig, comparison: Comparison, where: str, *, folder: Path, is_trained: bool
) -> None:
    """Log which layers of a policy are started anew.

    Args:
        policy: The policy, whose VLA is its submodule `backend`.
        config: Its configuration.
        comparison: How the saved weights match those of the policy.
        where: Differences to the saved policy, as the beginning of a message.
        folder: Folder of the saved policy.
        is_trained: Whether the policy is built for training.

    Raises:
        ValueError: If the new layers would not be trained.
    """
    if config.use_peft:  # LeRobot loads these weights with the adapter
        require_in_adapter(comparison.anew, config, where)
        return
    if not is_trained:
        raise ValueError(
            f"{where}: layers for it are started anew only in training; fine-tune with lerobot-train --policy.path="
            f"{folder} on a dataset of this robot, and use the policy that comes out"
        )
    if is_resumed():
        raise ValueError(
            f"{where}, and a resumed run goes on as it was; fine-tune on the new data with --policy.path={folder}"
        )
    frozen = sorted({name for name, p in policy.named_parameters() if not p.requires_grad} - set(comparison.source))
    frozen = [name for name in frozen if not name.startswith(POLICY_PREFIX)]
    if frozen:
        raise ValueError(
            f"{where}: {', '.join(frozen)} would be started anew and stay untrained; leave out --policy.freeze_decoder"
        )
    logger.warning(f"{where}: started anew are {comparison.summary()}; the VLA and everything else is kept")


def require_in_adapter(layers: Sequence[str], config: HLRPConfig, where: str) -> None:
    """Check that the PEFT adapter, which LeRobot loads next, contains the weights of `layers`.

    Raises:
        ValueError: If the adapter lacks them or was trained for another robot; the message begins with `where`.
    """
    adapter = Path(str(config.pretrained_path))
    if (adapter / CONFIG_NAME).is_file():
        differences = changes(saved_settings(adapter), config)
        if differences:
            raise ValueError(
                f"{where}, and the adapter in {adapter} is for yet another robot ({'; '.join(differences)}): adapters "
                "do not move on; fine-tune the policy that they were trained on"
            )
    from peft import PeftConfig

    whole = PeftConfig.from_pretrained(str(adapter)).modules_to_save or []  # pyright: ignore[reportAttributeAccessIssue]
    lost = [name for name in layers if not any(f"{name}.".startswith(f"{part}.") for part in whole)]
    if lost:
        raise ValueError(f"{where}, and the adapter in {adapter} has no weights for {', '.join(lost)}")


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _within(layers: Sequence[str], part: str) -> int:
    return sum(name.split(".")[0] == part for name in layers)
