"""The page of labels holds every code under its video, loads nothing, and stays within its size."""

from __future__ import annotations

import base64
import hashlib
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hlrp.latents import NO_LABEL, LatentSpec
from hlrp.measure.nearest_clips import CodeClips
from hlrp.report.episode_view import EpisodeView
from hlrp.report.pages.labels_page import Strip, labels_page
from hlrp.report.plots.code_timeline import code_colours, ink_on, timeline_png
from hlrp.report.videos import read_video

SPEC = LatentSpec(codebook_size=8, code_seq_len=2, num_frames=2, frame_offset_s=0.1)
EVIL = '<script>alert("x")</script>&"\''


def view(*, frames: int = 5, side: int = 32, title: str = "Open the door", of: int | None = None) -> EpisodeView:
    codes = torch.arange(2 * frames).reshape(frames, 2) % 8
    codes[-1] = NO_LABEL
    noise = torch.randint(0, 256, (frames, 3, side, side), dtype=torch.uint8)
    return EpisodeView(number=4, title=title, fps=10.0, num_frames=of or frames, frames=noise, codes=codes)


def rendered(*views: EpisodeView, strips: int = 0, max_bytes: int = 4_000_000, about: str = "images") -> str:
    clip = Strip(frames=torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8), caption="episode 1, frame 2")
    codes = [(CodeClips(slot=s, code=c, share=0.125, frames=[2]), [clip] * strips) for s in (0, 1) for c in (0, 5)]
    return labels_page(
        iter(views),
        codes if strips else [],
        SPEC,
        numbers=[("90%", "of 5 frames have a label")],
        about={"source": about},
        max_bytes=max_bytes,
        num_views=len(views),
    )


def videos(page: str, folder: Path) -> list[Path]:
    """The embedded videos, as files."""
    files = []
    for number, content in enumerate(re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)):
        files.append(folder / f"{number}.mp4")
        files[-1].write_bytes(base64.b64decode(content))
    return files


def test_a_page_has_the_codes_of_every_frame_and_a_video_of_as_many(tmp_path: Path) -> None:
    page = rendered(view())
    assert 'data-fps="10.0" data-codes="0 1;2 3;4 5;6 7;"' in page
    (video,) = videos(page, tmp_path)
    frames, rate = read_video(video)
    assert (len(frames), rate) == (5, 10)
    assert frames[0].shape == (256, 256, 3), "small frames are enlarged by whole pixels"
    assert page.count("<small>slot") == 2


def test_what_a_dataset_says_is_escaped_and_no_other_script_runs() -> None:
    page = rendered(view(title=EVIL), about=EVIL)
    assert EVIL not in page
    assert page.count("<script>") == 1
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(|<link|<iframe", page)


def test_a_page_stays_within_its_size_by_coarser_and_then_shorter_videos(tmp_path: Path) -> None:
    noisy = [view(frames=60, side=128), view(frames=60, side=128)]
    page = rendered(*noisy, strips=6, max_bytes=300_000)
    assert len(page) <= 300_000
    assert "The first 30 of 60 frames" in page or "The first 15 of 60 frames" in page
    for path in videos(page, tmp_path):
        listed = re.search(r"The first (\d+) of 60", page)
        assert listed is not None
        assert len(read_video(path)[0]) == int(listed[1])


def test_an_episode_that_is_shown_in_part_says_so() -> None:
    assert "The first 5 of 90 frames." in rendered(view(of=90))
    assert "The first" not in rendered(view())


def test_every_code_has_its_strips() -> None:
    page = rendered(view(), strips=2)
    assert page.count("episode 1, frame 2</figcaption>") == 8
    assert page.count("<small>12.5%</small>") == 4
    (strip, *_) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    picture = Image.open(BytesIO(base64.b64decode(strip)))
    assert picture.size == (3 * 144 + 2 * 3, 96), "frame t, the end of the clip, and the change"


def test_a_timeline_has_a_pixel_of_its_colour_for_every_code() -> None:
    colours = code_colours(8)
    picture = np.asarray(Image.open(BytesIO(timeline_png(torch.tensor([[3, 0], [NO_LABEL, NO_LABEL]]), colours))))
    assert picture.shape == (2, 2, 4)
    assert "#{:02X}{:02X}{:02X}".format(*picture[0, 0, :3]) == colours[3].upper()
    assert picture[:, 1, 3].tolist() == [0, 0]


@pytest.mark.parametrize("size", [2, 8, 16, 64, 200])
def test_codes_have_different_colours(size: int) -> None:
    colours = code_colours(size)
    assert len(set(colours)) == size
    assert all(re.fullmatch(r"#[0-9A-Fa-f]{6}", colour) for colour in colours)
    assert {ink_on(colour) for colour in colours} <= {"#000000", "#FFFFFF"}
