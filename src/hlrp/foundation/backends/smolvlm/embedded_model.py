"""A small SmolVLM2 for laptops, built offline: configuration, tokenizer, chat template and processor.

The classes and the chat template are those of transformers; only sizes and vocabulary are defined here.
"""

from __future__ import annotations

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

from hlrp.foundation.backends.embedded import EmbeddedSize, language_settings, tiny_tokenizer
from hlrp.foundation.processor_parts import tokenizer_of

IMAGE_TOKENS = ("<fake_token_around_image>", "<global-img>", "<image>")
"""Image tokens under the names that SmolVLM's processor requires."""


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


def tiny_smolvlm_config(size: EmbeddedSize, processor: SmolVLMProcessor, image_size: tuple[int, int]) -> SmolVLMConfig:
    """Configuration of a SmolVLM of `size` over the vocabulary of `processor`, for images of `image_size`."""
    tokenizer = tokenizer_of(processor)
    vision = {
        "hidden_size": size.vision_width,
        "intermediate_size": size.mlp_ratio * size.vision_width,
        "num_hidden_layers": size.vision_depth,
        "num_attention_heads": size.vision_heads,
        "image_size": max(image_size),
        "patch_size": size.patch_size,
        "initializer_range": size.initializer_range,
    }
    text = {"model_type": "llama", "rms_norm_eps": 1e-5, **language_settings(size, tokenizer)}
    return SmolVLMConfig.from_dict(
        {
            "vision_config": vision,
            "text_config": text,
            "scale_factor": size.merge_size,
            "image_token_id": processor.image_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        }
    )


def set_position_spread(model: SmolVLMModel) -> None:
    """Draw the position embeddings of the image patches again, with standard deviation 1.

    transformers initializes them with the small standard deviation of all weights. The colour features of a patch are
    much larger, and the model then needs hundreds of steps to learn where in the image something is.
    """
    positions = model.vision_model.embeddings.get_submodule("position_embedding")
    assert isinstance(positions, nn.Embedding)
    nn.init.normal_(positions.weight)
