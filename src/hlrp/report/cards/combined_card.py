"""Dataset card of a dataset that several sources were joined to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lerobot.utils.constants import ACTION, OBS_STATE

from hlrp.data.combining import SourceCount
from hlrp.data.dataset import ACTION_KNOWN, ACTION_VALID
from hlrp.report.cards.dataset_card import DatasetContent, dataset_card
from hlrp.report.cards.parts import markdown_table, source_name
from hlrp.runtime.tables import ranges, with_noun

UNKNOWN_STATE = f"Where a source has no `{OBS_STATE}`, the mean of the first source stands."


def sources_of_counts(counts: Sequence[SourceCount]) -> str:
    """Markdown table of sources whose episodes follow one another: their episodes and frames, and their actions."""
    rows, first = [], 0
    for count in counts:
        numbers = ranges(range(first, first + count.episodes))
        rows.append(
            [source_name(count.name), numbers, str(count.frames), str(count.known), ranges(count.known_episodes)]
        )
        first += count.episodes
    header = ["source", "episodes", "frames", "with a known action", "episodes with all actions known"]
    return markdown_table(header, rows)


def folders_of_counts(counts: Sequence[SourceCount]) -> dict[str, Path]:
    """Folders of those sources that are datasets, by name; a name that two sources share is numbered."""
    folders: dict[str, Path] = {}
    for count in counts:
        if count.folder is not None and count.folder not in folders.values():
            number = sum(name.partition(" (")[0] == count.name for name in folders) + 1
            folders[count.name if number == 1 else f"{count.name} ({number})"] = count.folder
    return folders


def combined_card(content: DatasetContent, counts: Sequence[SourceCount]) -> str:
    """Card of a dataset from `hlrp-combine-datasets`.

    Args:
        content: The new dataset.
        counts: What each source contributes, in the order of the episodes.
    """
    known = sum(count.known for count in counts)
    complete = [number for count in counts for number in count.known_episodes]
    actions = (
        f"{known} of {with_noun(content.frames, 'frame')} have a known action. All actions are known in the episodes "
        f"{ranges(complete)}. Elsewhere, `{ACTION_VALID}` is false, and `{ACTION}` holds the mean of the known actions "
        "of the first source: nothing was predicted. A policy that ignores this column would learn the mean there."
    )
    if OBS_STATE in content.features:
        actions += f" {UNKNOWN_STATE}"
    if ACTION_KNOWN in content.features:
        actions += (
            f" Some known actions were predicted from video by an earlier command: `{ACTION_KNOWN}` is false there."
        )
    return dataset_card(
        content,
        title="Combined dataset",
        summary=(
            "`hlrp-combine-datasets` joined the episodes of several sources to one LeRobotDataset, in the cameras, the "
            "frame rate and the units of the first source."
        ),
        sources=sources_of_counts(counts),
        actions=actions,
        tags=["combined"],
        folders=folders_of_counts(counts),
        has_films=any(count.folder is None for count in counts),
        meanings={ACTION: f"the known action where `{ACTION_VALID}` is true, else the mean"},
        episodes=None if known == content.frames else complete,
    )
