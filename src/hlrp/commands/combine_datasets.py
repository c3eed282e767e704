"""`hlrp-combine-datasets`: add films and datasets without known actions to a dataset with actions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate

from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from hlrp.data.combining import SourceCount, combine
from hlrp.data.dataset import dataset_name, open_dataset
from hlrp.options.combine_datasets import CombineDatasetsConfig
from hlrp.report.cards.combined_card import combined_card
from hlrp.report.cards.dataset_card import CARD_FILE, DatasetContent
from hlrp.runtime.tables import ranges, table, with_noun
from hlrp.storage.files import refuse_existing, sole_writer


def combine_datasets(config: CombineDatasetsConfig) -> None:
    """Write the new dataset and print, for each source, the episodes and frames it contributes, and which have actions.

    Raises:
        FileExistsError: If `config.output_dir` exists, or another process is writing it.
        FileNotFoundError: If a source does not exist.
        ValueError: If a source cannot be read or does not fit.
    """
    start = time.perf_counter()
    with sole_writer(config.output_dir):
        refuse_existing(config.output_dir)
        counts = _combine(config)
    ends = list(accumulate(count.episodes for count in counts))
    rows = [
        [
            count.name,
            ranges(range(end - count.episodes, end)),
            str(count.frames),
            str(count.known),
            ranges(count.known_episodes),
        ]
        for count, end in zip(counts, ends, strict=True)
    ]
    print(table(["source", "episodes", "frames", "with action", "episodes with all actions"], rows))
    print(f"{with_noun(ends[-1], 'episode')} in {time.perf_counter() - start:.1f} s: {config.output_dir}")


def _combine(config: CombineDatasetsConfig) -> list[SourceCount]:
    name = dataset_name(config.dataset_repo_id, config.dataset_root)
    first = open_dataset(name, config.dataset_root, tolerance_s=config.tolerance_s)
    return combine(
        first,
        config.sources,
        config.output_dir,
        repo_id=config.repo_id,
        episodes=config.episodes,
        labelled_episodes=config.labelled_episodes,
        cameras=config.cameras,
        beside=_card,
    )


def _card(meta: LeRobotDatasetMetadata, counts: Sequence[SourceCount]) -> Mapping[str, str]:
    return {CARD_FILE: combined_card(DatasetContent.of(meta), counts)}
