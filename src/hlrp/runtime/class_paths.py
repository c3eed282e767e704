"""Classes named by a text, "module:Class", so that a registry can name a class without importing its module."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib import import_module


def register_class(registry: MutableMapping[str, str], name: str, path: str) -> None:
    """Enter the class at `path`, such as "my_package.my_module:MyClass", into `registry` under `name`.

    Raises:
        ValueError: If `path` has another form, or `name` already belongs to another class.
    """
    module, _, class_name = path.partition(":")
    if not (class_name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"the class of {name!r} must be given as 'module:Class', got {path!r}")
    if registry.get(name, path) != path:
        raise ValueError(f"the name {name!r} already belongs to {registry[name]}; choose another one")
    registry[name] = path


def load_class[T](path: str, base: type[T]) -> type[T]:
    """Import the class at `path`.

    Raises:
        TypeError: If there is no subclass of `base` at `path`.
    """
    module, _, class_name = path.partition(":")
    found = getattr(import_module(module), class_name, None)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"{path} is no subclass of {base.__name__}")
    return found
