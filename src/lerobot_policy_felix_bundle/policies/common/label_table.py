"""Latent labels written beforehand, found by the batch's absolute frame index.

LeRobot's batch converter drops columns it does not know, so a label column does not reach a policy by itself, and a
custom converter is lost on resume; `index` always arrives.

Shapes: b batch, c codes of one label, s slots, k codebook entries, d width of a code vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from hlrp.data.dataset import episode_bounds, episode_of_frame, frame_of_episode
from hlrp.data.labelled_frames import code_vectors
from hlrp.data.labels import LatentLabels, find_labels, require_labels_of
from hlrp.latents import LatentSpec

from .labels import Labels


class LabelTable:
    """Labels of every frame. A plain object: neither saved with the policy nor sent around by DDP."""

    def __init__(self, labels: LatentLabels) -> None:
        self.metadata = labels.metadata
        vectors = None if labels.vectors is None else code_vectors(labels.vectors, labels.metadata.spec.num_codes)
        self._codebook = labels.codebook
        self._rows = Labels(labels.codes, labels.valid, vectors)

    @classmethod
    def of_dataset(cls, dataset_meta: Any, labels_path: str | None, *, with_vectors: bool) -> LabelTable | None:
        """Labels of the dataset being trained on, checked against its episodes; None where there are none.

        Raises:
            FileNotFoundError: If `labels_path` is given and holds none.
            ValueError: If they are of another version of the dataset, or hold no codes.
        """
        try:
            labels = find_labels(Path(dataset_meta.root), labels_path, with_vectors=with_vectors)
        except FileNotFoundError:
            if labels_path is not None:
                raise
            return None
        labels.require_codes()
        bounds = episode_bounds(dataset_meta)
        require_labels_of(labels, episode_index=episode_of_frame(bounds), frame_index=frame_of_episode(bounds))
        if labels.metadata.fps != dataset_meta.fps:
            raise ValueError(
                f"the latent labels were written at {labels.metadata.fps} fps, the dataset has {dataset_meta.fps}; "
                "write them again with hlrp-precompute-latent-codes"
            )
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
