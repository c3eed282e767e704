"""Typed access to the parts of a chat processor, which transformers sets at run time, and saving of its files."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoProcessor, PreTrainedTokenizerBase, ProcessorMixin

from hlrp.foundation.pretrained_files import require_no_own_code
from hlrp.runtime.size_limits import LONGEST_TEMPLATE
from hlrp.storage.artefacts import COPY_AGAIN, read_json, reading

_CHAT_TEMPLATE_FILE = "chat_template.json"
_PROCESSOR_FILE, _TOKENIZER_FILE = "processor_config.json", "tokenizer_config.json"


def tokenizer_of(processor: ProcessorMixin) -> PreTrainedTokenizerBase:
    """Tokenizer of a chat processor."""
    return processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]


def pretrained_processor(model_name: str) -> ProcessorMixin:
    """The processor of a pretrained chat model, from a local folder, the hub or its cache.

    Raises:
        FileNotFoundError: If there is no such model, which the errors of transformers do not name.
    """
    try:
        return AutoProcessor.from_pretrained(model_name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"model {model_name!r} is neither the folder of a chat model nor available on the hub; check the name "
            f"and the network, or download it and name its folder as model_name ({str(error).splitlines()[0]})"
        ) from error


def saved_processor(directory: Path, kind: type[ProcessorMixin]) -> ProcessorMixin:
    """The processor that `save_processor` wrote to `directory`; no code in this folder is run.

    Raises:
        ValueError: If a file is damaged, names code to import, or describes a processor of another `kind`.
    """
    for name in (_PROCESSOR_FILE, _TOKENIZER_FILE):
        require_no_own_code(directory / name)
    with reading(f"the files of {directory}"):
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if not isinstance(processor, kind):
        raise ValueError(
            f"{directory / _PROCESSOR_FILE} describes a {type(processor).__name__}, expected {kind.__name__}"
        )
    require_template(directory / _CHAT_TEMPLATE_FILE)
    return processor


def require_template(path: Path) -> None:
    """Raise unless the JSON file at `path` holds a chat template of a sensible length.

    Raises:
        ValueError: If the template is missing, no text, empty, or too long.
    """
    template = read_json(path).get("chat_template")
    if not isinstance(template, str) or not 0 < len(template) <= LONGEST_TEMPLATE:
        raise ValueError(
            f"{path} holds no chat template: expected a text of 1 to {LONGEST_TEMPLATE} characters; {COPY_AGAIN}"
        )


def save_processor(processor: ProcessorMixin, directory: Path) -> None:
    """Write tokenizer, chat template and image processor as JSON files.

    `processor.save_pretrained` is not used: it writes the chat template as a .jinja file, which LeRobot's upload to the
    hub omits.
    """
    processor.to_json_file(directory / _PROCESSOR_FILE)
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
