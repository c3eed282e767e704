"""Build configurations and descriptions from the plain values of a JSON file; errors name the entry that is wrong."""

from __future__ import annotations

import collections.abc
import json
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

_SCALARS: dict[object, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    type(None): ((type(None),), "null"),
}
"""Types of JSON values that an annotation accepts, and their name in messages. Python counts a bool as an int; the
comparison is of exact types, so that `true` is no number."""


def from_plain[T](kind: type[T], value: object, *, at: str = "") -> T:
    """Build a `kind` from a plain value, with nested dataclasses, and check the type of every entry.

    Args:
        kind: A dataclass, or any annotation that its fields may have: a scalar, list, tuple, dict, Literal or union.
        value: Value that `json.loads` gave. A list becomes a tuple where `kind` asks for one; numbers stay as they are,
            since a fingerprint depends on whether a file says 1 or 1.0.
        at: Name of the value in messages, such as "config.spec"; empty for a whole file.

    Raises:
        ValueError: If an entry is missing, unknown, of another type, or refused by the check of its dataclass.
    """
    return cast(T, _built(kind, value, at))


def _built(kind: Any, value: object, at: str) -> object:
    origin, args = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return value
    if kind in _SCALARS:
        accepted, expected = _SCALARS[kind]
        return value if type(value) in accepted else _refuse(at, expected, value)
    if origin in (Union, types.UnionType):
        return _one_of(args, value, at)
    if origin is Literal:
        matches = any(value == choice and type(value) is type(choice) for choice in args)
        return value if matches else _refuse(at, f"one of {', '.join(map(str, args))}", value)
    if is_dataclass(kind):
        return _dataclass(cast(type, kind), value, at)
    if origin in (dict, collections.abc.Mapping):
        entries = _object(value, at)
        return {name: _built(args[1], entry, _inside(at, name)) for name, entry in entries.items()}
    assert origin in (list, tuple), f"no rule for the annotation {kind}"
    return _sequence(origin, args, value, at)


def _one_of(kinds: tuple[Any, ...], value: object, at: str) -> object:
    """Build the value by the only kind beside None, since a union of two other kinds occurs in no file."""
    if value is None and type(None) in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))
    return _built(kind, value, at)


def _dataclass(kind: type, value: object, at: str) -> object:
    entries, hints = _object(value, at), get_type_hints(kind)
    names = {field.name: field for field in fields(kind) if field.init}
    for name, field in names.items():
        if name not in entries and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{_inside(at, name)} is missing")
    if unknown := sorted(set(entries) - set(names)):
        raise ValueError(f"{_inside(at, unknown[0])} is no known entry")
    built = {name: _built(hints[name], entry, _inside(at, name)) for name, entry in entries.items()}
    try:
        return kind(**built)
    except ValueError as error:  # of the dataclass's own check, which names the field
        raise ValueError(f"{at}: {error}" if at else str(error)) from error


def _sequence(origin: type, args: tuple[Any, ...], value: object, at: str) -> object:
    if not isinstance(value, (list, tuple)):
        _refuse(at, "a list", value)
    entries = cast(list[object], value)
    if origin is tuple and Ellipsis not in args:
        if len(entries) != len(args):
            _refuse(at, f"a list of {len(args)} entries", value)
        kinds = args
    else:
        kinds = (args[0],) * len(entries)
    return origin(_built(kind, entry, f"{at}[{n}]") for n, (kind, entry) in enumerate(zip(kinds, entries, strict=True)))


def _object(value: object, at: str) -> dict[str, object]:
    return value if isinstance(value, dict) else cast(dict[str, object], _refuse(at, "a JSON object", value))


def _refuse(at: str, expected: str, value: object) -> object:
    text = json.dumps(value, default=str)
    raise ValueError(f"{at or 'the content'} must be {expected}, got {text if len(text) <= 60 else text[:57] + '...'}")


def _inside(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
