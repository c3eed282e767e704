"""Open the datasets of stage 2: images, instructions and latent labels, which are read or made during training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch import Tensor

from hlrp.data.clip_starts import clip_is_valid
from hlrp.data.dataset import (
    dataset_name,
    episode_bounds,
    episode_of_frame,
    open_dataset,
    read_instructions,
    require_camera,
)
from hlrp.data.dataset_labels import labels_of_dataset
from hlrp.data.episode_split import chosen_episodes, split_episodes
from hlrp.data.frames import open_frames
from hlrp.data.labelled_frames import FramePool, Frames, LabelledFrames, Observations, OnlineLabelFrames
from hlrp.data.labels import LatentLabels
from hlrp.data.recording_identity import RecordingIdentity, UsedEpisodes, require_unseen, source_identity
from hlrp.data.source_config import ObservationConfig
from hlrp.data.sources import finite_actions, lerobot_source
from hlrp.laq.checkpoint import LoadedLAQ
from hlrp.latents import LatentSpec, log_offset, require_same_laq

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ObservationSource:
    """One opened dataset of stage 2, with its labelled frames split by episode into training and held-out frames."""

    name: str
    cameras: list[str]
    """Dataset keys of the cameras whose images the model takes."""
    train: FramePool
    held_out: FramePool
    """Held-out frames; empty if only one episode has labels, since that episode is trained on."""
    chosen: Int[Tensor, " _"]
    """Numbers of the episodes that the run uses, for training and measuring together."""
    held_out_episodes: Int[Tensor, " _"]
    """Numbers of the episodes that are held out, ascending; `held_out` is a sample of their frames."""
    episode: Int[Tensor, " f"]
    """Episode of every frame."""
    instructions: list[str]
    """Instruction of every frame."""
    spec: LatentSpec
    fps: float
    laq_fingerprint: str
    labels: LatentLabels | None
    """Labels read from disk; None if a quantizer labels the frames during training."""
    identity: RecordingIdentity
    """Identity of the recordings, to find a dataset that is given twice."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Choice of held-out episodes and frames for validation."""

    share: float
    """Share of the labelled episodes to hold out, in (0, 1)."""
    frames: int
    """Largest number of held-out frames that are used."""
    seed: int
    """Seed of the random choice of episodes and frames."""


def open_labelled(
    config: ObservationConfig, held_out: HeldOut, *, image_size: tuple[int, int], cache_gib: float, with_vectors: bool
) -> ObservationSource:
    """Open a dataset whose latent labels were written before.

    Raises:
        FileNotFoundError: If the dataset or its labels do not exist.
        ValueError: If the labels were made from other frames, or hold no codes.
    """
    dataset = _open(config)
    labels = labels_of_dataset(dataset.meta, config.labels_path, with_vectors=with_vectors)
    labels.require_codes()
    log_offset(labels.metadata.spec, float(dataset.fps), of=dataset.repo_id)
    bounds = episode_bounds(dataset.meta)
    cameras = _cameras(dataset, config.cameras or [labels.metadata.camera])
    observations = _observations(dataset, cameras, image_size, cache_gib)
    frames = LabelledFrames(observations, labels.actions)
    split = _split(frames, labels.valid, bounds, config, held_out)
    return ObservationSource(
        name=dataset.repo_id,
        cameras=cameras,
        train=split.train,
        held_out=split.held_out,
        chosen=split.chosen,
        held_out_episodes=split.held_out_episodes,
        episode=episode_of_frame(bounds),
        instructions=observations.instructions,
        spec=labels.metadata.spec,
        fps=float(dataset.fps),
        laq_fingerprint=labels.metadata.laq_fingerprint,
        labels=labels,
        identity=source_identity(dataset.repo_id, bounds, fps=float(dataset.fps), actions=finite_actions(dataset)),
    )


