from __future__ import annotations

import copy

import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

from hlrp.foundation.backends.embedded import EmbeddedSize
from hlrp.foundation.backends.qwen3vl.embedded_model import tiny_processor, tiny_qwen3vl_config
from hlrp.foundation.backends.qwen3vl.images import ImageGeometry, build_pixel_values
from hlrp.foundation.backends.qwen3vl.uniform_vision import use_uniform_vision


def towers() -> tuple[Qwen3VLVisionModel, Qwen3VLVisionModel, dict[str, torch.Tensor]]:
    """The stock tower, ours with the same weights, and inputs of three images that are not square."""
    size = EmbeddedSize(
        patch_size=4,
        vision_width=24,
        vision_depth=2,
        vision_heads=2,
        text_width=24,
        text_depth=1,
        text_heads=2,
        initializer_range=0.2,
    )
    processor = tiny_processor(size, (16, 24))
    torch.manual_seed(0)
    stock = Qwen3VLVisionModel._from_config(
        tiny_qwen3vl_config(size, processor, (16, 24), deepstack=(0,)).vision_config
    )
    ours = copy.deepcopy(stock)
    use_uniform_vision(ours)
    geometry = ImageGeometry.of(processor.image_processor, (16, 24))
    inputs = {
        "hidden_states": build_pixel_values(torch.rand(3, 3, 16, 24), geometry),
        "grid_thw": geometry.grid(3),
    }
    return stock, ours, inputs


def test_the_uniform_tower_gives_the_stock_towers_numbers() -> None:
    stock, ours, inputs = towers()
    expected, got = stock(**inputs), ours(**inputs)
    torch.testing.assert_close(got.pooler_output, expected.pooler_output, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.deepstack_features, expected.deepstack_features, atol=1e-5, rtol=1e-5)


def test_the_uniform_tower_gives_the_stock_towers_gradients() -> None:
    stock, ours, inputs = towers()
    for tower in (stock, ours):
        tower(**inputs).pooler_output.square().sum().backward()
    for (name, expected), got in zip(stock.named_parameters(), ours.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(got.grad, expected.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_state_dict_names_stay_the_stock_models() -> None:
    stock, ours, _ = towers()
    assert list(ours.state_dict()) == list(stock.state_dict())
