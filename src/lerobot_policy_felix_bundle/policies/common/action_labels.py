"""Which frames of a dataset have actions to learn from: the rest teach the latent loss alone.

Found by the batch's absolute frame index, like latent labels, since LeRobot's batch converter drops unknown columns.

Shapes: b batch, f frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hlrp.data.clips import choose_labelled
from hlrp.data.dataset import episode_bounds, episode_of_frame


class ActionLabels:
    """Whether the action of each frame is known. A plain object: not saved with the policy, nor sent around by DDP."""

    def __init__(self, known: Bool[Tensor, " f"]) -> None:
        self._known = known

    @property
    def share(self) -> float:
        """Frames with a known action, of all."""
        return float(self._known.double().mean())

    @classmethod
    def of_dataset(
        cls, dataset_meta: Any, *, fraction: float, episodes: Sequence[int], column: str | None
    ) -> ActionLabels | None:
        """Known actions of the dataset being trained on; None where all of them are.

        Args:
            dataset_meta: Its metadata.
            fraction: Share of the episodes, drawn once for all runs; at least one unless it is 0.
            episodes: Or these episodes; empty for no such choice.
            column: Or a boolean column of the dataset, true where a frame's action is known.

        Raises:
            ValueError: If more than one choice is made, or the dataset lacks the episodes or the column.
        """
        if sum((fraction < 1, len(episodes) > 0, column is not None)) > 1:
            raise ValueError(
                "name the frames with actions in one way: labelled_fraction, labelled_episodes or action_valid_column"
            )
        if column is not None:
            return cls(_column(dataset_meta, column))
        bounds = episode_bounds(dataset_meta)
        chosen = torch.tensor(list(episodes), dtype=torch.int64)
        if fraction < 1:
            chosen = choose_labelled(torch.arange(len(bounds)), fraction=fraction, seed=0)
        elif not len(episodes):
            return None
        lost = [episode for episode in episodes if not 0 <= episode < len(bounds)]
        if lost:
            raise ValueError(f"labelled_episodes has {lost}, and the dataset episodes 0 to {len(bounds) - 1}")
        return cls(torch.isin(episode_of_frame(bounds), chosen))

    def lookup(self, index: Int[Tensor, " b"]) -> Bool[Tensor, " b"]:
        """Whether the actions of frames are known, on the device of `index`."""
        if self._known.device != index.device:
            self._known = self._known.to(index.device)
        return self._known[index]


def _column(dataset_meta: Any, name: str) -> Bool[Tensor, " f"]:
    if name not in dataset_meta.features:
        raise ValueError(
            f"the dataset has no column {name!r} that says where actions are known; it has "
            f"{', '.join(dataset_meta.features)}"
        )
    files = [str(path) for path in sorted((Path(dataset_meta.root) / "data").rglob("*.parquet"))]
    rows = pads.dataset(files).to_table(columns=["index", name]).sort_by("index")
    values = rows.column(name).combine_chunks()
    if hasattr(values, "flatten"):
        values = values.flatten()
    return torch.tensor(values.to_pylist(), dtype=torch.bool)
