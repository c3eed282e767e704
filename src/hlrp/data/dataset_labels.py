"""Find the latent labels of an opened dataset, and check that they were made from the frames of this dataset."""

from __future__ import annotations

import logging
from pathlib import Path

from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from hlrp.data.clip_starts import clip_is_valid
from hlrp.data.dataset import episode_bounds, episode_of_frame, frame_of_episode
from hlrp.data.labels import LABELS_FOLDER, LatentLabels, find_labels, require_labels_of
from hlrp.data.recording_identity import RecordingIdentity, dataset_identity, films_identity
from hlrp.data.sources import ClipSource

logger = logging.getLogger(__name__)

_ENOUGH_FRAMES = 32
"""Number of valid frames from which on identical codes in all of them cannot be a coincidence."""


def labels_of_dataset(
    meta: LeRobotDatasetMetadata, labels_path: Path | str | None = None, *, with_vectors: bool = False
) -> LatentLabels:
    """Latent labels of the dataset that `meta` describes, from `labels_path` if given, else from the dataset itself.

    Raises:
        FileNotFoundError: If there are no labels.
        ValueError: If the labels were made from other frames than those of this dataset.
    """
    labels = find_labels(meta.root, labels_path, with_vectors=with_vectors)
    named = f"the latent labels in {labels_path or meta.root}"
    bounds = episode_bounds(meta)
    require_labels_of(labels, episode_index=episode_of_frame(bounds), frame_index=frame_of_episode(bounds), named=named)
    facts = labels.metadata
    if facts.fps != meta.fps:
        raise ValueError(
            f"{named} were written at {facts.fps:g} fps, the dataset has {meta.fps:g}; write them again with "
            "hlrp-precompute-latent-codes"
        )
    if (labels.valid & ~clip_is_valid(bounds, facts.spec.frame_deltas(facts.fps))).any():
        raise ValueError(
            f"{named} reach beyond the end of an episode of this dataset, so they are of another version of it; "
            "write them again with hlrp-precompute-latent-codes"
        )
    _require_telling_codes(labels, named)
    if labels.are_columns:  # labels in columns cannot be separated from their frames
        return labels
    if facts.frames is None:
        logger.warning(
            f"the latent labels of {meta.root} were written by an earlier version and do not say from which frames, so "
            f"only lengths of episodes were compared; {LABELS_FOLDER.remedy}"
        )
        return labels
    cameras = [facts.camera, *facts.further_cameras]
    mine = dataset_identity(meta, cameras, with_instructions="instructions" in facts.frames)
    difference = mine.difference(RecordingIdentity.from_labels(facts.frames))
    if difference is not None:
        raise ValueError(
            f"{named} were made from other frames than those of the dataset in "
            f"{meta.root}: the {difference} differ; name labels of this dataset, or write them with "
            "hlrp-precompute-latent-codes"
        )
    if None in mine.for_labels().values():
        logger.warning(
            f"not all files of {meta.root} are on this machine, so not everything could be compared with the frames "
            "that the latent labels were made from"
        )
    return labels


def require_labels_of_films(labels: LatentLabels, source: ClipSource, folder: Path, *, named: str) -> None:
    """Raise unless `labels` were made from the frames of the opened video files in `folder`.

    Raises:
        ValueError: If they were made from other frames; the message calls the labels `named`.
    """
    bounds = source.bounds
    require_labels_of(labels, episode_index=episode_of_frame(bounds), frame_index=frame_of_episode(bounds), named=named)
    mine = films_identity([folder / name for name in source.episode_names], bounds, fps=source.fps)
    difference = mine.difference(RecordingIdentity.from_labels(labels.metadata.frames or {}))
    if difference is not None:
        raise ValueError(
            f"{named} were made from other frames than those of the videos in {folder}: the {difference} differ; name "
            "labels of these videos, or write them with hlrp-precompute-latent-codes"
        )


def _require_telling_codes(labels: LatentLabels, named: str) -> None:
    """Raise if all frames have the same codes: a table of zeros, or a quantizer whose codes collapsed.

    Raises:
        ValueError: If there are `_ENOUGH_FRAMES` valid frames or more, and all have the same codes.
    """
    codes = labels.codes[labels.valid]
    if labels.metadata.has_codes and len(codes) >= _ENOUGH_FRAMES and bool((codes == codes[:1]).all()):
        raise ValueError(
            f"{named} have the codes {codes[0].tolist()} in all {len(codes)} valid frames, so nothing can be learned "
            "from them: measure the LAQ with hlrp-inspect-latents, then write the labels again with "
            "hlrp-precompute-latent-codes"
        )
