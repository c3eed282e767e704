"""Names that weights of a policy had in earlier versions, so that saved policies can be loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

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
