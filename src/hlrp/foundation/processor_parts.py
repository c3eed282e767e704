"""Typed access to a Qwen3-VL processor's parts, which transformers attaches at run time."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase, Qwen2VLImageProcessor, Qwen3VLProcessor


def tokenizer_of(processor: Qwen3VLProcessor) -> PreTrainedTokenizerBase:
    """The processor's tokenizer."""
    return processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]


def image_processor_of(processor: Qwen3VLProcessor) -> Qwen2VLImageProcessor:
    """The processor's image part."""
    return processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]


def chat_template_of(processor: Qwen3VLProcessor) -> str:
    """The processor's chat template."""
    return processor.chat_template  # pyright: ignore[reportAttributeAccessIssue]


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, as_plain_text: bool = False) -> list[int]:
    """Token ids of `text`.

    Args:
        tokenizer: The tokenizer.
        text: What to encode.
        as_plain_text: Spell special tokens out as the characters they are written with.
    """
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=as_plain_text)
    return list(encoded["input_ids"])  # pyright: ignore[reportArgumentType]
