from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hlrp.data import video_files
from hlrp.data.frames import CachedFrames
from hlrp.data.sources import ClipSource
from hlrp.data.video_files import VideoFiles
from hlrp.data.video_folder import open_video_source, video_length
from tiny_videos import STEP, write_video


@pytest.fixture(params=["torchcodec", "pyav"])
def _decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to decode: torchcodec, and PyAV where that does not load."""
    if request.param == "pyav":
        monkeypatch.setattr(video_files, "VideoDecoder", None)
    elif video_files.VideoDecoder is None:
        pytest.skip("torchcodec does not load on this machine: it needs the FFmpeg libraries")
    video_files._open.cache_clear()


def open_source(folder: Path, *, cache_gib: float = 0, fps: float | None = None) -> ClipSource:
    return open_video_source(folder, image_size=(32, 24), cache_gib=cache_gib, fps=fps)


def numbers(source: ClipSource, episode: int) -> list[int]:
    """Which frame of its file each frame of an episode shows."""
    index = torch.arange(*source.bounds[episode].tolist())[:, None]
    return (source.frames.read(index).float().mean(dim=(1, 2, 3, 4)) / STEP).round().int().tolist()


@pytest.mark.usefixtures("_decoder")
def test_every_video_is_an_episode_in_the_order_of_paths_whatever_its_format_and_size(tmp_path: Path) -> None:
    write_video(tmp_path / "b.webm", 12)
    write_video(tmp_path / "a" / "z.MP4", 10, size=64)
    write_video(tmp_path / "c.mkv", 8)
    write_video(tmp_path / "d.mov", 6)
    write_video(tmp_path / "e.avi", 5)
    (tmp_path / "notes.txt").write_text("not a video")
    source = open_source(tmp_path)
    assert source.bounds.tolist() == [[0, 10], [10, 22], [22, 30], [30, 36], [36, 41]]
    assert (source.fps, source.actions, source.num_cameras) == (10, None, 1)
    for episode, count in enumerate((10, 12, 8, 6, 5)):
        assert numbers(source, episode) == list(range(count))
    assert source.frames.read(torch.tensor([[40, 0, 11]])).shape == (1, 3, 3, 32, 24)


@pytest.mark.usefixtures("_decoder")
def test_frames_come_in_the_order_asked_for_repeated_and_across_files(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 30)
    write_video(tmp_path / "b.webm", 30, fps=10)
    source = open_source(tmp_path)
    index = torch.tensor([[59, 0, 17], [17, 17, 31], [5, 29, 30]])
    found = (source.frames.read(index).float().mean(dim=(2, 3, 4)) / STEP).round().int()
    assert torch.equal(found, index % 30)


@pytest.mark.usefixtures("_decoder")
def test_files_of_other_rates_are_read_by_time_at_the_highest_or_at_the_rate_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "fast.mp4", 20, fps=20)
    write_video(tmp_path / "slow.mp4", 10, fps=10)
    source = open_source(tmp_path)
    assert source.fps == 20
    assert numbers(source, 0) == list(range(20))
    assert numbers(source, 1) == [i // 2 for i in range(20)]
    slower = open_source(tmp_path, fps=5)
    assert slower.bounds.tolist() == [[0, 5], [5, 10]]
    assert numbers(slower, 0) == [2, 6, 10, 14, 18]
    assert numbers(slower, 1) == [1, 3, 5, 7, 9]


@pytest.mark.usefixtures("_decoder")
def test_a_variable_rate_is_read_by_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", 6, stamps=[0.0, 0.1, 0.2, 0.6, 1.0, 1.1])
    assert numbers(open_source(tmp_path, fps=10), 0)[:11] == [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]


def test_frames_in_memory_are_those_decoded_on_demand(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 9)
    write_video(tmp_path / "b.webm", 7)
    cached, streamed = open_source(tmp_path, cache_gib=1), open_source(tmp_path)
    assert isinstance(cached.frames, CachedFrames)
    assert isinstance(streamed.frames, VideoFiles)
    index = torch.arange(16)[:, None]
    assert torch.equal(cached.frames.read(index), streamed.frames.read(index))


class _Reader(Dataset[torch.Tensor]):
    def __init__(self, source: ClipSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.source.frames.read(torch.tensor([[3 * number, 3 * number + 2]]))


def test_worker_processes_read_the_same_frames_although_their_parent_has_the_files_open(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 20)
    data = _Reader(open_source(tmp_path))
    wanted = [data[number] for number in range(6)]
    found = list(DataLoader(data, batch_size=None, num_workers=2))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    again = pickle.loads(pickle.dumps(data.source.frames))  # as a spawned process receives it
    assert torch.equal(again.read(torch.tensor([[0, 2]])), wanted[0])


def test_a_length_counts_every_frame_for_its_full_time(tmp_path: Path) -> None:
    length = video_length(write_video(tmp_path / "a.webm", 24, fps=30))
    assert length.fps == pytest.approx(30, rel=2e-3)  # WebM counts milliseconds
    assert length.duration_s == pytest.approx(0.8, abs=2e-3)


def test_a_folder_without_videos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "a.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no video; expected files in \.avi, \.mkv"):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00" * 4096])
def test_an_empty_or_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_video(tmp_path / "good.mp4", 5)
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.mp4 is not a readable video; .* copy it again or remove it"):
        open_source(tmp_path)


def test_a_video_of_one_frame_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "still.mp4", 1)
    with pytest.raises(ValueError, match=r"still\.mp4 has 1 frames, a clip needs at least two; remove it"):
        open_source(tmp_path)


@pytest.mark.usefixtures("_decoder")
def test_a_file_cut_short_after_it_was_opened_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", 30)
    source = open_source(tmp_path)
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(ValueError, match=r"a\.webm cannot be decoded between 0.05 s and 2.95 s; it is cut short"):
        source.frames.read(torch.arange(30)[:, None])


def test_an_impossible_rate_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 5)
    with pytest.raises(ValueError, match="fps must be above 0, got 0"):
        open_source(tmp_path, fps=0)
