"""What a training run is made of: settings and data that must be the same when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase

import draccus

_MAY_CHANGE = (
    "output_dir",
    "resume",
    "device",
    # How long, and how often is looked.
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
    # Where the data and the LAQ lie: what they hold is compared instead, when they are open.
    "*dataset_root",
    "*labels_path",
    "laq_path",
)
"""Settings that a resumed run may have other values of, as patterns of their names."""


def lasting_settings(config: object) -> dict[str, object]:
    """Every setting of `config`, a dataclass of a command, that a resumed run must share, by the name of its flag."""
    plain = json.loads(json.dumps(draccus.encode(config)))
    flat = _flat("", plain)
    return {name: value for name, value in flat.items() if not any(fnmatchcase(name, kind) for kind in _MAY_CHANGE)}


def require_same(before: Mapping[str, object], now: Mapping[str, object], *, prefix: str, remedy: str) -> None:
    """Raise unless a resumed run has what the interrupted run had.

    Args:
        before: Plain values of the interrupted run by name.
        now: Those of the run that resumes it.
        prefix: Put before each name, such as -- for flags.
        remedy: What to do, the end of the message.

    Raises:
        ValueError: With every name whose value differs.
    """
    differing = [
        f"{prefix}{name} was {_shown(before, name)} in the interrupted run and is {_shown(now, name)} now"
        for name in dict.fromkeys((*before, *now))
        if (name in before, before.get(name)) != (name in now, now.get(name))
    ]
    if differing:
        raise ValueError(f"{'; '.join(differing)}; {remedy}")


def _flat(name: str, value: object) -> dict[str, object]:
    """The leaves of nested mappings, and of lists of mappings, by dotted name."""
    if isinstance(value, Mapping):
        children = {f"{name}.{key}" if name else str(key): child for key, child in value.items()}
    elif isinstance(value, list) and any(isinstance(child, Mapping) for child in value):
        children = {f"{name}[{number}]": child for number, child in enumerate(value)}
    else:
        return {name: value}
    return {key: leaf for child_name, child in children.items() for key, leaf in _flat(child_name, child).items()}


def _shown(values: Mapping[str, object], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "not set"
