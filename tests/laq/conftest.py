"""Debug-size quantizers and a clip of noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentSpec


@pytest.fixture
def clips() -> Tensor:
    """Six clips of two frames, uint8."""
    return torch.randint(0, 256, (6, 2, 1, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture(params=["fsq", "vq"])
def model(request: pytest.FixtureRequest, clips: Tensor) -> LatentActionQuantizer:
    """One of each quantizer, in evaluation mode, after it has seen a training batch."""
    return make_model(request.param, clips)


@pytest.fixture
def fsq_model(clips: Tensor) -> LatentActionQuantizer:
    """The default quantizer, likewise."""
    return make_model("fsq", clips)


@pytest.fixture
def kmeans_model(clips: Tensor) -> LatentActionQuantizer:
    """A quantizer whose codes are not fitted yet, likewise."""
    return make_model("kmeans", clips)


def make_model(quantizer: str, clips: Tensor) -> LatentActionQuantizer:
    torch.manual_seed(0)
    config = replace(debug(), spec=LatentSpec(code_seq_len=3, code_dim=8), quantizer=quantizer)
    model = LatentActionQuantizer(config).train()
    model(torch.rand(64, *clips.shape[1:]))
    return model.eval()
