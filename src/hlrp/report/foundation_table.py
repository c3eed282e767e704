"""The figures of a foundation model, for a terminal."""

from __future__ import annotations

from hlrp.measure.code_accuracy import CodeFigures
from hlrp.measure.language import LanguageFigures
from hlrp.report.latent_table import judged_table
from hlrp.report.verdicts import foundation_conclusion, foundation_verdicts


def foundation_table(quality: CodeFigures, language: LanguageFigures) -> str:
    """Every held-out figure with its verdict, and the verdict on the whole."""
    values = quality.to_dict()
    verdicts = foundation_verdicts(values, language.to_dict())
    return judged_table("code prediction (held-out episodes)", verdicts, foundation_conclusion(values))
