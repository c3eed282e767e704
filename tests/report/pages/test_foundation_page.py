"""The page of one foundation model: whole, self-contained, and honest about what was not measured."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from io import BytesIO

import pytest
import torch
from PIL import Image

from hlrp.foundation.backends import QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.predictions import CodePredictions, predict_codes
from hlrp.latents import LatentActions, LatentSpec
from hlrp.measure.code_accuracy import CodeAccuracy, LastCodeGuess, code_accuracy
from hlrp.measure.language import language_metrics, swapped_instructions
from hlrp.report.pages.foundation_page import example_predictions, render_foundation_page
from hlrp.report.plots.foundation_plots import confusion_figure, reliability_figure, slot_accuracy_figure
from hlrp.report.verdicts.foundation import foundation_verdicts
from labelled_batch import codes_of, with_labels

pytestmark = pytest.mark.filterwarnings("error")  # a layout that does not fit only warns

SPEC = LatentSpec(codebook_size=4, code_seq_len=2)
IMAGE = re.compile(r'src="data:image/png;base64,([^"]+)"')


@pytest.fixture(scope="module")
def backend() -> QwenVLChatBackend:
    """Untrained; only read."""
    torch.manual_seed(0)
    return QwenVLChatBackend.build(QwenVLChatConfig(embedded_size="debug", image_size=(32, 32)), SPEC).eval()


@pytest.fixture
def batch() -> FoundationBatch:
    """Six frames of two tasks, the last two of them without a label that counts."""
    return FoundationBatch(
        torch.rand(6, 2, 3, 32, 32),
        ["Open a <drawer>", "Close a drawer"] * 3,
        LatentActions(
            torch.tensor([[0, 1], [1, 1], [2, 3], [3, 0], [0, 0], [-1, -1]]),
            None,
            torch.tensor([True, True, True, True, False, True]),
        ),
    )


def drawn(slots: int, k: int, frames: int = 200) -> CodeAccuracy:
    """Of random codes, half of which are right."""
    codes = torch.randint(k, (frames, slots))
    decoded = torch.where(torch.rand(frames, slots) < 0.5, codes, torch.randint(k, (frames, slots)))
    sure = torch.rand(frames, slots)
    found = CodePredictions(
        codes, decoded, sure, codes, torch.rand(frames, slots), torch.ones(frames, dtype=torch.bool)
    )
    guess = LastCodeGuess(frames // 2, [0.4] * slots)
    return code_accuracy(found, codebook_size=k, episode=torch.arange(frames) // 20, last_code=guess)


def test_the_page_loads_nothing_and_shows_figures_and_examples(
    backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    figures = code_accuracy(predict_codes(backend, [batch]), codebook_size=4, episode=torch.arange(6) // 2)
    language = language_metrics(backend, [batch], swapped_instructions(batch.instructions))
    examples = example_predictions(backend, batch, 3)
    page = render_foundation_page(figures, language, examples, {"dataset": "<noise>"})
    assert page.count("<img") == len(examples) + 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page
    assert "&lt;noise&gt;" in page
    assert "Open a &lt;drawer&gt;" in page
    for name in ("decoded accuracy", "calibration error", "worth of the instruction", "distance by other words"):
        assert name in page
    for content in IMAGE.findall(page)[len(examples) :]:
        with Image.open(BytesIO(base64.b64decode(content))) as image:
            assert (image.format, image.width) == ("PNG", 1152)


def test_examples_are_labelled_frames_with_what_the_model_decodes(
    backend: QwenVLChatBackend, batch: FoundationBatch
) -> None:
    examples = example_predictions(backend, batch, 10)
    assert [list(example.codes) for example in examples] == codes_of(batch)[:4].tolist()
    assert [example.instruction for example in examples] == batch.instructions[:4]
    said = backend.predict(batch)
    for row, example in enumerate(examples):
        assert list(example.predicted) == said.codes[row].tolist()
        assert example.probabilities == pytest.approx(said.log_probs[row].exp().tolist(), rel=1e-4)
        torch.testing.assert_close(example.image.float() / 255, batch.images[row, 0], atol=1 / 500, rtol=0)
    spread = example_predictions(backend, batch, 2)
    assert [list(example.codes) for example in spread] == codes_of(batch)[[0, 3]].tolist()


def test_right_codes_are_marked_and_wrong_ones_too(backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    (example,) = example_predictions(backend, batch, 1)
    mixed = replace(example, codes=(1, 2), predicted=(1, 3), probabilities=(0.91, 0.42))
    page = render_foundation_page(drawn(2, 4), None, [mixed], {})
    assert '<span class="good">1 ✓</span><br><small>91%</small>' in page
    assert '<span class="weak">3 ✗</span><br><small>42%</small>' in page


def test_examples_without_labels_are_refused(backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    with pytest.raises(ValueError, match="count must be at least 1"):
        example_predictions(backend, batch, 0)
    with pytest.raises(ValueError, match="no codes to compare with"):
        example_predictions(backend, replace(batch, labels=None), 1)
    with pytest.raises(ValueError, match="none of 6 frames has a label"):
        example_predictions(backend, with_labels(batch, valid=torch.zeros(6, dtype=torch.bool)), 1)


def test_a_model_is_judged_by_the_lower_end_of_its_interval() -> None:
    better = replace(
        drawn(2, 4), decoded_accuracy=0.5, decoded_accuracy_interval=(0.3, 0.7), constant_guess_accuracy=0.25
    )
    verdicts = {row.name: row for row in foundation_verdicts(better.to_dict())}
    assert verdicts["decoded accuracy"].good
    assert verdicts["decoded accuracy"].value == "0.500 (0.30 … 0.70)"
    assert verdicts["best constant guess"].good is None
    unsure = replace(better, decoded_accuracy_interval=(0.2, 0.7))
    assert foundation_verdicts(unsure.to_dict())[0].word == "unsure"
    same = replace(better, decoded_accuracy_interval=None, constant_guess_accuracy=0.5)
    assert foundation_verdicts(same.to_dict())[0].word == "weak"


def test_what_was_not_measured_is_left_out_or_says_why(backend: QwenVLChatBackend, batch: FoundationBatch) -> None:
    bare = replace(drawn(2, 4), last_code_accuracy=None, last_code_accuracy_per_slot=None, last_code_frames=None)
    page = render_foundation_page(bare, None, [], {})
    assert "span before" not in page
    assert "instruction of another task" not in page
    assert "Examples" not in page
    single = language_metrics(backend, [batch], {})
    assert "not measured: every frame has the same instruction" in render_foundation_page(bare, single, [], {})
    unlabelled = language_metrics(backend, [replace(batch, labels=None)], swapped_instructions(batch.instructions))
    names = [row.name for row in foundation_verdicts(bare.to_dict(), unlabelled.to_dict())]
    assert "worth of the instruction" not in names
    assert "codes changed by other words" in names


@pytest.mark.parametrize(("slots", "k"), [(1, 2), (4, 8), (6, 16), (16, 64)])
def test_figures_have_room_for_few_and_many_slots_and_codes(slots: int, k: int) -> None:
    figures = drawn(slots, k, frames=60)
    for content in (
        slot_accuracy_figure(figures),
        confusion_figure(figures.confusion),
        reliability_figure(figures.reliability, figures.calibration_error),
    ):
        with Image.open(BytesIO(content)) as image:
            assert image.width == 1152
            assert image.height < 2400


def test_a_confusion_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="counts by slot, true code and decoded code"):
        confusion_figure([])
