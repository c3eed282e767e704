"""What the check found: one row per change, the verdict in one sentence, a table and plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from hlrp.runtime.tables import table

EVERYTHING = "everything above"
"""Key of the row of all changes at once."""


class Verdict(StrEnum):
    """What a change did to the training loss or to the action."""

    LEAK = "SEEN"
    """The change altered a result that must not depend on the changed entries."""
    NOT_SEEN = "not seen"
    """The change altered nothing: the result is the same to the last bit."""
    TARGET = "target"
    """The change altered the training loss, which may depend on these entries as its target."""
    LOOKED_UP = "looked up"
    """The change altered the training loss, which finds targets in a table by the number of the frame."""
    USED = "used"
    """Control: an observation at t changes the result, as it should."""
    NOT_USED = "not used"
    """Control: an observation at t changes nothing, so that nothing can be said about its later values either."""
    NOT_TESTED = "-"
    """The change does not apply."""


@dataclass(frozen=True)
class Row:
    """One change and what it did."""

    key: str
    change: str
    loss: Verdict
    action: Verdict


@dataclass(frozen=True)
class LeakReport:
    """Result of `check_leak`."""

    rows: tuple[Row, ...]
    ways: tuple[str, ...]
    """Ways of acting that were tested: method of the policy, and form of the item."""

    @property
    def leaks(self) -> tuple[Row, ...]:
        """Rows of which the loss or the action sees what it may not."""
        return tuple(row for row in self.rows if Verdict.LEAK in (row.loss, row.action))

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        seen = {
            "the action chosen by this policy": [r for r in self.rows if r.action is Verdict.LEAK],
            "its training loss": [r for r in self.rows if r.loss is Verdict.LEAK],
        }
        parts = [f"{who} depends on {_listed(rows)}" for who, rows in seen.items() if rows]
        if parts:
            return f"leak: {' and '.join(parts)}"
        if self.blind:
            return (
                "no leak was found, but the action depends on no observation at t, so that this check says nothing "
                "about it"
            )
        return "no leak: neither the action nor the training loss depends on anything that it may not"

    @property
    def blind(self) -> bool:
        """Whether the action depends on no observation at t: then the check says nothing about the action."""
        controls = [row.action for row in self.rows if row.action in (Verdict.USED, Verdict.NOT_USED)]
        return Verdict.USED not in controls

    def table(self) -> str:
        """All rows as a table for a terminal."""
        return table(["key", "changed", "loss", "action"], [[r.key, r.change, r.loss, r.action] for r in self.rows])

    def to_dict(self) -> dict[str, object]:
        """All rows as plain values, for JSON."""
        return {
            "clean": not self.leaks,
            "blind": self.blind,
            "sentence": self.sentence,
            "ways": list(self.ways),
            "rows": [asdict(row) for row in self.rows],
        }


def _listed(rows: list[Row]) -> str:
    """All changed keys as text; the row of all changes at once is listed only if no single change had an effect."""
    first = {row.key: row for row in reversed(rows)}
    single = [row for row in rows if first[row.key] is row and row.key != EVERYTHING]
    return ", ".join(f"{row.key} ({row.change})" for row in single or rows)
