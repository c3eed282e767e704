"""Let draccus refuse `!include`, by which an option or a file of options would read another file of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from draccus.parsers.yaml_loader import FullLoaderWithInclusion, SafeLoaderWithInclusion, include_constructor

_TAG = "!include"
_LOADERS: tuple[Any, ...] = (FullLoaderWithInclusion, SafeLoaderWithInclusion)


@contextmanager
def no_included_files() -> Iterator[None]:
    """Within the block, an option with `!include` is an error of YAML instead of the content of a file."""
    _register(_refuse)
    try:
        yield
    finally:
        _register(include_constructor)


def _register(constructor: Any) -> None:
    for loader in _LOADERS:
        loader.add_constructor(_TAG, constructor)


def _refuse(loader: Any, node: Any) -> object:
    raise yaml.YAMLError(f"{_TAG} {node.value} is refused: no option reads another file; give the value itself")
