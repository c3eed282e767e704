"""Dataset card (README.md) of a LeRobotDataset that a command writes: sources, actions, columns, and how to load it.

A card depends only on what the dataset is made of: it has no dates and no paths, so that a repeated run writes the same
bytes. Texts of the sources are escaped; the cards of the sources are quoted as code.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCardData
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.utils import create_lerobot_dataset_card
from lerobot.utils.constants import ACTION, OBS_STATE

from hlrp.data.dataset import ACTION_KNOWN, ACTION_VALID, CONFIDENCE, value_names
from hlrp.data.label_file import CODES, LAQ_MARK, VALID, VECTORS
from hlrp.report.cards.parts import markdown_table, markdown_text
from hlrp.runtime.tables import ranges, with_noun

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
"""File of a dataset that the hub shows as its card."""

_LICENSE_KEYS = ("license", "license_name", "license_link")
_LONGEST_QUOTE = 100_000
"""Bytes of the longest card of a source that is quoted."""
_TASKS_SHOWN = 50
_NAMES_SHOWN = 12
_PACKAGES = {"HLRP": "lerobot_policy_felix_bundle", "LeRobot": "lerobot"}

_MEANINGS = {
    ACTION: "action, in the units of the source",
    OBS_STATE: "state of the robot, in the units of the source",
    ACTION_VALID: "whether the frame has an action that a policy may learn; HLRP's policies leave the others out",
    ACTION_KNOWN: "whether the action was recorded, and not predicted from video",
    CONFIDENCE: "1 for recorded actions, else the probability that the predicted action is right, in [0, 1]",
    CODES: "latent action that starts at the frame: codes of what changes in the images; -1 without a label",
    VECTORS: "vectors of the latent action before they are rounded to codes; 0 without a label",
    VALID: "whether the frame has a label: false where the clip would pass the end of its episode",
    LAQ_MARK: "number that identifies the models, the cameras and the frame rate of the labels",
    "timestamp": "time since the start of the episode, in seconds",
    "frame_index": "number of the frame in its episode",
    "episode_index": "number of the episode",
    "index": "number of the frame in the dataset",
    "task_index": "number of the instruction in `meta/tasks.parquet`",
}
"""Meaning of the columns that LeRobot and our commands write."""

_CARD = """---
{metadata}
---

# {title}

{summary}

{facts}

## Sources

{sources}

## Actions

{actions}

## Columns

{columns}

## Instructions

{tasks}

## Use

{use}

## Versions

