"""`hlrp-view-labels`: the codes of labelled episodes along their video, as a page and as a recording for Rerun."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.data.dataset import dataset_name, open_dataset, task_sentences
from hlrp.data.dataset_labels import labels_of_dataset, require_labels_of_films
from hlrp.data.episode_split import chosen_episodes
from hlrp.data.frames import StackedFrames
from hlrp.data.labels import LABELS_DIR, LatentLabels, load_labels
from hlrp.data.pyav_decoder import PyAVDecoder
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.data.video_files import VideoFiles
from hlrp.data.video_folder import open_video_source
from hlrp.measure.nearest_clips import CodeClips, nearest_clips
from hlrp.options.view_labels import ViewLabelsConfig
from hlrp.report.episode_view import EpisodeView
from hlrp.report.label_recording import LabelRecording
from hlrp.report.pages.labels_page import PAGE_FILE, Strip, labels_page
from hlrp.runtime.progress import progress
from hlrp.runtime.tables import with_noun
from hlrp.storage.files import new_directory, new_file, refuse_existing, sole_writer

logger = logging.getLogger(__name__)

_LONGEST_PX = 320
"""Longest side of the frames that are shown."""
_EPISODES = 3
"""Episodes that are shown if none are named."""
_MOST_CODES, _MOST_SLOTS = 8, 8
"""Codes of a slot, and slots, whose clips are shown."""
_MOST_FRAMES = 1800
"""Frames of an episode that are held in memory, and shown."""
_READ_TOGETHER = 64


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """An opened source with its labels."""

    source: ClipSource
    labels: LatentLabels
    title: Callable[[int], str]
    """Instruction or file name of an episode."""


def view_labels(config: ViewLabelsConfig) -> Path:
    """Write the page, and the recording if `config.rerun` is given; prints and returns the path of the page.

    Raises:
        FileNotFoundError: If the dataset or its labels do not exist.
        FileExistsError: If `config.output_dir` or `config.rerun` exists.
        ValueError: If the labels have no codes, are of other frames, or an episode does not exist.
    """
    with ExitStack() as locks:
        for target in (config.output_dir, config.rerun):
            if target is not None:
                locks.enter_context(sole_writer(target))
                refuse_existing(target)
        shown = _open(config)
        shown.labels.require_codes()
        html = _render(config, shown)
        with new_directory(config.output_dir) as folder:
            (folder / PAGE_FILE).write_text(html, encoding="utf-8")
    path = Path(config.output_dir) / PAGE_FILE
    print(f"page: {path} ({len(html) / 1e6:.1f} MB)")
    if config.rerun is not None:
        print(f"recording: {config.rerun}; open it with `rerun {config.rerun}`")
    return path


def _open(config: ViewLabelsConfig) -> _Labelled:
    if config.video_dir is not None:
        return _open_films(config, Path(config.video_dir))
    name = dataset_name(config.dataset_repo_id, config.dataset_root)
    dataset = open_dataset(name, config.dataset_root, tolerance_s=config.tolerance_s)
    labels = labels_of_dataset(dataset.meta, config.labels_path, with_vectors=config.clips_per_code > 0)
    camera = config.camera or labels.metadata.camera
    source = lerobot_source(
        dataset, cameras=[camera], image_size=_shown_size(*_size(dataset.meta, camera)), cache_gib=0, with_actions=False
    )
    return _Labelled(source=source, labels=labels, title=_instructions(dataset))


def _open_films(config: ViewLabelsConfig, folder: Path) -> _Labelled:
    place = Path(config.labels_path or folder / LABELS_DIR)
    labels = load_labels(place, with_vectors=config.clips_per_code > 0)

    # A video that cannot be read has no labels either: labels of other videos are refused.
    source = open_video_source(
        folder,
        image_size=(_LONGEST_PX, _LONGEST_PX),
        cache_gib=0,
        fps=labels.metadata.fps,
        skip_bad_videos=True,
        find_scene_cuts=False,
    )
    require_labels_of_films(labels, source, folder, named=f"the latent labels in {place}")
    # All videos are shown in the shape of the first one, which is known only now.
    first = PyAVDecoder(folder / source.episode_names[0])
    [films] = source.frames.cameras
    assert isinstance(films, VideoFiles), "without a cache, frames are read from the files"
    source = replace(source, frames=StackedFrames([films.resized(_shown_size(*first.picture_size()))]))
    return _Labelled(source=source, labels=labels, title=lambda number: source.episode_names[number])


def _render(config: ViewLabelsConfig, shown: _Labelled) -> str:
    """The page; the recording is written meanwhile, since every episode is read once."""
    source, labels = shown.source, shown.labels
    numbers = _episodes(config, source)
    codes = []
    if config.clips_per_code:
        codes = nearest_clips(labels, clips=config.clips_per_code, codes=_MOST_CODES, slots=_MOST_SLOTS)
    strips = _strips(shown, codes)
    spec = labels.metadata.spec
    with ExitStack() as files:
        recording = None
        if config.rerun is not None:
            scratch = files.enter_context(new_file(config.rerun))
            recording = files.enter_context(LabelRecording(scratch, name=source.name))
        return labels_page(
            _views(config, shown, numbers, recording),
            strips,
            spec,
            numbers=_facts(shown),
            about=_about(shown),
            max_bytes=int(config.max_mb * 1e6),
            num_views=len(numbers),
        )


def _episodes(config: ViewLabelsConfig, source: ClipSource) -> list[int]:
    count = len(source.bounds)
    if config.episodes is None:
        return torch.linspace(0, count - 1, min(_EPISODES, count)).round().long().tolist()
    return chosen_episodes(count, config.episodes, name=source.name).tolist()


def _views(
    config: ViewLabelsConfig, shown: _Labelled, numbers: list[int], recording: LabelRecording | None
) -> Iterator[EpisodeView]:
    source = shown.source
    for number in progress(numbers, "showing episodes", unit="episode"):
        first, end = source.bounds[number].tolist()
        last = min(end, first + max(round(config.max_seconds * source.fps), 1), first + _MOST_FRAMES)
        parts = [source.frames.read(run[:, None])[:, 0, 0] for run in torch.arange(first, last).split(_READ_TOGETHER)]
        view = EpisodeView(
            number=number,
            title=shown.title(number),
            fps=source.fps,
            num_frames=end - first,
            frames=torch.cat(parts),
            codes=shown.labels.codes[first:last],
        )
        if recording is not None:
            recording.add(view)
        yield view


def _strips(shown: _Labelled, codes: list[CodeClips]) -> list[tuple[CodeClips, list[Strip]]]:
    """Read the frames of the clips of all codes."""
    span = shown.labels.metadata.spec.frame_deltas(shown.source.fps)[1]  # of the first transition
    found = []
    for code in progress(codes, "reading clips", unit="code"):
        frames = shown.source.frames.read(torch.tensor(code.frames)[:, None] + torch.tensor([0, span]))[:, :, 0]
        strips = [
            Strip(frames=clip, caption=_place(shown.labels, start))
            for clip, start in zip(frames, code.frames, strict=True)
        ]
        found.append((code, strips))
    return found


def _place(labels: LatentLabels, frame: int) -> str:
    return f"episode {int(labels.episode_index[frame])}, frame {int(labels.frame_index[frame])}"


def _facts(shown: _Labelled) -> list[tuple[str, str]]:
    labels, spec = shown.labels, shown.labels.metadata.spec
    tuples = len(labels.codes[labels.valid].unique(dim=0))
    return [
        (f"{float(labels.valid.float().mean()):.0%}", f"of {len(labels.valid)} frames have a label"),
        (f"{spec.num_codes} × {spec.codebook_size}", "code slots, and codes of a slot"),
        (str(tuples), "different combinations of codes"),
    ]


def _about(shown: _Labelled) -> dict[str, str]:
    facts = shown.labels.metadata
    made_by = f"LAQ {facts.laq_fingerprint}"
    if facts.vla_fingerprint is not None:
        made_by = f"foundation model {facts.vla_fingerprint}, which predicts codes of {made_by}"
    return {
        "source": f"{shown.source.name}, {with_noun(len(shown.source.bounds), 'episode')} at {facts.fps:g} Hz",
        "camera": ", ".join(shown.source.cameras) or "the videos",
        "labels": f"made by {made_by}",
        "clip": f"{facts.spec.num_frames} frames, {facts.spec.frame_offset_s:g} s apart",
    }


def _instructions(dataset: LeRobotDataset) -> Callable[[int], str]:
    sentences, bounds = task_sentences(dataset), dataset.meta.episodes
    assert bounds is not None, "a dataset that was opened has its episodes"
    tasks, starts = dataset.hf_dataset.data.column("task_index"), bounds["dataset_from_index"]
    return lambda number: sentences[int(tasks[int(starts[number])].as_py())]


def _size(meta: LeRobotDatasetMetadata, camera: str) -> tuple[int, int]:
    """Height and width of the pictures of `camera` as recorded; a square if the dataset lacks the camera."""
    shape = list(meta.features.get(camera, {}).get("shape", (1, 1)))
    names = meta.features.get(camera, {}).get("names")
    if isinstance(names, list) and str(names[:1]).startswith("['channel"):
        shape = shape[1:]
    return int(shape[0]), int(shape[1])


def _shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which frames are shown: as recorded, or smaller with the same shape."""
    scale = min(_LONGEST_PX / max(height, width), 1.0)
    return max(round(height * scale), 2), max(round(width * scale), 2)
