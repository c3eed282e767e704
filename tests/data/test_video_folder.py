from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from torch.utils.data import DataLoader, Dataset

from hlrp.data.frames import CachedFrames
from hlrp.data.sources import ClipSource
from hlrp.data.video_files import VideoFiles
from hlrp.data.video_folder import open_video_source, video_length
from tiny_videos import (
    STEP,
    add_cover,
    set_display_matrix,
    trim_without_encoding,
    write_pictures,
    write_video,
)


def open_source(folder: Path, *, cache_gib: float = 0, fps: float | None = None, **options: bool) -> ClipSource:
    return open_video_source(folder, image_size=(32, 24), cache_gib=cache_gib, fps=fps, **options)


def numbers(source: ClipSource, episode: int) -> list[int]:
    """Which frame of its file each frame of an episode shows."""
    index = torch.arange(*source.bounds[episode].tolist())[:, None]
    return (source.frames.read(index).float().mean(dim=(1, 2, 3, 4, 5)) / STEP).round().int().tolist()


def test_every_video_is_an_episode_in_the_order_of_paths_whatever_its_format_and_size(tmp_path: Path) -> None:
    write_video(tmp_path / "b.webm", 12)
    write_video(tmp_path / "a" / "z.MP4", 10, size=64)
    write_video(tmp_path / "c.mkv", 8)
    write_video(tmp_path / "d.mov", 6)
    write_video(tmp_path / "e.avi", 5)
    for suffix in (".m4v", ".ts", ".gif", ".flv", ".wmv"):
        write_video(tmp_path / f"f{suffix}", 5)
    (tmp_path / "notes.txt").write_text("not a video")
    source = open_source(tmp_path)
    assert source.bounds[:6].tolist() == [[0, 10], [10, 22], [22, 30], [30, 36], [36, 41], [41, 46]]
    assert (source.fps, source.actions, source.num_cameras) == (10, None, 1)
    for episode, count in enumerate((10, 12, 8, 6, 5, 5, 5, 5, 5, 5)):
        assert numbers(source, episode) == list(range(count))
    assert source.frames.read(torch.tensor([[40, 0, 11]])).shape == (1, 3, 1, 3, 32, 24)


def test_films_behind_links_to_folders_are_found_and_loops_are_left(tmp_path: Path) -> None:
    write_video(tmp_path / "disk" / "season" / "b.mp4", 6)
    write_video(tmp_path / "films" / "a.mp4", 5)
    (tmp_path / "films" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "films" / "loop").symlink_to(tmp_path / "films")
    assert open_source(tmp_path / "films").bounds.tolist() == [[0, 5], [5, 11]]


def test_hidden_folders_are_not_entered(tmp_path: Path) -> None:
    films = tmp_path / ".cache" / "films"  # the folder that the user names may be hidden
    write_video(films / "a.mp4", 5)
    write_video(films / ".Trash-1000" / "files" / "deleted.mp4", 6)
    assert open_source(films).episode_names == ("a.mp4",)


def test_a_film_with_several_paths_is_one_episode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    films = tmp_path / "films"
    film = write_video(films / "season" / "b.mp4", 5)
    (films / "a.mp4").symlink_to(film)
    (films / "z.mp4").hardlink_to(film)
    (films / "again").symlink_to(films / "season")
    elsewhere = write_video(tmp_path / "disk" / ".store" / "c.mp4", 6)
    (films / "c.mp4").symlink_to(elsewhere)
    assert open_source(films).episode_names == ("c.mp4", "season/b.mp4")
    named = [line for line in caplog.messages if line.startswith("left out of ")]
    assert len(named) == 1
    assert named[0].endswith("they are links to films that are read anyway: a.mp4, z.mp4")


def test_a_dataset_among_films_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "films" / "a.mp4", 5)
    write_video(tmp_path / "films" / "robot" / "videos" / "camera" / "file-000.mp4", 6)
    (tmp_path / "films" / "robot" / "meta").mkdir()
    (tmp_path / "films" / "robot" / "meta" / "info.json").write_text("{}")
    assert open_source(tmp_path / "films").episode_names == ("a.mp4",)
    named = [line for line in caplog.messages if line.startswith("left out of ")]
    assert len(named) == 1
    assert named[0].endswith("for a LeRobotDataset is a source of its own (dataset_root): robot")