{versions}
"""

_LOADING = """```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset
dataset = LeRobotDataset("{repo_id}", root="/path/to/this/folder")
```"""
_TRAINING = """```bash
lerobot-train --policy.type=act --policy.push_to_hub=false --steps=20000 \\
    --dataset.repo_id={repo_id} --dataset.root=/path/to/this/folder{episodes}
```"""


@dataclass(frozen=True, kw_only=True)
class DatasetContent:
    """What a card says of the dataset itself."""

    repo_id: str
    episodes: int
    frames: int
    fps: float
    robot_type: str | None
    features: Mapping[str, Mapping[str, Any]]
    """Description of every column, as in `meta/info.json`."""
    tasks: Sequence[str]
    """All instructions."""

    @classmethod
    def of(
        cls,
        meta: LeRobotDatasetMetadata,
        *,
        repo_id: str | None = None,
        added: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> DatasetContent:
        """Content of the dataset `meta`, or of its copy named `repo_id` with `added` columns."""
        assert meta.tasks is not None, "a dataset that was opened or written has instructions"
        return cls(
            repo_id=repo_id or meta.repo_id,
            episodes=meta.total_episodes,
            frames=meta.total_frames,
            fps=meta.fps,
            robot_type=meta.robot_type,
            features={**meta.features, **(added or {})},
            tasks=[str(task) for task in meta.tasks.index],
        )


def dataset_card(
    content: DatasetContent,
    *,
    title: str,
    summary: str,
    actions: str,
    sources: str,
    tags: Sequence[str] = (),
    folders: Mapping[str, Path] | None = None,
    has_films: bool = False,
    meanings: Mapping[str, str] | None = None,
    episodes: Sequence[int] | None = None,
) -> str:
    """Dataset card in Markdown, with the metadata that LeRobot gives to its own cards.

    Args:
        content: The dataset.
        title: Heading of the card.
        summary: Markdown that says what the dataset is.
        actions: Markdown that says which actions are recorded, and how the others were filled in.
        sources: Markdown that says where the episodes come from.
        tags: Further tags for the hub.
        folders: Folders of the source datasets by name. Their cards are quoted, and their licence is taken over if all
            of them have the same.
        has_films: Whether films, which have no licence, are among the sources.
        meanings: Meaning of columns in Markdown, in place of the usual one.
        episodes: Episodes whose actions LeRobot's policies can learn; None for all.
    """
    cards = {name: _card_of(folder) for name, folder in (folders or {}).items()}
    data = create_lerobot_dataset_card(tags=["hlrp", *tags]).data
    assert isinstance(data, DatasetCardData)
    for key, value in _common_licence([] if has_films else list(cards.values())).items():
        setattr(data, key, value)
    text = _CARD.format(
        metadata=data.to_yaml(),
        title=title,
        summary=summary,
        facts=_facts(content),
        sources=sources,
        actions=actions,
        columns=_columns(content, meanings or {}),
        tasks=_tasks(content.tasks),
        use=_use(content, episodes),
        versions=_versions(),
    )
    return "\n".join([text, *(_quoted(name, card) for name, card in cards.items() if card)])


def _facts(content: DatasetContent) -> str:
    cameras = [name for name, feature in content.features.items() if feature["dtype"] in ("image", "video")]
    lines = [
        f"{with_noun(content.episodes, 'episode')}, {with_noun(content.frames, 'frame')}",
        f"{content.fps:g} frames a second",
        f"cameras: {', '.join(markdown_text(name) for name in cameras) or 'none'}",
    ]
    if content.robot_type:
        lines.append(f"robot: {markdown_text(content.robot_type)}")
    return "\n".join(f"- {line}" for line in lines)


def _columns(content: DatasetContent, meanings: Mapping[str, str]) -> str:
    rows = [
        [markdown_text(name), markdown_text(_type(feature)), {**_MEANINGS, **meanings}.get(name) or _usual(feature)]
        for name, feature in content.features.items()
    ]
    return markdown_table(["column", "type", "meaning"], rows)


def _usual(feature: Mapping[str, Any]) -> str:
    return "frames of a camera" if feature["dtype"] in ("image", "video") else "as in the source"


def _type(feature: Mapping[str, Any]) -> str:
    """Type and shape of a column, and the names of its values: float32 (2): x, y."""
    shape, names = "x".join(str(side) for side in feature["shape"]), value_names(feature)
    kind = str(feature["dtype"]) if shape == "1" else f"{feature['dtype']} ({shape})"
    if names is None or feature["dtype"] in ("image", "video"):
        return kind
    return f"{kind}: {', '.join(names[:_NAMES_SHOWN])}{', …' * (len(names) > _NAMES_SHOWN)}"


def _tasks(tasks: Sequence[str]) -> str:
    lines = [f"- {markdown_text(task)}" for task in tasks[:_TASKS_SHOWN]]
    more = len(tasks) - _TASKS_SHOWN
    return "\n".join([*lines, *([f"- and {more} more, in `meta/tasks.parquet`"] if more > 0 else [])]) or "None."


def _use(content: DatasetContent, episodes: Sequence[int] | None) -> str:
    repo_id = re.sub(r"[^\w./-]+", "-", content.repo_id)
    loading = _LOADING.format(repo_id=repo_id)
    if ACTION not in content.features:
        return f"The dataset has no actions, so that it trains no policy by itself.\n\n{loading}"
    if episodes is not None and not episodes:
        return f"No episode has actions in all frames that are worth training a policy of LeRobot on.\n\n{loading}"
    flag = "" if episodes is None else f" \\\n    {shlex.quote(f'--dataset.episodes={list(episodes)}')}"
    which = "all episodes" if episodes is None else f"the episodes {ranges(episodes)}"
    training = _TRAINING.format(repo_id=repo_id, episodes=flag)
    return f"Train any policy of LeRobot on {which}, such as ACT:\n\n{training}\n\n{loading}"


def _versions() -> str:
    lines = []
    for title, package in _PACKAGES.items():
        with suppress(PackageNotFoundError):  # run from a source tree that is not installed
            lines.append(f"- {title} {version(package)}")
    return "\n".join(lines) or "Unknown."


def _card_of(folder: Path) -> str:
    """Text of the card of the dataset in `folder`; empty if it has none, or if the card cannot be read."""
    path = folder / CARD_FILE
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    except OSError as error:  # what the command has computed is worth more than this text
        logger.warning(f"{path} cannot be read, so it is not quoted in the card of the new dataset: {error}")
        return ""


def _common_licence(cards: Sequence[str]) -> dict[str, str]:
    """Entries of the licence that all `cards` name; empty if one has none, or if they differ."""
    found = [_licence(card) for card in cards]
    return found[0] if found and all(one == found[0] for one in found) else {}


def _licence(card: str) -> dict[str, str]:
    """Entries of the licence in the metadata of `card`; empty if it names none as a text."""
    block = re.match(r"---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", card[:_LONGEST_QUOTE], re.DOTALL)
    try:
        values = yaml.safe_load(block[1]) if block else None
    except (yaml.YAMLError, ValueError, RecursionError):  # text of somebody else, which may be damaged
        return {}
    if not isinstance(values, dict) or not isinstance(values.get("license"), str):
        return {}
    return {key: values[key] for key in _LICENSE_KEYS if isinstance(values.get(key), str)}


def _quoted(name: str, card: str) -> str:
    """Section that quotes the card of a source as code, in which nothing is Markdown."""
    title = f"## Card of the source {markdown_text(name)}"
    if len(card.encode()) > _LONGEST_QUOTE:
        return f"{title}\n\nIt is too long to be quoted here.\n"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", card)), default=0))
    return f"{title}\n\n{fence}markdown\n{card}\n{fence}\n"
