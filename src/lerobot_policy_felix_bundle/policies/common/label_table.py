"""Precomputed latent labels, looked up by the absolute frame index in a batch.

LeRobot's batch converter drops unknown columns, so a label column would not reach the policy, and a custom converter is
lost on resume. The column `index` always arrives.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.constants import CONFIG_NAME
from jaxtyping import Bool, Float
from torch import Tensor

from hlrp.data.dataset_labels import labels_of_dataset
from hlrp.data.labels import LatentLabels, has_labels
from hlrp.latents import LatentActions, LatentSpec

logger = logging.getLogger(__name__)


class LabelTable:
    """Latent labels of all frames of a dataset. No `nn.Module`: they are neither saved nor broadcast by DDP."""

    def __init__(self, labels: LatentLabels) -> None:
        self.metadata = labels.metadata
        self._codebook = labels.codebook
        self._actions = labels.actions

    @classmethod
    def of_dataset(cls, dataset_meta: Any, labels_path: str | None, *, with_vectors: bool) -> LabelTable | None:
        """Latent labels of the training dataset; None if it has none and no path is given.

        Raises:
            FileNotFoundError: If `labels_path` is given and has no labels.
            ValueError: If the labels were made from other frames, or have no codes.
        """
        try:
            labels = labels_of_dataset(dataset_meta, labels_path, with_vectors=with_vectors)
        except FileNotFoundError:
            if labels_path is not None:
                raise
            return None
        labels.require_codes()
        return cls(labels)

    @property
    def spec(self) -> LatentSpec:
        """Geometry of the label codes."""
        return self.metadata.spec

    @property
    def cameras(self) -> list[str]:
        """Dataset keys of the cameras that were labelled, in the LAQ's order; empty for labels of video files."""
        return [name for name in (self.metadata.camera, *self.metadata.further_cameras) if name]

    @property
    def laq_fingerprint(self) -> str:
        """Fingerprint of the LAQ that wrote the labels."""
        return self.metadata.laq_fingerprint

    @property
    def counted(self) -> Bool[Tensor, " f"]:
        """True for frames whose codes are learned."""
        return self._actions.counted

    @property
    def codebook(self) -> Float[Tensor, "s k v"]:
        """Code vectors of the LAQ that wrote the labels."""
        return self._codebook

    def label(self, batch: Mapping[str, Any]) -> LatentActions:
        """Latent labels of the frames `batch["index"]`, on the device of this tensor."""
        index = batch["index"]
        self._actions = self._actions.to(index.device)  # copies once; later calls change nothing
        return self._actions.rows(index)


def own_labels_first(labels_path: str | None, dataset_meta: Any, checkpoint_dir: Path) -> str | None:
    """Path of the labels for a policy that is fine-tuned from `checkpoint_dir`; None for the dataset's own labels.

    Policies saved by earlier versions contain the path of their training labels, which may belong to another dataset.
    If `labels_path` is this saved path and the dataset has its own labels, these are used; any other path is kept.
    """
    if labels_path is None or not has_labels(dataset_meta.root):
        return labels_path
    saved = json.loads((checkpoint_dir / CONFIG_NAME).read_text(encoding="utf-8"))
    if saved.get("latent_labels_path") != labels_path:
        return labels_path
    logger.info(f"{checkpoint_dir} names latent labels in {labels_path}; using those of {dataset_meta.root} itself")
    return None
