"""Latent labels written beforehand, found by the batch's absolute frame index.

LeRobot's batch converter drops columns it does not know, so a label column does not reach a policy by itself, and a
custom converter is lost on resume; `index` always arrives.

Shapes: b batch, c codes of one label, s slots, k codebook entries, d width of a code vector.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.constants import CONFIG_NAME
from jaxtyping import Float
from torch import Tensor

from hlrp.data.dataset_labels import labels_of_dataset
from hlrp.data.labelled_frames import code_vectors
from hlrp.data.labels import LatentLabels, has_labels
from hlrp.latents import LatentSpec

from .labels import Labels

logger = logging.getLogger(__name__)


class LabelTable:
    """Labels of every frame. A plain object: neither saved with the policy nor sent around by DDP."""

    def __init__(self, labels: LatentLabels) -> None:
        self.metadata = labels.metadata
        vectors = None if labels.vectors is None else code_vectors(labels.vectors, labels.metadata.spec.num_codes)
        self._codebook = labels.codebook
        self._rows = Labels(labels.codes, labels.valid, vectors)

    @classmethod
    def of_dataset(cls, dataset_meta: Any, labels_path: str | None, *, with_vectors: bool) -> LabelTable | None:
        """Labels of the dataset being trained on, checked to be of its frames; None where there are none.

        Raises:
            FileNotFoundError: If `labels_path` is given and holds none.
            ValueError: If they are of other frames, or hold no codes.
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
        """Geometry of the codes."""
        return self.metadata.spec

    @property
    def laq_fingerprint(self) -> str:
        """The quantizer that wrote the labels."""
        return self.metadata.laq_fingerprint

    @property
    def codebook(self) -> Float[Tensor, "s k d"]:
        """Its code vectors."""
        return self._codebook

    def label(self, batch: Mapping[str, Any]) -> Labels:
        """Labels of the batch's frames, on the device of `batch["index"]`."""
        index, rows = batch["index"], self._rows
        if rows.codes.device != index.device:
            vectors = None if rows.vectors is None else rows.vectors.to(index.device)
            self._rows = rows = Labels(rows.codes.to(index.device), rows.valid.to(index.device), vectors)
        return Labels(rows.codes[index], rows.valid[index], None if rows.vectors is None else rows.vectors[index])


def own_labels_first(labels_path: str | None, dataset_meta: Any, checkpoint_dir: Path) -> str | None:
    """The labels to read for a policy that goes on from `checkpoint_dir`, which may be of another dataset.

    Policies saved by earlier versions carry the path of the labels they were trained on. Where that is the path asked
    for, it gives way to labels that the dataset has itself; a path named for this run is kept.
    """
    if labels_path is None or not has_labels(dataset_meta.root):
        return labels_path
    saved = json.loads((checkpoint_dir / CONFIG_NAME).read_text(encoding="utf-8"))
    if saved.get("latent_labels_path") != labels_path:
        return labels_path
    logger.info(f"{checkpoint_dir} names latent labels in {labels_path}; taking those of {dataset_meta.root} itself")
    return None
