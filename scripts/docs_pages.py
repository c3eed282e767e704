"""Pages of the documentation that are generated from the code while mkdocs builds the site; a hook of mkdocs.

`reference/commands.md` has the options of every `hlrp-*` command, `reference/policies.md` those of every policy type.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, get_args, get_type_hints

from draccus import ChoiceRegistry
from draccus.wrappers.docstring import get_attribute_docstring
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
COMMANDS_PAGE, POLICIES_PAGE = "reference/commands.md", "reference/policies.md"
_OURS = ("hlrp.", "lerobot_policy_felix_bundle.")
_HEAD = "| option | default | meaning |\n|---|---|---|"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of docs/ that `nav` does not name to its end, under their own titles."""
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    pages = sorted(path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md"))
    config.nav = [*(config.nav or []), *(page for page in pages if page not in named)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of docs/."""
    for path, text in ((COMMANDS_PAGE, commands_page()), (POLICIES_PAGE, policies_page())):
        files.append(File.generated(config, path, content=text))
    return files


def commands() -> dict[str, type]:
    """Options class of every installed `hlrp-*` command, in the order of pyproject.toml."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    found = {}
    for name, target in scripts.items():
        module = importlib.import_module(target.partition(":")[0])
        (found[name],) = {
            value
            for attribute, value in vars(module).items()
            if attribute.endswith("Config") and is_dataclass(value) and isinstance(value, type)
        }
    return found


@cache
def commands_page() -> str:
    """Text of the page with the options of every command."""
    parts = [
        "# Commands",
        "Generated from the code. `--help` of a command prints the same. Options inside another one are written with a "
        "dot, such as `--optimizer.lr=1e-3`. `--config_path=FILE` reads options from a YAML or JSON file.",
    ]
    for name, kind in commands().items():
        parts += [f"## {name}", _explained(kind), *_tables(kind, "--")]
    return "\n\n".join(parts) + "\n"


@cache
def policies_page() -> str:
    """Text of the page with the options of every policy type."""
    from lerobot.configs import PreTrainedConfig

    from lerobot_policy_felix_bundle.serve import our_policy_types

    parts = [
        "# Policy types",
        "Generated from the code. These are options of `lerobot-train`, written as `--policy.NAME=VALUE`. "
        "`lerobot-train --policy.type=TYPE --help` prints them, and LeRobot's own, such as `--policy.device`.",
    ]
    for name in our_policy_types():
        kind = PreTrainedConfig.get_choice_class(name)
        parts += [f"## {name}", _explained(kind), *_tables(kind, "--policy.")]
    return "\n\n".join(parts) + "\n"


def _explained(kind: type) -> str:
    return "\n".join(line.strip() for line in (kind.__doc__ or "").strip().splitlines())


def _tables(kind: type, prefix: str) -> Iterator[str]:
    """The table of the options of `kind`, then one for every kind of entry in its lists and choices.

    Args:
        kind: A configuration.
        prefix: Text before the name of an option: `--`, `--policy.`, or nothing inside a list.
    """
    rows, inner = _rows(kind, prefix)
    yield "\n".join([_HEAD, *rows])
    for title, other, start in inner:
        yield f"**{title}**"
        yield from _tables(other, start)


def _rows(kind: type, prefix: str) -> tuple[list[str], list[tuple[str, type, str]]]:
    rows: list[str] = []
    inner: list[tuple[str, type, str]] = []
    hints = get_type_hints(kind)
    for field in fields(kind):
        if not field.init or not _owner(kind, field.name).__module__.startswith(_OURS):
            continue
        name, (nested, is_list) = f"{prefix}{field.name}", _nested(hints[field.name])
        if nested is None or is_list:
            rows.append(f"| `{name}` | {_default(field)} | {_meaning(kind, field.name)} |")
        elif issubclass(nested, ChoiceRegistry):
            rows.append(f"| `{name}.type` | {_default_choice(field, nested)} | {_meaning(kind, field.name)} |")
            choices = nested.get_known_choices()
            inner += [(f"With `{name}.type={choice}`:", other, f"{name}.") for choice, other in choices.items()]
        else:
            more, deeper = _rows(nested, f"{name}.")
            rows += more
            inner += deeper
        if nested is not None and is_list:
            inner.append((f"Entries of `{name}`, written as `[{{name: value, …}}, …]`:", nested, ""))
    return rows, inner


def _nested(hint: Any) -> tuple[type | None, bool]:
    """The configuration class of HLRP inside a type, None if there is none, and whether the type is a list of it."""
    if isinstance(hint, type) and is_dataclass(hint):
        return (hint, False) if hint.__module__.startswith("hlrp.") else (None, False)
    for inner in get_args(hint):
        if isinstance(inner, type) and is_dataclass(inner) and inner.__module__.startswith("hlrp."):
            return inner, True
    return None, False


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        value = field.default
    elif field.default_factory is not MISSING:
        value = field.default_factory()
    else:
        return "required"
    text = str(getattr(value, "value", value)).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text and "\n" not in text else '``""``'


def _default_choice(field: Field[Any], choices: type[ChoiceRegistry]) -> str:
    assert field.default_factory is not MISSING, "options of several kinds have a default kind"
    return f"`{choices.get_choice_name(type(field.default_factory()))}`"


def _owner(kind: type, name: str) -> type:
    """The class that defines the field `name` of `kind`."""
    return next(base for base in kind.__mro__ if name in vars(base).get("__annotations__", {}))


def _meaning(kind: type, name: str) -> str:
    """Explanation of a field, from the class that defines it, on one line of a table."""
    text = get_attribute_docstring(_owner(kind, name), name).docstring_below
    return escape(" ".join(text.split()), quote=False).replace("|", "\\|")
