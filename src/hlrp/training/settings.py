"""Compare the settings and data of a resumed training run with those of the interrupted run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase

import draccus

_MAY_CHANGE = (
    "output_dir",
    "resume",
    "log_json",
    "device",
    # How long training runs, and how often it saves and validates.
    "steps",
    "save_every",
    "validate_every",
    # How the same steps are computed.
    "num_workers",
    "cache_gib",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.compile",
    "trainer.loggers",
    "trainer.gates*",
    # Folders of the data and of the LAQ may move: their contents are compared instead, once they are open.
    "*dataset_root",
    "*labels_path",
    "laq_path",
)
"""Patterns of the names of settings that may change when a run is resumed."""


def lasting_settings(config: object) -> dict[str, object]:
    """All settings of `config`, the dataclass of a command, that must not change in a resumed run, by flag name."""
    plain = json.loads(json.dumps(draccus.encode(config)))
    flat = _flat("", plain)
    return {name: value for name, value in flat.items() if not any(fnmatchcase(name, kind) for kind in _MAY_CHANGE)}


def require_same(before: Mapping[str, object], now: Mapping[str, object], *, prefix: str, remedy: str) -> None:
    """Raise unless a resumed run has the same values as the interrupted run.

    Args:
        before: Plain values of the interrupted run, by name.
        now: Plain values of the resumed run, by name.
        prefix: Text before each name in the message, such as "--" for flags.
        remedy: Advice at the end of the message.

    Raises:
        ValueError: If a value differs; the message names all values that differ.
    """
    differing = [
        f"{prefix}{name} was {_value_text(before, name)} in the interrupted run and is {_value_text(now, name)} now"
        for name in dict.fromkeys((*before, *now))
        if (name in before, before.get(name)) != (name in now, now.get(name))
    ]
    if differing:
        raise ValueError(f"{'; '.join(differing)}; {remedy}")


def _flat(name: str, value: object) -> dict[str, object]:
    """Flatten nested mappings, and lists of mappings, to values by dotted name."""
    if isinstance(value, Mapping):
        children = {f"{name}.{key}" if name else str(key): child for key, child in value.items()}
    elif isinstance(value, list) and any(isinstance(child, Mapping) for child in value):
        children = {f"{name}[{number}]": child for number, child in enumerate(value)}
    else:
        return {name: value}
    return {key: leaf for child_name, child in children.items() for key, leaf in _flat(child_name, child).items()}


def _value_text(values: Mapping[str, object], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "not set"
