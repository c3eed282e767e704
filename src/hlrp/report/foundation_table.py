"""Table of the metrics of a foundation model, for a terminal."""

from __future__ import annotations

from hlrp.measure.code_accuracy import CodeAccuracy
from hlrp.measure.language import LanguageMetrics
from hlrp.report.latent_table import judged_table
from hlrp.report.verdicts.foundation import foundation_conclusion, foundation_verdicts


def foundation_table(quality: CodeAccuracy, language: LanguageMetrics) -> str:
    """Return a table of all metrics on held-out episodes with their verdicts, and the verdict on the whole model."""
    values = quality.to_dict()
    verdicts = foundation_verdicts(values, language.to_dict())
    return judged_table("code prediction (held-out episodes)", verdicts, foundation_conclusion(values))
