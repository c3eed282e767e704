"""Names and weights that policies had in earlier versions, so that saved policies can be loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from hlrp.experts.flow import FlowExpert

logger = logging.getLogger(__name__)

RENAMED = {"eyes.": "image_encoders."}
"""Earlier and current first part of a weight's name."""


def current_name(name: str) -> str:
    """Current name of a weight with the name `name` in a saved policy."""
    for earlier, now in RENAMED.items():
        if name.startswith(earlier):
            return now + name.removeprefix(earlier)
    return name


def rename_weights(_module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Rename the weights of a saved policy in place; a hook for `register_load_state_dict_pre_hook`."""
    for name in list(state_dict):
        now = prefix + current_name(name.removeprefix(prefix))
        if name.startswith(prefix) and now != name:
            state_dict[now] = state_dict.pop(name)


def follow_saved_expert(expert: nn.Module | None, file: Path | str) -> None:
    """Give a flow expert with codes the parts that it has in a saved policy, in place.

    In earlier versions it had no `from_codes`. Without this part, it acts and continues to train as it did then.

    Args:
        expert: Action expert of a policy; None if the policy has none.
        file: Weights of the saved policy, as safetensors.
    """
    if not isinstance(expert, FlowExpert) or expert.from_codes is None:
        return
    name, mine = "expert.from_features.1.weight", expert.get_parameter("from_features.1.weight").shape
    with safe_open(file, framework="pt") as weights:
        names = set(weights.keys())
        # A file of another shape is of an expert without codes, or of another size, which gets new layers anyway.
        is_same = name in names and tuple(weights.get_slice(name).get_shape()) == tuple(mine)
    if is_same and not any(each.startswith("expert.from_codes.") for each in names):
        expert.from_codes = None
        logger.warning(
            f"the flow expert in {file} is of an earlier version, in which it ignores the order of the codes of a "
            "label; it acts as before, and to use the order, train a new policy with "
            f"--policy.vla_checkpoint_path={Path(file).parent}"
        )


def require_current_names(modules: Iterable[str], adapter: Path) -> None:
    """Check the names of the `modules` that a PEFT adapter holds; PEFT itself ignores a module that it does not find.

    Raises:
        ValueError: If a module has the name of an earlier version.
    """
    earlier = [name for name in modules if current_name(f"{name}.") != f"{name}."]
    if earlier:
        raise ValueError(
            f"the adapter in {adapter} was trained with an earlier version and names its modules {', '.join(earlier)}; "
            "merge it into its policy with that version, and load the merged policy"
        )
