"""Latent labels in training, found by the batch's absolute frame index.

LeRobot's batch converter drops columns it does not know, so a label column does not reach a policy by itself, and a
custom converter is lost on resume; `index` always arrives.

Shapes: b batch, c codes of one label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from hlrp.data.dataset import episode_bounds, episode_of_frame, frame_of_episode
from hlrp.data.labels import LatentLabels, find_labels, require_labels_of
from hlrp.latents import LatentSpec

LATENT_CODES, LATENT_VALID = "latent_codes", "latent_valid"


class LabelTable:
    """Codes and validity of every frame. A plain object: neither saved with the policy nor sent around by DDP."""

    def __init__(self, labels: LatentLabels) -> None:
        self.metadata = labels.metadata
        self.codebook = labels.codebook
        self._codes, self._valid = labels.codes, labels.valid

    @classmethod
    def of_dataset(cls, dataset_meta: Any, labels_path: str | None) -> LabelTable | None:
        """Labels of the dataset being trained on, checked against its episodes; None where there are none.

        Raises:
            FileNotFoundError: If `labels_path` is given and holds none.
            ValueError: If they are of another version of the dataset, or hold no codes.
        """
        try:
            labels = find_labels(Path(dataset_meta.root), labels_path)
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

    def lookup(self, index: Int[Tensor, " b"]) -> tuple[Int[Tensor, "b c"], Bool[Tensor, " b"]]:
        """Codes and validity of frames, on the device of `index`."""
        if self._codes.device != index.device:
            self._codes, self._valid = self._codes.to(index.device), self._valid.to(index.device)
        return self._codes[index], self._valid[index]


def batch_labels(
    batch: Mapping[str, Any], table: LabelTable | None, spec: LatentSpec
) -> tuple[Int[Tensor, "b c"], Bool[Tensor, " b"]]:
    """Labels of a training batch: from the batch itself if it carries them, else from `table`.

    Raises:
        ValueError: If there are neither, naming the remedies, or they are of another geometry.
    """
    codes = batch.get(LATENT_CODES)
    if codes is not None:
        if codes.shape[1:] != (spec.num_codes,):
            raise ValueError(f"{LATENT_CODES} must be (batch, {spec.num_codes}), got {tuple(codes.shape)}")
        valid = batch.get(LATENT_VALID)
        return codes, (codes >= 0).all(-1) if valid is None else valid.reshape(-1)
    if table is None:
        raise ValueError(
            "no latent labels to train on: write them with hlrp-precompute-latent-codes, name their folder with "
            f"--policy.latent_labels_path, or put {LATENT_CODES} into the batch"
        )
    return table.lookup(batch["index"])