def test_frames_come_in_the_order_asked_for_repeated_and_across_files(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 30)
    write_video(tmp_path / "b.webm", 30, fps=10)
    source = open_source(tmp_path)
    index = torch.tensor([[59, 0, 17], [17, 17, 31], [5, 29, 30]])
    found = (source.frames.read(index).float().mean(dim=(2, 3, 4, 5)) / STEP).round().int()
    assert torch.equal(found, index % 30)


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


def test_a_variable_rate_is_read_by_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", 6, stamps=[0.0, 0.1, 0.2, 0.6, 1.0, 1.1])
    assert numbers(open_source(tmp_path, fps=10), 0)[:11] == [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]


def test_frames_in_memory_are_those_decoded_on_demand(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 9)
    write_video(tmp_path / "b.webm", 7)
    cached, streamed = open_source(tmp_path, cache_gib=1), open_source(tmp_path)
    assert [type(camera) for camera in cached.frames.cameras] == [CachedFrames]
    assert [type(camera) for camera in streamed.frames.cameras] == [VideoFiles]
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


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
@pytest.mark.parametrize("cache_gib", [0, 1])
def test_frames_that_an_edit_list_hides_are_left_out(tmp_path: Path, suffix: str, cache_gib: float) -> None:
    whole = write_video(tmp_path / f"whole{suffix}", 30, options={"g": "20"})
    trim_without_encoding(whole, tmp_path / "films" / f"a{suffix}", seconds=0.9)
    source = open_source(tmp_path / "films", cache_gib=cache_gib)
    assert source.bounds.tolist() == [[0, 21]]
    assert numbers(source, 0) == list(range(9, 30))
    backwards = source.frames.read(torch.tensor([[20], [3], [0]]))
    assert (backwards.float().mean(dim=(1, 2, 3, 4, 5)) / STEP).round().tolist() == [29, 12, 9]


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_a_container_without_an_index_shows_the_same_in_any_order(tmp_path: Path, suffix: str) -> None:
    rate = 25 if suffix == ".mpg" else 10
    options = {"g": "8", "bf": "2", "b": "4000000"}
    write_video(tmp_path / f"a{suffix}", 30, fps=rate, size=96, noise=2.0, options=options)
    source = open_source(tmp_path)
    in_order = source.frames.read(torch.arange(30)[:, None])
    assert numbers(source, 0) == list(range(30))
    for index in torch.randperm(30).split(1):
        assert torch.equal(source.frames.read(index[:, None]), in_order[index])


def test_a_film_that_begins_between_key_frames_starts_at_the_first(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", 30, options={"g": "15", "bf": "0"})
    (tmp_path / "films").mkdir()
    packets = whole.read_bytes()
    half = packets[188 * (len(packets) // 188 // 4) :]  # a quarter of the packets is gone, and the first key frame
    (tmp_path / "films" / "a.ts").write_bytes(packets[: 2 * 188] + half)
    assert numbers(open_source(tmp_path / "films"), 0) == list(range(15, 30))


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (0, 1)),  # a quarter turn clockwise, as phones held upright write
        ((-1, 0, 0, -1), (1, 1)),
        ((0, -1, 1, 0), (1, 0)),
        ((-1, 0, 0, 1), (0, 1)),  # a mirror, as some front cameras write
    ],
)
def test_a_rotated_film_is_upright(tmp_path: Path, matrix: tuple[int, int, int, int], corner: tuple[int, int]) -> None:
    picture = np.zeros((64, 48, 3), dtype=np.uint8)
    picture[:16, :16] = 255  # top left as stored
    set_display_matrix(write_pictures(tmp_path / "a.mp4", [picture] * 3), *matrix)
    shown = open_source(tmp_path).frames.read(torch.tensor([[1]]))[0, 0, 0, 0].float()
    down, right = (shown == shown.max()).nonzero()[0].tolist()
    assert (int(down > 15), int(right > 11)) == corner


