"""The quality card of a quantizer, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from hlrp.measure.baselines import BaselineRow
from hlrp.measure.laq_quality import LAQQuality
from hlrp.report.metrics import LAQ_METRICS
from hlrp.report.verdicts import Conclusion, Verdict, latent_conclusion, latent_verdicts
from hlrp.runtime.tables import table

_WIDTH = 80
"""Columns of a terminal."""


def quality_table(quality: LAQQuality, episodes: str = "held-out episodes") -> str:
    """Every figure with its verdict, and the verdict on the whole.

    Args:
        quality: The card.
        episodes: What was measured on, in a few words.
    """
    values = quality.to_dict()
    return judged_table(f"latent quality ({episodes})", latent_verdicts(values), latent_conclusion(values))


def judged_table(title: str, verdicts: Sequence[Verdict], conclusion: Conclusion) -> str:
    """Figures with their verdicts, then the verdict on the whole and the next step."""
    rows = [[verdict.name, verdict.value, verdict.word, verdict.wanted] for verdict in verdicts]
    whole = [f"verdict: {conclusion.word}, {conclusion.reason}", f"next: {conclusion.next_step}"]
    lines = [line for text in whole for line in wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)]
    return "\n".join([table([title, "value", "verdict", "wanted"], rows), *lines])


def baseline_table(rows: Sequence[BaselineRow]) -> str:
    """The quantizer beside codes of the same size from elsewhere."""
    return table(BASELINE_HEADER, [baseline_cells(row) for row in rows])


BASELINE_HEADER = (
    "codes of the same size",
    LAQ_METRICS["probe_r2"].name,
    "95 % interval",
    LAQ_METRICS["perplexity"].name,
    LAQ_METRICS["tuple_entropy_bits"].name,
)


def baseline_cells(row: BaselineRow) -> list[str]:
    """One line of the comparison, as text."""
    interval = row.probe_r2_interval
    return [
        row.name,
        "–" if row.probe_r2 is None else f"{row.probe_r2:.3f}",
        "–" if interval is None else f"{interval[0]:.2f} … {interval[1]:.2f}",
        "–" if row.perplexity is None else " ".join(f"{value:.1f}" for value in row.perplexity),
        "–" if row.tuple_entropy_bits is None else f"{row.tuple_entropy_bits:.1f} bits",
    ]