def open_for_online_labels(
    config: ObservationConfig, laq: LoadedLAQ, held_out: HeldOut, *, image_size: tuple[int, int], cache_gib: float
) -> ObservationSource:
    """Open a dataset whose frames the quantizer `laq` labels during training.

    Raises:
        FileNotFoundError: If the dataset does not exist.
        ValueError: If `laq` has no codes or needs other cameras, or no episode is long enough for a clip.
    """
    if config.labels_path is not None:
        raise ValueError("give labels_path (read labels) or laq_path (make them during training), not both")
    if not laq.model.quantizer.has_codes:
        raise ValueError("a continuous LAQ has no codes to learn; name one that has, such as fsq")
    dataset = _open(config)
    log_offset(laq.model.spec, float(dataset.fps), of=dataset.repo_id)
    clips = lerobot_source(
        dataset, cameras=laq.cameras, image_size=laq.model.config.image_size, cache_gib=cache_gib / 2
    )
    laq.require_cameras(clips.cameras)
    spec, bounds = laq.model.spec, clips.bounds
    deltas = spec.frame_deltas(clips.fps)
    cameras = _cameras(dataset, config.cameras or [clips.cameras[0]])
    observations = _observations(dataset, cameras, image_size, cache_gib / 2)
    frames = OnlineLabelFrames(observations, clips.frames, deltas)
    split = _split(frames, clip_is_valid(bounds, deltas), bounds, config, held_out)
    return ObservationSource(
        name=dataset.repo_id,
        cameras=cameras,
        train=split.train,
        held_out=split.held_out,
        chosen=split.chosen,
        held_out_episodes=split.held_out_episodes,
        episode=episode_of_frame(bounds),
        instructions=observations.instructions,
        spec=spec,
        fps=clips.fps,
        laq_fingerprint=laq.fingerprint,
        labels=None,
        identity=clips.identity(),
    )


def require_unseen_episodes(sources: Sequence[ObservationSource]) -> None:
    """Raise if an episode is held out of one source and trained on in another, which names the same recordings.

    Raises:
        ValueError: With the name of the dataset and the numbers of these episodes.
    """
    require_unseen(
        [
            UsedEpisodes(
                identity=source.identity,
                train=source.episode[source.train.index].unique(),
                held_out=source.episode[source.held_out.index].unique(),
            )
            for source in sources
        ]
    )


def require_one_teacher(sources: Sequence[ObservationSource]) -> None:
    """Raise unless all datasets are labelled by the same quantizer and have the same number of cameras.

    Raises:
        ValueError: With the names of the first two datasets that differ.
    """
    first = sources[0]
    for other in sources[1:]:
        require_same_laq(
            first.laq_fingerprint,
            other.laq_fingerprint,
            this=first.name,
            that=other.name,
            remedy="label both with the same one",
        )
        first.spec.require_same_codes(other.spec, this=first.name, that=other.name)
        if len(other.cameras) != len(first.cameras):
            raise ValueError(
                f"{first.name} shows {len(first.cameras)} cameras, {other.name} {len(other.cameras)}; name as many "
                "cameras of each"
            )


def _cameras(dataset: LeRobotDataset, names: Sequence[str]) -> list[str]:
    return [require_camera(dataset.meta, name) for name in names]


def _observations(
    dataset: LeRobotDataset, cameras: Sequence[str], image_size: tuple[int, int], cache_gib: float
) -> Observations:
    share = cache_gib / len(cameras)
    return Observations(
        [open_frames(dataset, camera, image_size, cache_gib=share) for camera in cameras], read_instructions(dataset)
    )


def _open(config: ObservationConfig) -> LeRobotDataset:
    return open_dataset(
        dataset_name(config.dataset_repo_id, config.dataset_root), config.dataset_root, tolerance_s=config.tolerance_s
    )


@dataclass(frozen=True, kw_only=True)
class _Split:
    """Fields of an `ObservationSource` that say which of its episodes and frames the run uses, and for what."""

    train: FramePool
    held_out: FramePool
    chosen: Int[Tensor, " _"]
    held_out_episodes: Int[Tensor, " _"]


def _split(
    frames: Frames,
    usable: Bool[Tensor, " f"],
    bounds: Int[Tensor, "e 2"],
    config: ObservationConfig,
    held_out: HeldOut,
) -> _Split:
    """Split usable frames by episode into training frames and a random sample of held-out frames, which may be empty.

    Raises:
        ValueError: If no frame is usable.
    """
    name = dataset_name(config.dataset_repo_id, config.dataset_root)
    if not usable.any():
        raise ValueError(f"no frame of {name} has a label; use longer episodes or a shorter offset")
    episode = episode_of_frame(bounds)
    chosen = chosen_episodes(len(bounds), config.episodes, name=name)
    labelled = torch.bincount(episode[usable], minlength=len(bounds))[chosen] > 0
    parts = split_episodes(len(chosen), held_out=held_out.share, seed=held_out.seed, usable=labelled)
    train, test = (chosen[part] for part in parts)
    if not len(test):
        logger.warning(f"{name} has one episode with labels: it is trained on, and nothing of it is held out")
    train_index, test_index = ((usable & torch.isin(episode, part)).nonzero()[:, 0] for part in (train, test))
    generator = torch.Generator().manual_seed(held_out.seed)
    sample = test_index[torch.randperm(len(test_index), generator=generator)[: held_out.frames]].sort().values
    return _Split(
        train=FramePool(frames, train_index, config.weight),
        held_out=FramePool(frames, sample),
        chosen=chosen,
        held_out_episodes=test,
    )
