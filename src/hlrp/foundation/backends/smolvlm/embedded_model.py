"""A small SmolVLM2 for laptops, built offline: configuration, tokenizer, chat template and processor.

The classes and the chat template are those of transformers; only sizes and vocabulary are defined here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMModel,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,  # pyright: ignore[reportAttributeAccessIssue]
)
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

from hlrp.foundation.backends.qwen3vl.embedded_model import tiny_tokenizer

IMAGE_TOKENS = ("<fake_token_around_image>", "<global-img>", "<image>")
"""Image tokens under the names that SmolVLM's processor requires."""


@dataclass(frozen=True, kw_only=True)
class TinySmolSize:
    """Sizes of a small SmolVLM."""

    patch_size: int = 8
    """Side of one image patch, in pixels."""
    scale_factor: int = 2
    """Patches per side merged into one language-model token."""
    vision_width: int
    """Width of the vision tower."""
    vision_depth: int
    """Blocks of the vision tower."""
    vision_heads: int
    """Attention heads of the vision tower."""
    text_width: int
    """Width of the language model."""
    text_depth: int
    """Layers of the language model."""
    text_heads: int
    """Attention heads of the language model."""
    mlp_ratio: int = 2
    """Width of the feed-forward layers as a multiple of the model's width."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""
    position_std: float = 1.0
    """Standard deviation of the initial position embeddings of image patches."""


def debug_smol_size() -> TinySmolSize:
    """The smallest model that has every part: for tests and first runs."""
    return TinySmolSize(vision_width=32, vision_depth=1, vision_heads=2, text_width=32, text_depth=1, text_heads=2)


def demo_smol_size() -> TinySmolSize:
    """Width, depth, patches and tokens of the embedded Qwen3-VL of size demo; see `demo_size` of the embedded Qwen3-VL.

    A training step takes no longer than a step of that Qwen3-VL.
    """
    return TinySmolSize(
        vision_width=64,
        vision_depth=2,
        vision_heads=2,
        text_width=64,
        text_depth=2,
        text_heads=2,
        initializer_range=0.06,
    )


def tiny_smol_size(name: str) -> TinySmolSize:
    """The embedded size called `name`.

    Raises:
        ValueError: If there is no such size.
    """
    sizes = {"debug": debug_smol_size, "demo": demo_smol_size}
    if name not in sizes:
        raise ValueError(f"embedded_size must be one of {', '.join(sizes)}, got {name!r}")
    return sizes[name]()


def tiny_smol_tokenizer() -> PreTrainedTokenizerFast:
    """Embedded byte-level BPE tokenizer with SmolVLM's special tokens; identical on every machine."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<end_of_utterance>", "additional_special_tokens": list(IMAGE_TOKENS)})
    return tokenizer


def tiny_smol_processor() -> SmolVLMProcessor:
    """SmolVLM processor over the embedded tokenizer; the backend sets its image size."""
    images = SmolVLMImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    videos = SmolVLMVideoProcessor()  # required by the processor's constructor, but never used here
    return SmolVLMProcessor(images, tiny_smol_tokenizer(), videos, chat_template=DEFAULT_CHAT_TEMPLATE)


def tiny_smolvlm_config(size: TinySmolSize, processor: SmolVLMProcessor, image_size: tuple[int, int]) -> SmolVLMConfig:
    """Configuration of a SmolVLM of `size` over the vocabulary of `processor`, for images of `image_size`."""
    tokenizer: PreTrainedTokenizerFast = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    vision = {
        "hidden_size": size.vision_width,
        "intermediate_size": size.mlp_ratio * size.vision_width,
        "num_hidden_layers": size.vision_depth,
        "num_attention_heads": size.vision_heads,
        "image_size": max(image_size),
        "patch_size": size.patch_size,
        "initializer_range": size.initializer_range,
    }
    text = {
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "hidden_size": size.text_width,
        "intermediate_size": size.mlp_ratio * size.text_width,
        "num_hidden_layers": size.text_depth,
        "num_attention_heads": size.text_heads,
        "num_key_value_heads": size.text_heads,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rms_norm_eps": 1e-5,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": size.initializer_range,
    }
    return SmolVLMConfig.from_dict(
        {
            "vision_config": vision,
            "text_config": text,
            "scale_factor": size.scale_factor,
            "image_token_id": processor.image_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        }
    )


def set_position_spread(model: SmolVLMModel, size: TinySmolSize) -> None:
    """Draw the position embeddings of the image patches again, with standard deviation `size.position_std`.

    transformers initializes them with the small standard deviation of all weights. The colour features of a patch are
    much larger, and the model then needs hundreds of steps to learn where in the image something is.
    """
    positions = model.vision_model.embeddings.get_submodule("position_embedding")
    assert isinstance(positions, nn.Embedding)
    nn.init.normal_(positions.weight, std=size.position_std)
