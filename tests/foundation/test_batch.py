from __future__ import annotations

import pytest
import torch

from hlrp.foundation.batch import FoundationBatch, require_codes, require_finite, require_instructions
from hlrp.latents import LatentActions, LatentSpec


@pytest.mark.parametrize("instruction", ["", "  \n", None])
def test_an_instruction_that_says_nothing_is_refused(instruction: str | None) -> None:
    with pytest.raises(ValueError, match="sample 1 has the instruction"):
        require_instructions(["open", instruction])


def test_nan_pixels_are_refused() -> None:
    images = torch.zeros(1, 1, 3, 2, 2)
    require_finite(images)
    images[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        require_finite(images)


@pytest.mark.parametrize("codes", [torch.tensor([[0, 8]]), torch.tensor([[-2, 0]]), torch.tensor([[0, 0, 0]])])
def test_codes_of_another_quantizer_are_refused(codes: torch.Tensor) -> None:
    spec = LatentSpec(codebook_size=8, code_seq_len=2)
    require_codes(torch.tensor([[-1, 7]]), spec)
    with pytest.raises(ValueError, match="codes must"):
        require_codes(codes, spec)


def test_a_time_axis_does_not_fit_a_batch() -> None:
    with pytest.raises((ValueError, TypeError)):  # TypeError where annotations are checked, as in test runs
        FoundationBatch(torch.zeros(1, 2, 1, 3, 4, 4), ["open"])


def test_every_sample_needs_an_instruction() -> None:
    with pytest.raises(ValueError, match="2 samples came with 1 instructions"):
        FoundationBatch(torch.zeros(2, 1, 3, 4, 4), ["open"])


def test_moving_a_batch_moves_every_tensor_and_keeps_the_text() -> None:
    batch = FoundationBatch(torch.zeros(1, 1, 3, 4, 4), ["open"], LatentActions.of_codes(torch.zeros(1, 2).long()))
    moved = batch.to("meta")
    assert moved.images.is_meta
    assert moved.labels is not None
    assert moved.labels.require_codes().is_meta
    assert moved.labels.valid.is_meta
    assert moved.instructions == ["open"]
