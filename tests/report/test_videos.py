"""Rollouts become one montage, and copies that fit into a page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from lerobot.utils.io_utils import write_video

from hlrp.report.videos import montage, read_video, video_data_uri

WriteVideo = Callable[..., Path]


def test_a_montage_is_as_long_as_its_longest_video(make_video: WriteVideo, tmp_path: Path) -> None:
    videos = {"drawer": make_video("a.mp4", frames=4, level=40), "door": make_video("b.mp4", frames=9)}
    frames, rate = read_video(montage(videos, tmp_path / "out" / "montage.mp4"))
    assert len(frames) == 9
    assert rate == Fraction(20)
    assert frames[0].shape == (286, 512, 3)


def test_a_shorter_video_holds_its_last_frame(make_video: WriteVideo, tmp_path: Path) -> None:
    videos = {"drawer": make_video("a.mp4", frames=2, level=40), "door": make_video("b.mp4", frames=6)}
    last = read_video(montage(videos, tmp_path / "montage.mp4"))[0][-1].astype(float)
    assert last[100:, 20:230].mean() == pytest.approx(40, abs=6)
    assert last[100:, 280:490].mean() == pytest.approx(200, abs=6)


def test_captions_differ_by_label(make_video: WriteVideo, tmp_path: Path) -> None:
    path = make_video("a.mp4", frames=1)
    strips = [
        read_video(montage({label: path}, tmp_path / f"{i}.mp4"))[0][0][:30]
        for i, label in enumerate(("door", "a-very-long-name-of-a-task-that-has-to-shrink"))
    ]
    assert all(strip.min() < 120 for strip in strips)
    assert np.abs(strips[0].astype(int) - strips[1]).max() > 60


def test_a_fifth_video_opens_a_second_row(make_video: WriteVideo, tmp_path: Path) -> None:
    path = make_video("a.mp4", frames=1)
    frames, _ = read_video(montage({str(i): path for i in range(5)}, tmp_path / "montage.mp4"))
    assert frames[0].shape == (572, 1024, 3)


def test_a_montage_plays_in_browsers_and_leaves_no_scratch_file(make_video: WriteVideo, tmp_path: Path) -> None:
    path = montage({"door": make_video("a.mp4", frames=3)}, tmp_path / "out" / "montage.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("h264", "vp9")
        assert stream.pix_fmt == "yuv420p"
    assert list(path.parent.iterdir()) == [path]
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_videos_of_two_frame_rates_are_refused(make_video: WriteVideo, tmp_path: Path) -> None:
    videos = {"slow": make_video("a.mp4", frames=2, fps=10), "fast": make_video("b.mp4", frames=2, fps=80)}
    with pytest.raises(ValueError, match="slow 10 Hz, fast 80 Hz"):
        montage(videos, tmp_path / "montage.mp4")
    assert not (tmp_path / "montage.mp4").exists()


def test_missing_and_no_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        montage({"door": tmp_path / "gone.mp4"}, tmp_path / "montage.mp4")
    with pytest.raises(ValueError, match="at least one video"):
        montage({}, tmp_path / "montage.mp4")
    with pytest.raises(FileNotFoundError, match="gone"):
        video_data_uri(tmp_path / "gone.mp4")


def test_a_small_video_is_embedded_as_it_is(make_video: WriteVideo) -> None:
    path = make_video("a.mp4", frames=3)
    head, content = video_data_uri(path).split(",")
    assert head == "data:video/mp4;base64"
    assert base64.b64decode(content) == path.read_bytes()


def test_a_large_video_is_embedded_smaller_with_all_its_frames(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 200, 300, 3), dtype=np.uint8)
    path = tmp_path / "noise.mp4"
    write_video(path, list(noise), 20)
    assert path.stat().st_size > 100_000
    content = base64.b64decode(video_data_uri(path, max_bytes=100_000).split(",")[1])
    assert len(content) <= 100_000
    with av.open(BytesIO(content)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 8
    assert frames[0].width / frames[0].height == pytest.approx(1.5, abs=0.03)
