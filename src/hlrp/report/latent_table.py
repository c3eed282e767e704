"""The quality card of a quantizer, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from hlrp.laq.baselines import BaselineRow
from hlrp.laq.quality import LAQQuality
from hlrp.tables import table
from hlrp.verdicts import Verdict, latent_verdicts


def quality_table(quality: LAQQuality) -> str:
    """Every figure with its verdict."""
    return judged_table("latent quality (held-out episodes)", latent_verdicts(quality.to_dict()))


def judged_table(title: str, verdicts: Sequence[Verdict]) -> str:
    """Figures with their verdicts."""
    rows = [[verdict.name, verdict.value, verdict.word, verdict.wanted] for verdict in verdicts]
    return table([title, "value", "verdict", "wanted"], rows)


def baseline_table(rows: Sequence[BaselineRow]) -> str:
    """The quantizer beside codes of the same size from elsewhere."""
    return table(BASELINE_HEADER, [baseline_cells(row) for row in rows])


BASELINE_HEADER = ("codes of the same size", "probe R²", "95 % interval", "perplexity per slot", "tuple entropy")


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
