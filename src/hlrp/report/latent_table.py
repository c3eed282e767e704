"""Tables of the metrics of a quantizer and of its baselines, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from hlrp.measure.across_sources import SourcePair
from hlrp.measure.action_probe import ProbeMetrics
from hlrp.measure.baselines import BaselineRow
from hlrp.measure.laq_quality import LAQQuality
from hlrp.report.metrics import LAQ_METRICS
from hlrp.report.verdicts.latent import latent_conclusion, latent_verdicts
from hlrp.report.verdicts.rows import Conclusion, Verdict
from hlrp.runtime.tables import table, with_noun

_WIDTH = 80
"""Width at which text is wrapped, in characters."""


def quality_table(quality: LAQQuality, episodes: str = "held-out episodes") -> str:
    """Return a table of all metrics of a quantizer with their verdicts, and the verdict on the quantizer.

    Args:
        quality: Metrics of the quantizer.
        episodes: Which episodes were measured, in a few words.
    """
    values = quality.to_dict()
    judged = judged_table(f"latent quality ({episodes})", latent_verdicts(values), latent_conclusion(values))
    return "\n".join([judged, *wrap(basis_of_r2(quality.probe), _WIDTH)])


def basis_of_r2(probe: ProbeMetrics) -> str:
    """Sentence that says on how many clips and episodes with known actions the R² of a quantizer rests; empty without
    actions."""
    if probe.probe_clips is None or probe.probe_episodes is None or probe.probe_fit_clips is None:
        return ""
    episodes = with_noun(probe.probe_episodes, "episode")
    return (
        f"Every R² of actions is computed on {with_noun(probe.probe_clips, 'clip')} of {episodes} whose actions are "
        f"known, with linear maps fitted on {with_noun(probe.probe_fit_clips, 'clip')} of other episodes."
    )


def judged_table(title: str, verdicts: Sequence[Verdict], conclusion: Conclusion) -> str:
    """Return a table of metrics with their verdicts, followed by the verdict on the whole model and the next step."""
    rows = [[verdict.name, verdict.value, verdict.word, verdict.wanted] for verdict in verdicts]
    sentences = [f"verdict: {conclusion.word}, {conclusion.reason}", f"next: {conclusion.next_step}"]
    lines = [line for text in sentences for line in wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)]
    return "\n".join([table([title, "value", "verdict", "wanted"], rows), *lines])


def baseline_table(rows: Sequence[BaselineRow]) -> str:
    """Return a table that compares a quantizer (first row) with baselines that have codes of the same size."""
    return table(BASELINE_HEADER, [baseline_cells(row) for row in rows])


BASELINE_HEADER = (
    "codes of the same size",
    LAQ_METRICS["probe_r2"].name,
    "95 % interval",
    LAQ_METRICS["perplexity"].name,
    LAQ_METRICS["tuple_entropy_bits"].name,
)


def baseline_cells(row: BaselineRow) -> list[str]:
    """Return the cells of one row of the comparison, as plain text, in the order of `BASELINE_HEADER`."""
    interval = row.probe_r2_interval
    return [
        row.name,
        "–" if row.probe_r2 is None else f"{row.probe_r2:.3f}",
        "–" if interval is None else f"{interval[0]:.2f} … {interval[1]:.2f}",
        "–" if row.perplexity is None else " ".join(f"{value:.1f}" for value in row.perplexity),
        "–" if row.tuple_entropy_bits is None else f"{row.tuple_entropy_bits:.1f} bits",
    ]


def source_pairs_table(pairs: Sequence[SourcePair]) -> str:
    """Return a table that shows whether codes mean the same on all sources of a quantizer."""
    return table(SOURCE_PAIRS_HEADER, [source_pair_cells(pair) for pair in pairs])


SOURCE_PAIRS_HEADER = (
    "codes of",
    "on frames of",
    "codes read back",
    "by chance",
    LAQ_METRICS["probe_r2"].name,
    "on its own source",
)


def source_pair_cells(pair: SourcePair) -> list[str]:
    """Return the cells of one row, as plain text, in the order of `SOURCE_PAIRS_HEADER`."""
    values = (pair.transfer_consistency, pair.transfer_chance, pair.probe_r2, pair.own_probe_r2)
    return [pair.codes_of, pair.frames_of, *("–" if value is None else f"{value:.3f}" for value in values)]
