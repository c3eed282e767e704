"""Videos of a LeRobotDataset: both ways to decode them show the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from torch import Tensor

from hlrp.data import video_files
from hlrp.data.video_files import VideoFiles
from tiny_videos import STEP, set_display_matrix, trim_without_encoding, write_pictures, write_video

DECODERS = ["torchcodec", "pyav"]


def read(path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch, *, count: int) -> Tensor:
    """The first `count` frames at 10 fps, uint8 (count, 3, 48, 48)."""
    if decoder == "pyav":
        monkeypatch.setattr(video_files, "VideoDecoder", None)
    elif video_files.VideoDecoder is None:
        pytest.skip("torchcodec does not load on this machine: it needs the FFmpeg libraries")
    video_files.close_files()
    files = VideoFiles(
        [path],
        torch.tensor([[0, count]]),
        torch.tensor([0]),
        torch.tensor([0.0], dtype=torch.float64),
        fps=10,
        image_size=(48, 48),
        constant_rate=True,
        tolerance_s=0.01,
    )
    return files.read(torch.arange(count)[:, None])[:, 0]


@pytest.mark.parametrize("decoder", DECODERS)
def test_hidden_frames_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    whole = write_video(tmp_path / "whole.mp4", 30, options={"g": "20"})
    path = trim_without_encoding(whole, tmp_path / "a.mp4", seconds=0.9)
    frames = read(path, decoder, monkeypatch, count=21)
    assert (frames.float().mean(dim=(1, 2, 3)) / STEP).round().tolist() == list(range(9, 30))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_rotated_video_is_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    picture = np.zeros((48, 48, 3), dtype=np.uint8)
    picture[:16, :16] = 255
    path = set_display_matrix(write_pictures(tmp_path / "a.mp4", [picture] * 3), 0, 1, -1, 0)
    shown = read(path, decoder, monkeypatch, count=3)[1].float().mean(dim=0)
    assert shown[:12, -12:].mean() > 240
    assert shown[:12, :12].mean() < 15


@pytest.mark.parametrize("decoder", DECODERS)
def test_colours_follow_the_matrix_that_the_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    colour = (200, 60, 30)
    picture = np.full((48, 48, 3), colour, dtype=np.uint8)
    path = write_pictures(tmp_path / "a.mp4", [picture] * 3, colour_matrix=Colorspace.ITU709)
    shown = read(path, decoder, monkeypatch, count=3)[1].float().mean(dim=(1, 2))
    assert (shown - torch.tensor(colour)).abs().max() < 6
