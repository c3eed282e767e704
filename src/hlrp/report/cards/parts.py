"""Parts that all model cards share: metadata for the hub, tables, and escaping of text for Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from hlrp.report.verdicts.rows import Conclusion, Verdict

DEFAULT_LICENSE = "apache-2.0"
"""Licence of trained weights if the user names none and the weights derive from no other model."""
LIBRARY = "hlrp"
PIPELINE = "robotics"
TAGS = ("robotics", "latent-actions", "lerobot")
_UNSAFE = {letter: f"&#{ord(letter)};" for letter in '`[]|*$"\\'}
"""HTML entities of characters that could start a link, a table cell, code or a shell substitution."""


def metadata(*, license: str | None, sources: Iterable[str], base_model: str | None = None) -> ModelCardData:
    """Metadata block at the top of a model card, which the hub reads.

    Args:
        license: Licence in the hub's spelling; None for that of `base_model`, or `DEFAULT_LICENSE` without base model.
        sources: Names of the training datasets; names that are no hub repository are left out.
        base_model: Hub repository of the model from which the weights derive.
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
    """Metadata entries of a licence: `license` if given, else that of the base model, else `DEFAULT_LICENSE`."""
    if license is None and base_model is not None:
        link = f"https://huggingface.co/{base_model}"
        return {"license": "other", "license_name": "that-of-the-base-model", "license_link": link}
    return {"license": license or DEFAULT_LICENSE}


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form owner/name of a hub repository; `local/…` names recordings that are on no hub."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not name.startswith("local/")


def hub_ids(names: Iterable[str]) -> list[str]:
    """The elements of `names` that have the form of a hub repository, without duplicates."""
    return [name for name in dict.fromkeys(names) if is_hub_id(name)]


def hub_model(name: str | Path | None) -> str | None:
    """Return `name` if it is a hub repository, and None if it is a local folder or None."""
    return str(name) if name is not None and is_hub_id(str(name)) and not Path(name).exists() else None


def markdown_text(value: object) -> str:
    """Escape `value` for one line of Markdown, so that no tag, link, code or table cell starts in it."""
    return escape(" ".join(str(value).split()), quote=False).translate(str.maketrans(_UNSAFE))


def metrics_table(verdicts: Sequence[Verdict], conclusion: Conclusion) -> str:
    """Markdown: the conclusion about a model with the next step, then a table of all metrics with their verdicts."""
    rows = [[v.name, v.value, v.word, v.wanted, v.meaning] for v in verdicts]
    verdict = f"**{conclusion.word}**: {conclusion.reason}. Next: {conclusion.next_step}."
    return f"{verdict}\n\n{markdown_table(['metric', 'value', 'verdict', 'wanted', 'meaning'], rows)}"


def sources_of(extra: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Training sources from a checkpoint's `extra`; entries of another form under the key `sources` are ignored."""
    found = extra.get("sources")
    return [part for part in found if isinstance(part, Mapping) and "name" in part] if isinstance(found, list) else []


def sources_table(sources: Iterable[Mapping[str, Any]]) -> str:
    """Markdown table of the training sources: each name once, with its share of the samples and its episodes.

    Args:
        sources: `name`, `share` in [0, 1], `episodes` and `held_out_episodes` of each source; a missing value is shown
            as a dash.
    """
    merged: dict[str, list[Mapping[str, Any]]] = {}
    for source in sources:
        merged.setdefault(str(source["name"]), []).append(source)
    rows = [
        [
            source_name(name),
            _total("share", parts, "{:.0%}"),
            _total("episodes", parts, "{}"),
            _total("held_out_episodes", parts, "{}"),
        ]
        for name, parts in merged.items()
    ]
    return markdown_table(["source", "share", "episodes", "of them held out"], rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown table; cells are inserted as they are, and may hold Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def facts_list(facts: Mapping[str, object]) -> str:
    """Markdown list with one line for each string or number in `facts`; lists and mappings are left out."""
    return "\n".join(
        f"- {markdown_text(name.replace('_', ' '))}: {markdown_text(_without_folders(value))}"
        for name, value in facts.items()
        if isinstance(value, (str, int, float))
    )


def _without_folders(value: object) -> object:
    """Shorten an absolute path to its last part, since a published card should not show local paths."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def source_name(name: str) -> str:
    """Markdown of the name of a dataset: a link if it is on the hub, and never an absolute path."""
    text = markdown_text(_without_folders(name))
    return f"[{text}](https://huggingface.co/datasets/{name})" if is_hub_id(name) else text


def _total(key: str, parts: Sequence[Mapping[str, Any]], form: str) -> str:
    """Sum of the numbers (or lengths of the lists) under `key` in all `parts`; a dash if a part has no such key."""
    if any(key not in part for part in parts):
        return "–"
    return form.format(sum(len(part[key]) if isinstance(part[key], list) else part[key] for part in parts))
