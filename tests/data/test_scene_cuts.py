"""Scene cuts in films: found, left out of clips, and told apart from fast motion."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hlrp.data.clip_starts import clip_starts, has_clip, log_cuts
from hlrp.data.clips import ClipBatches
from hlrp.data.episode_split import TrainingSource
from hlrp.data.frames import CachedFrames
from hlrp.data.recordings import choose_measured
from hlrp.data.scene_cuts import differences, find_cuts, reduced
from hlrp.data.source_config import ClipAugmentation
from hlrp.data.sources import ClipSource
from hlrp.data.video_folder import open_video_source
from hlrp.latents import LatentSpec
from tiny_videos import write_pictures

SIDE = 64


def scenery(seed: int, *, side: int = 2 * SIDE) -> np.ndarray:
    """A picture of smooth patches of colour, (side, side, 3)."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (1, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return smooth[0].permute(1, 2, 0).numpy().astype(np.uint8)


def panned(picture: np.ndarray, columns: list[int]) -> list[np.ndarray]:
    """Views of a picture from `columns` on."""
    return [picture[10 : 10 + SIDE, column : column + SIDE] for column in columns]


def with_square(picture: np.ndarray, columns: list[int], *, size: int) -> list[np.ndarray]:
    """A square before a still picture, at `columns`."""
    frames = []
    for column in columns:
        frame = picture[:SIDE, :SIDE].copy()
        frame[20 : 20 + size, column : column + size] = 255
        frames.append(frame)
    return frames


def cuts_of(pictures: list[np.ndarray], *, fps: float = 10) -> list[int]:
    frames = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    change = torch.cat([torch.zeros(1), differences(reduced(frames))])
    return find_cuts(CachedFrames(frames), torch.tensor([[0, len(frames)]]), change, fps=fps).tolist()


def test_cuts_between_still_and_between_moving_scenes_are_found() -> None:
    still = [scenery(1)[:SIDE, :SIDE]] * 9
    moving = panned(scenery(2), list(range(0, 60, 5)))
    square = with_square(scenery(3), list(range(0, 40, 4)), size=16)
    assert cuts_of(still + moving + square) == [9, 21]


def test_a_picture_of_a_single_frame_is_cut_off_on_both_sides() -> None:
    assert cuts_of(panned(scenery(1), [0] * 8) + panned(scenery(2), [0]) + panned(scenery(1), [0] * 8)) == [8, 9]


@pytest.mark.parametrize("step", [4, 12])
def test_a_fast_pan_is_no_cut(step: int) -> None:
    there = list(range(0, SIDE - step, step))
    assert cuts_of(panned(scenery(1), there + there[::-1])) == []


def test_a_sudden_jerk_of_the_camera_is_no_cut() -> None:
    assert cuts_of(panned(scenery(1), [0] * 10 + [12] * 10)) == []


@pytest.mark.parametrize("size", [8, 24, 40])
def test_a_square_that_jumps_is_no_cut(size: int) -> None:
    jumps = np.random.default_rng(0).integers(0, SIDE - size + 1, size=30).tolist()
    assert cuts_of(with_square(scenery(1), [0] * 10 + jumps, size=size)) == []


def test_noise_is_no_cut() -> None:
    draw = np.random.default_rng(0)
    assert cuts_of(list(draw.integers(0, 256, (30, SIDE, SIDE, 3), dtype=np.uint8))) == []


def film_with_a_cut(folder: Path) -> None:
    """Two films of 24 frames; the first has a cut before frame 12."""
    first = panned(scenery(1), list(range(0, 24, 2))) + panned(scenery(2), list(range(0, 24, 2)))
    write_pictures(folder / "a.mp4", first)
    write_pictures(folder / "b.mp4", panned(scenery(3), list(range(24))))


def opened(folder: Path, *, cache_gib: float = 1, find_scene_cuts: bool = True) -> ClipSource:
    return open_video_source(folder, image_size=(32, 32), cache_gib=cache_gib, find_scene_cuts=find_scene_cuts)


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_clips_across_a_cut_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cache_gib: float
) -> None:
    film_with_a_cut(tmp_path)
    source = opened(tmp_path, cache_gib=cache_gib)
    assert source.cuts.tolist() == [12]
    assert source.bounds.tolist() == [[0, 24], [24, 48]]  # a film stays one episode: halves are not held out apart
    assert source.scenes.tolist() == [[0, 12], [12, 24], [24, 48]]
    starts = clip_starts(source, [0, 3], torch.tensor([0, 1])).tolist()
    assert starts == [*range(9), *range(12, 21), *range(24, 45)]
    with caplog.at_level(logging.INFO, logger="hlrp.data.clip_starts"):
        log_cuts(source, [0, 3])
    assert caplog.messages[-1].endswith(
        "1 scene cuts; 3 of 42 clips lie across one and are left out (find_scene_cuts=false keeps them)"
    )


def test_stretched_clips_do_not_reach_across_a_cut(tmp_path: Path) -> None:
    film_with_a_cut(tmp_path)
    batches = ClipBatches(
        [TrainingSource(source=opened(tmp_path), episodes=torch.tensor([0]))],
        LatentSpec(frame_offset_s=0.3),
        batch_size=64,
        num_batches=4,
        seed=0,
        augmentation=ClipAugmentation(max_stretch=3.0),
    )
    index: Tensor = torch.cat([batches.draws(step).index for step in range(4)])
    assert ((index < 12).all(dim=1) | (index >= 12).all(dim=1)).all()
    assert (index[:, 1] - index[:, 0]).abs().max() > 3


def test_a_film_of_short_scenes_alone_is_never_held_out(tmp_path: Path) -> None:
    film = [picture for number in range(8) for picture in panned(scenery(number), [0] * 4)]
    write_pictures(tmp_path / "a.mp4", film)
    for name in ("b", "c"):
        write_pictures(tmp_path / f"{name}.mp4", panned(scenery(9), list(range(24))))
    source = opened(tmp_path)
    assert has_clip(source, [0, 1]).tolist() == [True, True, True]
    assert has_clip(source, [0, 5]).tolist() == [False, True, True]
    for seed in range(4):
        found = choose_measured([], source, [0, 5], held_out=0.1, seed=seed)
        assert clip_starts(source, [0, 5], found.measured).numel()


def test_cuts_are_kept_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film_with_a_cut(tmp_path)
    source = opened(tmp_path, find_scene_cuts=False)
    assert len(clip_starts(source, [0, 3], torch.tensor([0, 1]))) == 42
    with caplog.at_level(logging.INFO, logger="hlrp.data.clip_starts"):
        log_cuts(source, [0, 3])
    assert not any("scene cuts" in line for line in caplog.messages)
