"""Changes of a dataset's items: of what lies after time t or only the recording knows, and as a control of time t."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

from .windows import IS_PAD, Item, Windows, is_action, is_observation

_KNOWN_AT_T = ("timestamp", "frame_index", "task_index")
"""Columns that a robot with a clock knows at time t, too."""
_NUMBERS = ("index", "episode_index")
"""Columns by which the rest of the recording can be looked up; no robot has them."""
_SHIFT = 0.37
"""Added to the numbers of another sample, so that also a column of few values, such as a gripper, changes."""


class Role(Enum):
    """What a changed entry is allowed to be used for."""

    OBSERVATION = auto()
    """An observation after t: for nothing."""
    TARGET = auto()
    """The action chunk, labels, rewards, and what the user declared to be a target: for the loss."""
    NUMBER = auto()
    """The frame's number: for looking up targets of the loss."""
    CONTROL = auto()
    """An observation at t or before: for everything."""


@dataclass(frozen=True)
class Change:
    """Entries of one key that are replaced."""

    key: str
    what: str
    """Description of the entries, for the report."""
    role: Role
    places: tuple[int, ...] | None = None
    """Places along the first axis; None for the whole value."""

    def apply(self, item: Item, donor: Item, cameras: Iterable[str]) -> Item:
        """`item` with other values in these entries, which are made from its own and those of the item `donor`."""
        value, other = item[self.key], donor[self.key]
        is_image = self.key in cameras
        if self.places is None:
            return {**item, self.key: altered(value, other, is_image=is_image)}
        changed = value.clone()
        places = list(self.places)
        changed[places] = altered(value[places], other[places], is_image=is_image)
        return {**item, self.key: changed}


def altered(value: Tensor, other: Tensor, *, is_image: bool) -> Tensor:
    """Values of the same kind that differ from `value`, except whole numbers that `other` shares with it.

    Truth values are negated and images are inverted. Whole numbers are those of `other`, since a number that the
    dataset does not hold may be an error; all other numbers are those of `other` and a little more.
    """
    if value.dtype == torch.bool:
        return ~value
    if value.dtype == torch.uint8:
        return 255 - value
    if not value.is_floating_point():
        return other.clone()
    return 1 - value if is_image else other.nan_to_num() + _SHIFT


def changes(item: Item, windows: Windows, *, target_keys: Iterable[str] = ()) -> list[Change]:
    """Every change of an item that says something about the future, and the controls.

    Args:
        item: An item of the dataset, which shows its keys.
        windows: Offsets of its entries.
        target_keys: Observations whose entries after t are targets of the training loss.
    """
    found: list[Change] = []
    for key, value in item.items():
        if not isinstance(value, Tensor) or key in _KNOWN_AT_T:
            continue
        if is_observation(key):
            found += _of_observation(key, windows, is_target=key.removesuffix(IS_PAD) in target_keys)
        elif is_action(key):
            places = tuple(windows.places(key, start=0)) or None
            found.append(Change(key, "from t on", Role.TARGET, places))
        elif key in _NUMBERS:
            found.append(Change(key, "of another frame", Role.NUMBER))
        else:
            found.append(Change(key, "label", Role.TARGET))
    return sorted(found, key=lambda change: change.role is Role.CONTROL)


def _of_observation(key: str, windows: Windows, *, is_target: bool) -> list[Change]:
    found = []
    if later := tuple(windows.places(key, start=1)):
        found.append(Change(key, "after t", Role.TARGET if is_target else Role.OBSERVATION, later))
    if not key.endswith(IS_PAD):
        found.append(Change(key, "at t", Role.CONTROL, tuple(windows.places(key, end=1)) or None))
    return found
