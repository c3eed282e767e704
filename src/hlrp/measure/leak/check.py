"""Change everything after time t in sampled items, and test whether the training loss or the action changes.

The loss may depend on its targets (the action chunk, labels, rewards), and the action on what is known at time t. Any
other change must leave both the same to the last bit. Latent labels are targets, too. Where a frozen LAQ makes them
from later frames, the labels are held fixed while these frames change: only other uses of the frames are then detected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from hlrp.data.dataset import episode_bounds
from hlrp.latents import LatentActions

from .changes import Change, Role, changes
from .probe import Probe
from .result import EVERYTHING, LeakReport, Row, Verdict
from .windows import IS_PAD, Item, Windows, is_observation

_TASK = "task"
_LABELS = "latent labels"
_CALLS = ("predict_action_chunk", "select_action")


@dataclass(frozen=True)
class _Way:
    """A method of the policy and a form of the item with which it returns an action."""

    call: str
    form: str
    cut: Callable[[Item], Item]

    @property
    def name(self) -> str:
        return f"{self.call}, {self.form}"


def check_leak(
    probe: Probe, dataset: LeRobotDataset, *, samples: int = 8, seed: int = 0, target_keys: Sequence[str] = ()
) -> LeakReport:
    """Check a policy against its own dataset.

    Args:
        probe: The policy, with its preprocessor.
        dataset: Its dataset, opened with the windows that its configuration asks for.
        samples: Number of frames that are sampled, 2 or more.
        seed: Seed of the sampling.
        target_keys: Observations whose values after t are targets of the training loss, as in a world model. The loss
            may depend on them; the action is computed without them.

    Returns:
        One row for every change.

    Raises:
        ValueError: If too few frames have a later one, a target key does not exist, the policy cannot act or train on
            the items, or two runs from the same random state differ.
    """
    windows = Windows.of_dataset(dataset)
    rows = _draw(dataset, windows, 2 * samples, seed)
    items: list[Any] = [dataset[row] for row in rows]  # LeRobot's type also allows the items of several rows
    unknown = [key for key in target_keys if not (is_observation(key) and windows.places(key, start=1))]
    if unknown:
        raise ValueError(f"target_keys names {', '.join(unknown)}, of which this policy reads nothing after t")
    with probe.without_zeros():
        check = _Check(probe, windows, items[:samples], list(dataset.meta.camera_keys), target_keys)
        return check.run(others=items[samples:])


def _draw(dataset: LeRobotDataset, windows: Windows, count: int, seed: int) -> list[int]:
    """Rows of `count` frames whose windows end before their episode, as far as there are enough of them."""
    number = torch.from_numpy(dataset.hf_dataset.data.column("index").to_numpy().copy())
    ends = episode_bounds(dataset.meta)[:, 1].contiguous()
    left = ends[torch.bucketize(number, ends, right=True)] - 1 - number
    draw = torch.Generator().manual_seed(seed)
    for needed in (max(windows.longest(), 1), 1):
        rows = (left >= needed).nonzero()[:, 0]
        if len(rows) >= count:
            return rows[torch.randperm(len(rows), generator=draw)[:count]].tolist()
    raise ValueError(
        f"the check needs {count} frames that are not the last of their episode, {dataset.repo_id} has {len(rows)}; "
        "lower --samples"
    )


class _Check:
    """The check of one policy on sampled items."""

    def __init__(
        self, probe: Probe, windows: Windows, items: list[Item], cameras: list[str], target_keys: Sequence[str]
    ) -> None:
        self._probe, self._windows, self._items, self._cameras = probe, windows, items, cameras
        self._target_keys = tuple(target_keys)
        self._changes = changes(items[0], windows, target_keys=target_keys)
        self._labels = probe.labels(items)
        self._loss = _once(lambda: probe.loss(items), "training loss")
        if not self._loss.isfinite().all():
            raise ValueError("the training loss is not finite, so that nothing can be compared with it")
        self._ways = self._find_ways()

    def run(self, others: list[Item]) -> LeakReport:
        """All rows; `others` are items that take the place of all but the first."""
        rows = [Row(c.key, c.what, self._of_loss(c), self._of_action(c)) for c in self._changes]
        controls = [row for row, c in zip(rows, self._changes, strict=True) if c.role is Role.CONTROL]
        rows = [row for row in rows if row not in controls]
        if self._labels is not None:
            rows.append(Row(_LABELS, "label", self._loss_of_labels(), self._action_of_labels()))
        rows.append(Row(EVERYTHING, "at once", Verdict.NOT_TESTED, self._of_everything()))
        rows.append(Row("other items of the batch", "replaced", Verdict.NOT_TESTED, self._of_others(others)))
        rows += self._without_recording()
        return LeakReport((*rows, *controls), tuple(way.name for way in self._ways))

    # ---- Ways to act ----

    def _find_ways(self) -> dict[_Way, Tensor]:
        """Ways that work for this policy, with the action that each gives for the unchanged items."""
        forms = {
            "frame t": self._windows.at_t,  # the nearest to a robot
            "windows up to t": self._windows.until_t,
            "windows of the training": self._declared,
        }
        found: dict[_Way, Tensor] = {}
        errors: list[str] = []
        tried: list[list[Item]] = []
        for form, cut in forms.items():
            items = [cut(item) for item in self._items]
            if any(_alike(items, others) for others in tried):
                continue
            tried.append(items)
            for call in _CALLS:
                try:
                    way = _Way(call, form, cut)
                    found[way] = self._act(way, self._items)
                except Exception as error:  # any policy may be checked, and this way may not suit it
                    errors.append(f"{call} with {form}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
        if not found:
            raise ValueError(f"this policy cannot act on items of the dataset; {'; '.join(errors)}")
        for way, action in found.items():
            _require_same(action, self._act(way, self._items), way.name)
        return found

    def _declared(self, item: Item) -> Item:
        """`item` without later values of the keys that were declared to be targets: no robot has them."""
        until_t = self._windows.until_t(item)
        return {key: until_t[key] if key.removesuffix(IS_PAD) in self._target_keys else item[key] for key in item}

    def _act(self, way: _Way, items: Sequence[Item]) -> Tensor:
        return self._probe.action([way.cut(item) for item in items], way.call)

    # ---- Changes of the items ----

    def _changed(self, *applied: Change) -> list[Item]:
        items = self._items
        donors = [*self._items[1:], self._items[0]]
        for change in applied:
            items = [change.apply(item, donor, self._cameras) for item, donor in zip(items, donors, strict=True)]
        return items

    def _of_loss(self, change: Change) -> Verdict:
        items = self._changed(change)
        if _alike(items, self._items):
            return Verdict.NOT_TESTED
        labels = self._labels
        with self._probe.labelled_by(None if labels is None else lambda batch: labels):
            sees = not _same(self._probe.loss(items), self._loss)
        if change.role is Role.CONTROL:
            return Verdict.USED if sees else Verdict.NOT_USED
        if sees:
            return {Role.OBSERVATION: Verdict.LEAK, Role.NUMBER: Verdict.LOOKED_UP}.get(change.role, Verdict.TARGET)
        if labels is None or _same(self._probe.loss(items), self._loss):
            return Verdict.NOT_SEEN
        return Verdict.LOOKED_UP if change.role is Role.NUMBER else Verdict.TARGET

    def _of_action(self, change: Change) -> Verdict:
        items = self._changed(change)
        if _alike(items, self._items):
            return Verdict.NOT_TESTED
        sees = self._notices(items)
        if change.role is Role.CONTROL:
            return Verdict.USED if sees else Verdict.NOT_USED
        return Verdict.LEAK if sees else Verdict.NOT_SEEN

    def _notices(self, items: list[Item]) -> bool:
        """Whether any way of acting gives another action than for the unchanged items."""
        for way, expected in self._ways.items():
            if _alike([way.cut(item) for item in items], [way.cut(item) for item in self._items]):
                continue  # the change lies in what this way leaves out
            if not _same(self._act(way, items), expected):
                return True
        return False

    # ---- Latent labels that the policy looks up or makes itself ----

    def _other_labels(self, batch: Mapping[str, Any]) -> LatentActions:
        labels = self._labels
        assert labels is not None
        return replace(
            labels,
            codes=None if labels.codes is None else labels.codes.roll(1, -1).roll(1, 0),
            vectors=None if labels.vectors is None else labels.vectors + 1,
            valid=~labels.valid,
        )

    def _loss_of_labels(self) -> Verdict:
        with self._probe.labelled_by(self._other_labels):
            return Verdict.NOT_SEEN if _same(self._probe.loss(self._items), self._loss) else Verdict.TARGET

    def _action_of_labels(self) -> Verdict:
        with self._probe.labelled_by(self._other_labels):
            same = all(_same(self._act(way, self._items), action) for way, action in self._ways.items())
        return Verdict.NOT_SEEN if same else Verdict.LEAK

    # ---- Everything at once, the other items, and what a robot does not have ----

    def _of_everything(self) -> Verdict:
        items = self._changed(*(c for c in self._changes if c.role is not Role.CONTROL))
        with self._probe.labelled_by(self._other_labels if self._labels is not None else None):
            return Verdict.LEAK if self._notices(items) else Verdict.NOT_SEEN

    def _of_others(self, others: list[Item]) -> Verdict:
        """Whether the first item's action depends on the other items, which keep their instructions.

        The instructions stay because longer ones would pad all sequences of the batch.
        """
        kept = [{key: mine[key] for key in mine if key == _TASK} for mine in self._items[1:]]
        items = [self._items[0], *({**other, **task} for other, task in zip(others[1:], kept, strict=True))]
        same = all(_same(self._act(way, items)[0], action[0]) for way, action in self._ways.items())
        return Verdict.NOT_SEEN if same else Verdict.LEAK

    def _without_recording(self) -> list[Row]:
        """Rows of the columns that a robot does not have; one row for all if the action is the same without them."""
        absent = [key for key in self._items[0] if not (is_observation(key) or key == _TASK)]
        if self._same_without(absent):
            return [Row("all but observations and task", "left out", Verdict.NOT_TESTED, Verdict.NOT_SEEN)]
        needed = [key for key in absent if not self._same_without([key])] or absent
        return [Row(key, "left out", Verdict.NOT_TESTED, Verdict.LEAK) for key in needed]

    def _same_without(self, keys: list[str]) -> bool:
        way, expected = next(iter(self._ways.items()))
        items = [{key: value for key, value in item.items() if key not in keys} for item in self._items]
        try:
            return _same(self._act(way, items), expected)
        except Exception:  # the policy needs them to act
            return False


def _once(run: Callable[[], Tensor], what: str) -> Tensor:
    """Result of `run`, which must be the same a second time."""
    first = run()
    _require_same(first, run(), what)
    return first


def _require_same(first: Tensor, second: Tensor, what: str) -> None:
    if not _same(first, second):
        raise ValueError(
            f"two runs from the same random state differ ({what}), so an effect cannot be distinguished from chance; "
            "try --policy.device=cpu"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two results are the same to the last bit; NaN equals NaN."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _alike(items: Sequence[Item], others: Sequence[Item]) -> bool:
    """Whether two lists of items hold the same keys and values."""
    return all(
        a.keys() == b.keys()
        and all(torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a)
        for a, b in zip(items, others, strict=True)
    )
