"""Which entries of a dataset's item lie after its time t, and what is left of the item for a policy that acts at t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.constants import ACTION, OBS_PREFIX

Item = dict[str, Any]
"""One sample of a LeRobotDataset: values by their key, windows with the time as their first axis."""
IS_PAD = "_is_pad"
"""End of the keys that say which entries of a window lie outside the episode."""


def is_observation(key: str) -> bool:
    """Whether `key` is an observation, or says which entries of an observation are padding."""
    return key.startswith(OBS_PREFIX)


def is_action(key: str) -> bool:
    """Whether `key` is the action, or says which entries of the action are padding."""
    return key.removesuffix(IS_PAD) == ACTION


class Windows:
    """Time offsets of the entries that the items of a dataset hold."""

    def __init__(self, deltas: Mapping[str, Sequence[int]]) -> None:
        """Keep the offsets.

        Args:
            deltas: Offsets in frames relative to t, by key; a key that is not named holds one value, of time t.
        """
        self._deltas = deltas

    @classmethod
    def of_dataset(cls, dataset: LeRobotDataset) -> Windows:
        """Offsets that `dataset` was opened with."""
        seconds = dataset.delta_timestamps or {}
        return cls({key: [round(s * dataset.fps) for s in offsets] for key, offsets in seconds.items()})

    def deltas(self, key: str) -> list[int]:
        """Offsets of the entries of `key`, in frames; empty if it holds one value."""
        return list(self._deltas.get(key.removesuffix(IS_PAD), []))

    def places(self, key: str, *, start: int | None = None, end: int | None = None) -> list[int]:
        """Places along the first axis of `key` whose offset is at least `start` and below `end`."""
        offsets = enumerate(self.deltas(key))
        return [i for i, d in offsets if (start is None or d >= start) and (end is None or d < end)]

    def longest(self) -> int:
        """Largest offset of all keys, in frames; 0 if no window reaches beyond t."""
        return max((max(deltas) for deltas in self._deltas.values() if deltas), default=0)

    def until_t(self, item: Item) -> Item:
        """`item` whose observation windows end at time t; all other keys stay."""
        cut = dict(item)
        for key in item:
            if is_observation(key) and self.deltas(key):
                cut[key] = item[key][self.places(key, end=1)]
        return cut

    def at_t(self, item: Item) -> Item:
        """`item` with the observations of time t alone, without a time axis, as an environment gives them.

        Of a window that lacks time t, the latest entry before it stays. All keys that are no observations stay, too.
        """
        cut = {key: value for key, value in item.items() if not (is_observation(key) and key.endswith(IS_PAD))}
        for key in cut:
            if is_observation(key) and (past := self.places(key, end=1)):
                cut[key] = item[key][past[-1]]
        return cut
