"""Save trained models together with the model card that the hub shows, which has their metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hlrp.foundation import checkpoint as foundation_checkpoint
from hlrp.foundation.backends import FoundationBackend
from hlrp.foundation.checkpoint import write_foundation
from hlrp.laq import checkpoint as laq_checkpoint
from hlrp.laq.checkpoint import write_laq
from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.code_accuracy import CodeAccuracy
from hlrp.measure.language import LanguageMetrics
from hlrp.measure.laq_quality import LAQQuality
from hlrp.report.cards.foundation_card import foundation_card
from hlrp.report.cards.laq_card import model_card


def save_laq(
    model: LatentActionQuantizer,
    folder: Path | str,
    *,
    overwrite: bool = False,
    cameras: Sequence[str] = (),
    quality: LAQQuality | None = None,
    extra: Mapping[str, Any] | None = None,
    beside: Mapping[str, str] | None = None,
) -> Path:
    """Write a quantizer with its quality card and its model card to `folder`, completely or not at all.

    Args:
        model: The quantizer.
        folder: Folder to create.
        overwrite: Replace an earlier quantizer in `folder`.
        cameras: Dataset keys of the cameras it was trained on, in the order of its channels.
        quality: Metrics on held-out clips; None if they have not been measured.
        extra: What the quantizer was trained on, as plain values for JSON.
        beside: Further text files of the folder, by name, such as the curves of the training.

    Raises:
        FileExistsError: If `folder` exists, and `overwrite` is false or it holds no quantizer.
    """
    facts = extra or {}
    card = model_card(model, cameras=cameras, quality=quality, extra=facts)
    files = {laq_checkpoint.CARD_FILE: card, **(beside or {})}
    if quality is not None:
        files[laq_checkpoint.QUALITY_FILE] = json.dumps(quality.to_dict(), indent=2) + "\n"
    return write_laq(model, folder, overwrite=overwrite, cameras=cameras, extra=facts, beside=files)


def save_foundation(
    backend: FoundationBackend,
    folder: Path | str,
    *,
    overwrite: bool = False,
    laq_fingerprint: str,
    extra: Mapping[str, Any] | None = None,
    quality: CodeAccuracy | None = None,
    language: LanguageMetrics | None = None,
    beside: Mapping[str, str] | None = None,
) -> Path:
    """Write a foundation model with its model card to `folder`, completely or not at all.

    Args:
        backend: The model.
        folder: Folder to create.
        overwrite: Replace an earlier foundation model in `folder`.
        laq_fingerprint: Fingerprint of the LAQ that made the labels.
        extra: Facts of the training run, as plain values for JSON.
        quality: Metrics on held-out frames for the card; None if they have not been measured.
        language: Metrics of the same frames under other instructions, for the card.
        beside: Further text files of the folder, by name, such as a report.

    Raises:
        FileExistsError: If `folder` exists, and `overwrite` is false or it holds no foundation model.
    """
    facts = extra or {}
    card = foundation_card(backend, laq_fingerprint=laq_fingerprint, extra=facts, quality=quality, language=language)
    files = {foundation_checkpoint.CARD_FILE: card, **(beside or {})}
    return write_foundation(
        backend, folder, overwrite=overwrite, laq_fingerprint=laq_fingerprint, extra=facts, beside=files
    )
