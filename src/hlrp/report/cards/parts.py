"""What all model cards share: their metadata for the hub, and text from data that is safe in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from hlrp.report.verdicts import Conclusion, Verdict

DEFAULT_LICENSE = "apache-2.0"
"""Licence of weights that derive from no other model, where none is named."""
LIBRARY = "hlrp"
PIPELINE = "robotics"
TAGS = ("robotics", "latent-actions", "lerobot")
_UNSAFE = {letter: f"&#{ord(letter)};" for letter in '`[]|*$"\\'}
"""Letters that start a link, a table cell, code or a shell's substitution, as HTML names them."""


def metadata(*, license: str | None, sources: Iterable[str], base_model: str | None = None) -> ModelCardData:
    """The block at the top of a card, which the hub reads.

    Args:
        license: As the hub spells it; None for `DEFAULT_LICENSE`, or that of `base_model` where there is one.
        sources: Names of what was trained on; those that are no repository of the hub are left out.
        base_model: Repository of the model whose weights these derive from.
    """
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=PIPELINE,
        tags=list(TAGS),
        datasets=hub_ids(sources) or None,
        base_model=base_model,
        **license_entries(license, base_model),  # pyright: ignore[reportArgumentType]
    )


def license_entries(license: str | None, base_model: str | None) -> dict[str, str]:
    """Metadata of a licence: as given, else that of the base model, else `DEFAULT_LICENSE`."""
    if license is None and base_model is not None:
        link = f"https://huggingface.co/{base_model}"
        return {"license": "other", "license_name": "that-of-the-base-model", "license_link": link}
    return {"license": license or DEFAULT_LICENSE}


def is_hub_id(name: str) -> bool:
    """Whether `name` is owner and name of a repository; `local/…` is the name of recordings that are on no hub."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not name.startswith("local/")


def hub_ids(names: Iterable[str]) -> list[str]:
    """Those of `names` that may be repositories, each once."""
    return [name for name in dict.fromkeys(names) if is_hub_id(name)]


def hub_model(name: str | Path | None) -> str | None:
    """`name` where it is a model of the hub, None where it is a local folder or nothing."""
    return str(name) if name is not None and is_hub_id(str(name)) and not Path(name).exists() else None


def markdown_text(value: object) -> str:
    """Text from data as one line that shows as it is: no tag, link, code or table cell begins in it."""
    return escape(" ".join(str(value).split()), quote=False).translate(str.maketrans(_UNSAFE))


def figures_table(verdicts: Sequence[Verdict], conclusion: Conclusion) -> str:
    """The verdict on the whole, the next step, and every figure with its verdict."""
    rows = [[v.name, v.value, v.word, v.wanted, v.meaning] for v in verdicts]
    whole = f"**{conclusion.word}**: {conclusion.reason}. Next: {conclusion.next_step}."
    return f"{whole}\n\n{markdown_table(['figure', 'value', 'verdict', 'wanted', 'meaning'], rows)}"


def sources_of(extra: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a checkpoint's `extra` says it was trained on; without what others wrote there under the same name."""
    found = extra.get("sources")
    return [part for part in found if isinstance(part, Mapping) and "name" in part] if isinstance(found, list) else []


def sources_table(sources: Iterable[Mapping[str, Any]]) -> str:
    """What was trained on: each name once, with its share of the samples and its episodes.

    Args:
        sources: `name`, `share` in [0, 1], `episodes` and `held_out_episodes` of each; what is missing is not shown.
    """
    merged: dict[str, list[Mapping[str, Any]]] = {}
    for source in sources:
        merged.setdefault(str(source["name"]), []).append(source)
    rows = [
        [
            _source_name(name),
            _total("share", parts, "{:.0%}"),
            _total("episodes", parts, "{}"),
            _total("held_out_episodes", parts, "{}"),
        ]
        for name, parts in merged.items()
    ]
    return markdown_table(["source", "share", "episodes", "of them held out"], rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def facts_list(facts: Mapping[str, object]) -> str:
    """A line for each plain value; lists and mappings stay in the checkpoint's own files."""
    return "\n".join(
        f"- {markdown_text(name.replace('_', ' '))}: {markdown_text(_without_folders(value))}"
        for name, value in facts.items()
        if isinstance(value, (str, int, float))
    )


def _without_folders(value: object) -> object:
    """Of an absolute path the last part: a card is published, and nobody else has that folder."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _source_name(name: str) -> str:
    shown = markdown_text(_without_folders(name))
    return f"[{shown}](https://huggingface.co/datasets/{name})" if is_hub_id(name) else shown


def _total(key: str, parts: Sequence[Mapping[str, Any]], spelling: str) -> str:
    """Sum of numbers, or of the lengths of lists; a dash where a part does not say."""
    if any(key not in part for part in parts):
        return "–"
    return spelling.format(sum(len(part[key]) if isinstance(part[key], list) else part[key] for part in parts))