def test_colours_follow_the_matrix_that_the_film_names(tmp_path: Path) -> None:
    picture = np.zeros((48, 48, 3), dtype=np.uint8)
    picture[:] = (200, 60, 30)
    write_pictures(tmp_path / "a.mp4", [picture] * 3, colour_matrix=Colorspace.ITU709)
    shown = open_source(tmp_path).frames.read(torch.tensor([[1]]))[0, 0, 0].float().mean(dim=(1, 2))
    assert (shown - torch.tensor([200.0, 60.0, 30.0])).abs().max() < 6


def test_a_cover_picture_is_no_film(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", 10)
    add_cover(film, tmp_path / "films" / "a.mp4")
    assert numbers(open_source(tmp_path / "films"), 0) == list(range(10))


def test_time_stamps_that_run_backwards_are_named(tmp_path: Path) -> None:
    write_video(tmp_path / "b.avi", 20, codec="libx264", options={"bf": "2"})  # AVI has no place for such time stamps
    with pytest.raises(ValueError, match=r"b\.avi has time stamps that run backwards; encode it again"):
        open_source(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00" * 4096])
def test_an_empty_or_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    write_video(tmp_path / "good.mp4", 5)
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.mp4 is not a readable video; .* copy it again or remove it"):
        open_source(tmp_path)


def test_a_download_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 60, noise=1.0)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(
        ValueError, match=r"a\.mkv is cut short: its pictures end after [\d.]+ s of 6\.0 s; copy it again"
    ):
        open_source(tmp_path)


def damage(path: Path) -> None:
    """Overwrite the coded pictures in the middle of a film, so that it opens and cannot be decoded to its end."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 4] = os.urandom(len(content) // 4)
    path.write_bytes(content)


@pytest.mark.parametrize("cache_gib", [0, 1])
def test_all_bad_files_are_in_one_message_and_left_out_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cache_gib: float
) -> None:
    write_video(tmp_path / "a.mp4", 5)
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    write_video(tmp_path / "c.mp4", 1)
    damage(write_video(tmp_path / "d.mov", 60, codec="png", noise=1.0))
    write_video(tmp_path / "e.webm", 7)
    with pytest.raises(
        ValueError, match=r"2 of 5 videos in .*b\.mp4 is not a readable .*c\.mp4 has 1 frames.*skip_bad"
    ):
        open_source(tmp_path, cache_gib=cache_gib)
    source = open_source(tmp_path, cache_gib=cache_gib, skip_bad_videos=True)
    assert source.bounds.tolist() == [[0, 5], [5, 12]]
    assert numbers(source, 0) == list(range(5))
    assert numbers(source, 1) == list(range(7))
    left_out = [line for line in caplog.messages if line.startswith("left out: ")]
    assert [name in line for name, line in zip(("b.mp4", "c.mp4", "d.mov"), left_out, strict=True)] == [True] * 3
    assert "the episodes are the other 2 videos, numbered from 0 in the order of their paths" in caplog.messages


def test_a_folder_of_bad_files_alone_is_refused_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"1 of 1 videos in .* cannot be used: .*a\.mp4"):
        open_source(tmp_path, skip_bad_videos=True)


def test_files_that_look_like_videos_and_are_not_read_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "a.mp4", 5)
    (tmp_path / "b.mjpg2000.dv").touch()
    (tmp_path / "._a.mp4").touch()
    (tmp_path / "notes.txt").touch()
    assert len(open_source(tmp_path).bounds) == 1
    named = [line for line in caplog.messages if line.startswith("left out of ")]
    assert len(named) == 1
    assert named[0].endswith("are read: ._a.mp4, b.mjpg2000.dv")


def test_a_video_of_one_frame_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "still.mp4", 1)
    with pytest.raises(ValueError, match=r"still\.mp4 has 1 frames, a clip needs at least two; remove it"):
        open_source(tmp_path)


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
