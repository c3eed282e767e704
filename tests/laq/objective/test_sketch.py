from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.config import LAQTrainingConfig, LossWeights
from hlrp.laq.objective.sketch import ChangeSketch
from hlrp.laq.objective.task import LAQTask


def test_a_still_sketch_of_a_change_costs_one_whatever_its_size() -> None:
    sketch = ChangeSketch(debug())
    torch.nn.init.zeros_(sketch.read.weight)
    torch.nn.init.zeros_(sketch.read.bias)
    vectors, change = torch.randn(4, 1, 4, 32), torch.randn(4, 1, 1, 3, 32, 32)
    for scale in (0.1, 1.0):
        assert sketch(vectors, scale * change).item() == pytest.approx(1)


def test_vectors_that_are_the_change_are_read_exactly() -> None:
    spec = replace(debug().spec, code_seq_len=1, code_dim=3 * 16 * 16)
    sketch = ChangeSketch(replace(debug(), spec=spec))
    torch.nn.init.eye_(sketch.read.weight)
    torch.nn.init.zeros_(sketch.read.bias)
    change = torch.randn(4, 2, 1, 3, 16, 16)
    assert sketch(change.flatten(2)[:, :, None], change).item() == pytest.approx(0, abs=1e-9)


def test_a_task_without_a_sketch_has_no_head_for_it() -> None:
    model = LatentActionQuantizer(debug())
    assert LAQTask(model, LAQTrainingConfig(losses=LossWeights(sketch=0))).sketch is None
    assert not any("sketch" in name for name in model.state_dict())
