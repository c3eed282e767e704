"""Typed access to the parts of a chat processor, which transformers sets at run time, and saving of its files."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoProcessor, PreTrainedTokenizerBase, ProcessorMixin

_CHAT_TEMPLATE_FILE = "chat_template.json"


def tokenizer_of(processor: ProcessorMixin) -> PreTrainedTokenizerBase:
    """Tokenizer of a chat processor."""
    return processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]


def pretrained_processor(model_name: str) -> ProcessorMixin:
    """The processor of a pretrained chat model, from a local folder, the hub or its cache.

    Raises:
        FileNotFoundError: If there is no such model, which the errors of transformers do not name.
    """
    try:
        return AutoProcessor.from_pretrained(model_name)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"model {model_name!r} is neither the folder of a chat model nor to be had from the hub; check the name "
            f"and the network, or download it and name its folder as model_name ({str(error).splitlines()[0]})"
        ) from error


def save_processor(processor: ProcessorMixin, directory: Path) -> None:
    """Write tokenizer, chat template and image processor as JSON files.

    `processor.save_pretrained` is not used: it writes the chat template as a .jinja file, which LeRobot's upload to the
    hub omits.
    """
    processor.to_json_file(directory / "processor_config.json")
    tokenizer = tokenizer_of(processor)
    template, tokenizer.chat_template = tokenizer.chat_template, None  # written once, with the processor
    try:
        tokenizer.save_pretrained(directory)
    finally:
        tokenizer.chat_template = template
    text = json.dumps({"chat_template": processor.chat_template}, indent=2)  # pyright: ignore[reportAttributeAccessIssue]
    (directory / _CHAT_TEMPLATE_FILE).write_text(text, encoding="utf-8")


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str, *, as_plain_text: bool = False) -> list[int]:
    """Token ids of `text`.

    Args:
        tokenizer: The tokenizer.
        text: What to encode.
        as_plain_text: Encode special tokens in `text` as ordinary characters.
    """
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=as_plain_text)
    return list(encoded["input_ids"])  # pyright: ignore[reportArgumentType]
