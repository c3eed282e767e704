"""Report of a foundation model as a single HTML file with embedded images."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from hlrp.foundation.backends.interfaces import FoundationBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import METRICS_FILE, PAGE_FILE
from hlrp.foundation.predictions import device_of
from hlrp.measure.code_accuracy import CodeAccuracy
from hlrp.measure.foundation_quality import HeldOutMetrics
from hlrp.measure.language import LanguageMetrics
from hlrp.report.pages.parts import concluded, facts, figure, judged, page, paragraph, section, table
from hlrp.report.plots.foundation_plots import confusion_figure, reliability_figure, slot_accuracy_figure
from hlrp.report.verdicts.foundation import foundation_conclusion, foundation_verdicts
from hlrp.runtime.progress import progress
from hlrp.runtime.tables import with_noun
from hlrp.training.evaluation_mode import evaluation_mode

_NUM_EXAMPLES = 12
"""About how many held-out frames the page shows."""

_TITLE = "What the foundation model predicts"

_ACCURACY = "Share of codes that the model predicts right in each slot, beside the accuracy of simple guesses."
_CONFUSION = (
    "Each row is a true code and shows in percent how often each code (column) was decoded; rows add up to 100. Dark "
    "cells on the diagonal are right predictions. A dark column is a code that is predicted too often. An empty grey "
    "row is a code that never occurs."
)
_RELIABILITY = (
    "Left: share of right codes by the probability that the model gave them (dots), and the distance to perfect "
    "calibration, the diagonal (lines). Above the diagonal the model is right more often than its probabilities say, "
    "below the diagonal less often. Right: how often each probability occurs."
)
_EXAMPLES = (
    "Held-out frames with their instruction. For each slot from left to right: the true code from the quantizer, the "
    "code that the model decodes (✓ right, ✗ wrong), and the probability of the decoded code."
)


@dataclass(frozen=True)
class ExamplePrediction:
    """One labelled frame with its true codes and the codes that a model decodes."""

    image: UInt8[Tensor, "c h w"]
    """The frame, RGB in [0, 255]; the first camera if there are several."""
    instruction: str
    codes: tuple[int, ...]
    """True code of each slot, from the quantizer."""
    predicted: tuple[int, ...]
    """Code of each slot, decoded as at inference."""
    probabilities: tuple[float, ...]
    """Probability of the predicted code of each slot, given the predicted codes of the slots before."""


def example_predictions(backend: FoundationBackend, batch: FoundationBatch, count: int) -> list[ExamplePrediction]:
    """Predict the codes of `count` labelled frames, evenly spread over the batch, or of all if there are fewer.

    Raises:
        ValueError: If no frame of the batch is labelled, or `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}; leave the examples out instead")
    if batch.labels is None:
        raise ValueError("the batch has no codes to compare with; pass labelled frames")
    rows = batch.labels.counted.nonzero()[:, 0].cpu()
    if len(rows) == 0:
        raise ValueError(f"none of {len(batch)} frames has a label to compare with; pass labelled frames")
    rows = rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).long()]
    images, codes = batch.images[rows.to(batch.images.device)], batch.labels.to("cpu").rows(rows).require_codes()
    instructions = [batch.instructions[row] for row in rows.tolist()]
    with evaluation_mode(backend), torch.no_grad():
        decoded = backend.predict(FoundationBatch(images, instructions).to(device_of(backend)))
    return [
        ExamplePrediction(_bytes(image), instruction, tuple(truth), tuple(codes), tuple(probabilities))
        for image, instruction, truth, codes, probabilities in zip(
            images[:, 0].cpu(),
            instructions,
            codes.tolist(),
            decoded.codes.tolist(),
            decoded.log_probs.float().exp().tolist(),
            strict=True,
        )
    ]


def foundation_report(
    backend: FoundationBackend,
    metrics: HeldOutMetrics,
    batches: Sequence[FoundationBatch],
    about: Mapping[str, str],
) -> dict[str, str]:
    """Write the report of a trained model, as text files by name: the metrics as JSON, and the page.

    Args:
        backend: The model.
        metrics: Its metrics on held-out frames.
        batches: All held-out frames with their labels; a few become examples on the page.
        about: Rows of the table that says what was measured on what: text by name.
    """
    quality = metrics.quality.to_dict()
    values = {
        "quality": quality,
        "language": metrics.language.to_dict(),
        "verdict": foundation_conclusion(quality).to_dict(),
        "about": about,
    }
    html = render_foundation_page(metrics.quality, metrics.language, _spread_examples(backend, batches), about)
    return {METRICS_FILE: json.dumps(values, indent=2), PAGE_FILE: html}


def _spread_examples(backend: FoundationBackend, batches: Sequence[FoundationBatch]) -> list[ExamplePrediction]:
    """Predict about `_NUM_EXAMPLES` frames, a few from each of several distant batches.

    A batch holds neighbouring frames, which look alike.
    """
    spread = torch.linspace(0, len(batches) - 1, min(_NUM_EXAMPLES, len(batches))).long().tolist()
    each = -(-_NUM_EXAMPLES // len(spread))
    return [
        example
        for number in progress(spread, "predicting examples")
        for example in example_predictions(backend, batches[number], each)
    ]


def render_foundation_page(
    quality: CodeAccuracy,
    language: LanguageMetrics | None,
    examples: Sequence[ExamplePrediction],
    about: Mapping[str, str],
) -> str:
    """Render the report of a foundation model as HTML.

    Args:
        quality: Metrics of the predicted codes on held-out frames.
        language: Metrics of the codes under other instructions; None if not measured.
        examples: Frames to show with their predictions.
        about: Rows of the table that says what was measured on what: text by name.

    Returns:
        A complete HTML page.
    """
    values = quality.to_dict()
    under_other_instructions = None if language is None else language.to_dict()
    conclusion = foundation_conclusion(values)
    body = [
        f"<header><h1>{_TITLE}</h1>{facts(_facts(quality, language))}{concluded(conclusion)}</header>\n",
        section("Verdicts", paragraph(_basis(quality)), judged(foundation_verdicts(values, under_other_instructions))),
        section("Examples", paragraph(_EXAMPLES), _examples(examples)) if examples else "",
        section("Accuracy of each slot", figure(_ACCURACY, slot_accuracy_figure(quality))),
        section("Confusion of codes", figure(_CONFUSION, confusion_figure(quality.confusion))),
        section(
            "Calibration of the probabilities",
            figure(_RELIABILITY, reliability_figure(quality.reliability, quality.calibration_error)),
        ),
        section("What was measured", table(["", ""], [[escape(k), escape(v)] for k, v in about.items()])),
    ]
    return page(_TITLE, "".join(body))


def _facts(quality: CodeAccuracy, language: LanguageMetrics | None) -> list[tuple[str, str]]:
    """Return the numbers at the top of the page.

    The gain over guessing comes before the accuracy, since the best constant guess may have a high accuracy too.
    """
    decoded, guess = f"{quality.decoded_accuracy:.0%}", f"{quality.constant_guess_accuracy:.0%}"
    tiles = [(decoded, f"of codes right; the best constant guess has {guess}")]
    if quality.gain_over_guessing is not None:
        gain = f"{max(quality.gain_over_guessing, 0.0):.0%}"
        tiles.insert(0, (gain, "of the way from the best constant guess to all codes right"))
    if language is not None and language.changed_share is not None:
        tiles.append((f"{language.changed_share:.0%}", "of frames get other codes by the instruction of another task"))
    return tiles


def _basis(quality: CodeAccuracy) -> str:
    """Sentence that says which frames were measured, and which models were not trained on them."""
    not_trained_on = "that this model was not trained on; the quantizer that labelled them may have been."
    if quality.episodes is None:
        return f"{quality.frames} labelled frames {not_trained_on}"
    interval = (
        "" if quality.decoded_accuracy_interval is None else " Intervals are 95 % bootstrap intervals over episodes."
    )
    return f"{quality.frames} labelled frames of {with_noun(quality.episodes, 'episode')} {not_trained_on}{interval}"


def _examples(examples: Sequence[ExamplePrediction]) -> str:
    rows = [[_picture(example.image), escape(example.instruction), _codes(example)] for example in examples]
    return table(["frame", "instruction", "codes: true, decoded, probability"], rows)


def _codes(example: ExamplePrediction) -> str:
    """Return a grid with one column per slot: true code, decoded code, probability."""
    cells = []
    for truth, code, probability in zip(example.codes, example.predicted, example.probabilities, strict=True):
        right = truth == code
        mark = f'<span class="{"good" if right else "weak"}">{code} {"✓" if right else "✗"}</span>'
        cells.append(f"<div>{truth}<br>{mark}<br><small>{probability:.0%}</small></div>")
    style = "display:grid;grid-template-columns:repeat(auto-fill,3.4rem);gap:0.5rem;text-align:center"
    return f'<div style="{style}">{"".join(cells)}</div>'


def _picture(image: UInt8[Tensor, "c h w"]) -> str:
    buffer = BytesIO()
    Image.fromarray(rearrange(image, "c h w -> h w c").numpy()).save(buffer, format="png")
    content = base64.b64encode(buffer.getvalue()).decode()
    style = "display:block;width:112px;border-radius:8px;image-rendering:pixelated"
    return f'<img alt="held-out frame" style="{style}" src="data:image/png;base64,{content}">'


def _bytes(image: Float[Tensor, "c h w"]) -> UInt8[Tensor, "c h w"]:
    return (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
