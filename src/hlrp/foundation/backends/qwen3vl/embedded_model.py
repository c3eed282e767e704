"""A small Qwen3-VL for laptops, built offline: configuration, chat template and processor.

The classes are those of transformers; only sizes and vocabulary are defined in this project.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLProcessor, Qwen3VLVideoProcessor

from hlrp.foundation.backends.embedded import EmbeddedSize, language_settings, tiny_tokenizer
from hlrp.foundation.processor_parts import tokenizer_of

DEEPSTACK: dict[str, tuple[int, ...]] = {"debug": (0,), "demo": ()}
"""Vision blocks of each embedded size whose features are also added to the first layers of the language model."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\\n' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{{ 'assistant\\n' }}{% endif %}"
)
"""Qwen's conversation format, for messages whose content is a list of images and texts."""


def tiny_processor(size: EmbeddedSize, image_size: tuple[int, int]) -> Qwen3VLProcessor:
    """Qwen3-VL processor for still images of `image_size` (height, width), in pixels."""
    pixels = image_size[0] * image_size[1]
    images = Qwen2VLImageProcessor(
        patch_size=size.patch_size,
        merge_size=size.merge_size,
        temporal_patch_size=1,
        min_pixels=pixels,
        max_pixels=pixels,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    # The processor's constructor requires a video processor, which is never used here.
    videos = Qwen3VLVideoProcessor(patch_size=size.patch_size, merge_size=size.merge_size, temporal_patch_size=1)
    return Qwen3VLProcessor(images, tiny_tokenizer(), videos, chat_template=CHAT_TEMPLATE)


def tiny_qwen3vl_config(
    size: EmbeddedSize, processor: Qwen3VLProcessor, image_size: tuple[int, int], *, deepstack: Sequence[int] = ()
) -> Qwen3VLConfig:
    """Configuration of a Qwen3-VL of `size` over the vocabulary of `processor`, action tokens included.

    `deepstack` names the vision blocks whose features are also added to the first layers of the language model.
    """
    tokenizer = tokenizer_of(processor)
    # The position table is square; the vision tower interpolates it to the patch grid of an image.
    side = max(image_size) // size.patch_size
    head_dim = size.text_width // size.text_heads
    third = head_dim // 6  # rotary frequencies come in pairs and are shared by time, height and width
    vision = {
        "depth": size.vision_depth,
        "hidden_size": size.vision_width,
        "intermediate_size": size.mlp_ratio * size.vision_width,
        "num_heads": size.vision_heads,
        "patch_size": size.patch_size,
        "spatial_merge_size": size.merge_size,
        "temporal_patch_size": 1,
        "out_hidden_size": size.text_width,
        "num_position_embeddings": side**2,
        "deepstack_visual_indexes": list(deepstack),
        "initializer_range": size.initializer_range,
    }
    text = language_settings(size, tokenizer)
    text["head_dim"] = head_dim
    text["rope_parameters"] |= {
        "mrope_section": [head_dim // 2 - 2 * third, third, third],
        "mrope_interleaved": True,
    }
    return Qwen3VLConfig.from_dict(
        {
            "vision_config": vision,
            "text_config": text,
            "image_token_id": processor.image_token_id,
            "video_token_id": processor.video_token_id,
            "vision_start_token_id": processor.vision_start_token_id,
            "vision_end_token_id": processor.vision_end_token_id,
            "tie_word_embeddings": True,
        }
    )
