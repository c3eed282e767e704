"""Let draccus refuse `!include FILE` and `include FILE`, by which an option would read another file of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from draccus.parsers.yaml_loader import FullLoaderWithInclusion, SafeLoaderWithInclusion, include_constructor

_TAG, _PREFIX = "!include", "include"
"""Beginnings of a value for which draccus reads a file: for `include/x` and `include_x` it reads the file `x`."""
_REASON = "no option reads another file; give the value itself"
_LOADERS: tuple[Any, ...] = (FullLoaderWithInclusion, SafeLoaderWithInclusion)


@contextmanager
def no_included_files() -> Iterator[None]:
    """Within the block, an option with `!include` or `include` is an error instead of the content of a file.

    Raises:
        ValueError: If a flag of this process has a value that begins with `include`.
    """
    for flag in sys.argv[1:]:
        value = flag.partition("=")[2] if flag.startswith("--") else flag
        if value.strip().strip("'\"").startswith(_PREFIX):
            raise ValueError(f"{flag} is refused: {_REASON}, or a path that begins with {_PREFIX} as ./{_PREFIX}…")
    _register(_refuse)
    try:
        yield
    finally:
        _register(include_constructor)


def _register(constructor: Any) -> None:
    for loader in _LOADERS:
        loader.add_constructor(_TAG, constructor)


def _refuse(loader: Any, node: Any) -> object:
    raise yaml.YAMLError(f"{_TAG} {node.value} is refused: {_REASON}")
