"""Read the text of an option as the user typed it: YAML takes `no` for false, `007` for 7 and `2:00:00` for 7200."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from draccus.choice_types import ChoiceRegistry
from draccus.parsers.decoding import decode_from_init
from draccus.utils import CONFIG_ARG, DecodingError

from hlrp.runtime.number_options import register_readers

_READERS: dict[type, Any] = {kind: partial(decode_from_init, kind) for kind in (str, Path)}
"""How draccus itself reads text and paths: whatever the value is, as `str(value)`."""
_NO_VALUE = ("", "~", "null", "Null", "NULL")
"""What YAML reads as no value, so that an option gets None."""


@contextmanager
def values_are_no_text() -> Iterator[None]:
    """Within the block, draccus refuses a number, a bool, a list and so on where a text is expected.

    In a file of options, and inside a list such as `sources`, the text that the user wrote is gone by then: draccus
    would read the instruction `No` as "False". Afterwards draccus reads text as before, for LeRobot's own files.
    """
    register_readers({kind: partial(_text, read) for kind, read in _READERS.items()})
    try:
        yield
    finally:
        register_readers(_READERS)


def exact_text(config_class: type, args: Sequence[str]) -> list[str]:
    """Put the text of every flag whose option is a text in quotes, so that draccus keeps it as it was typed.

    A text that is in quotes already, has a YAML tag or stands for no value stays as it is.

    Args:
        config_class: Dataclass of the options.
        args: Words of the command line, with flags as `--name=text` or `--name text`.
    """
    flags = {f"--{name}" for name in (CONFIG_ARG, *_text_options(config_class))}
    words: list[str] = []
    for previous, word in zip(["", *args], args, strict=False):  # each word with the one before it
        flag, is_assigned, text = word.partition("=")
        if is_assigned and flag in flags:
            words.append(f"{flag}={_quoted(text)}")
        else:
            words.append(_quoted(word) if previous in flags and not word.startswith("-") else word)
    return words


def _text_options(config_class: type) -> Iterator[str]:
    """Dotted names of the options of a dataclass, and of those nested in it, that are a text or a path."""
    is_choice = issubclass(config_class, ChoiceRegistry)
    for one in [config_class, *(config_class.get_known_choices().values() if is_choice else ())]:
        hints = get_type_hints(one)
        for option in fields(one):
            hint = hints[option.name]
            if isinstance(hint, type) and is_dataclass(hint):
                yield from (f"{option.name}.{name}" for name in _text_options(hint))
            elif _is_text(hint):
                yield option.name


def _is_text(hint: object) -> bool:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return {*kinds} - {type(None)} <= _READERS.keys()


def _quoted(text: str) -> str:
    is_yaml = text.strip() in _NO_VALUE or text.strip()[0] in "'\"!"
    return text if is_yaml else json.dumps(text, ensure_ascii=False)  # a string of JSON is one of YAML


def _text(read: Any, value: object, path: Sequence[str]) -> object:
    if isinstance(value, (str, Path)):
        return read(value, path)
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    raise DecodingError(path, f"expected a text, but without quotes it is read as {shown}; put the text in quotes")
