"""The page says every figure, loads nothing and trusts no text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hlrp.report.pages.run_page import render_report
from hlrp.report.plots.run_plots import stage_time_figure

WriteVideo = Callable[..., Path]


class Tags(HTMLParser):
    """Collect the tags and attributes of a page, and check that every tag is closed."""

    VOID = ("meta", "br", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "poster", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_figure_is_on_the_page(report: dict[str, Any]) -> None:
    text = Tags(render_report(report, {}, {})).text
    expected = [
        *("0.312", "0.667", "-0.025", "0.848", "0.871", "0.023", "0.224", "3.6 1.0", "1 of 2", "0 3"),
        *("0.612", "0.643", "0.234", "0.255"),
        *("90%", "60%", "75%", "25%", "53% … 89%", "7% … 59%", "60% … 98%", "20 episodes", "8 episodes"),
        *("2 min 51 s", "21 min 46 s", "1 min 03 s", "25 min 40 s", "5 min 01 s", "42 s", "3.4 GiB"),
        *("0.6.1", "2.10.0", "1234", "hlrp-train-laq --steps=1200"),
    ]
    assert [figure for figure in expected if figure not in text] == []


def test_the_page_loads_nothing_from_outside(report: dict[str, Any], make_video: WriteVideo) -> None:
    figures = {"stage_time": stage_time_figure(report["stages"])}
    page = render_report(report, figures, {"door": make_video("a.mp4", frames=3)})
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", page)
    assert len(Tags(page).links) == 2
    assert all(link.startswith("data:") for link in Tags(page).links)


def test_figures_and_videos_come_back_out(report: dict[str, Any], make_video: WriteVideo) -> None:
    video = make_video("a.mp4", frames=3)
    picture = stage_time_figure(report["stages"])
    page = render_report(report, {"stage_time": picture, "my own": picture}, {"door-open-v3": video})
    links = Tags(page).links
    contents = [base64.b64decode(link.split(",")[1]) for link in links]
    assert sorted(contents) == sorted([picture, picture, video.read_bytes()])
    Image.open(BytesIO(picture)).verify()
    assert "my own" in Tags(page).text
    assert re.search(r"<video autoplay loop muted playsinline", page)


def test_text_cannot_become_markup(report: dict[str, Any], make_video: WriteVideo) -> None:
    evil = '<script>alert("x")</script>&"\''
    card = report["policies"]["act"]
    card["tasks"], card["task_episodes"] = {evil: 0.25}, {evil: 8}
    report["policies"] = {evil: card}
    for section in ("stages", "versions", "commands"):
        report[section] = {evil: next(iter(report[section].values()))}
    report["commands"][evil] = report["versions"][evil] = evil
    picture = stage_time_figure({"a": 1.0})
    tags = Tags(render_report(report, {evil: picture}, {evil: make_video("a.mp4", frames=2)}))
    assert "script" not in tags.names
    assert tags.text.count(evil) >= 7


def test_a_page_without_extras_has_no_empty_sections(report: dict[str, Any]) -> None:
    page = render_report(report, {}, {})
    assert "Rollouts" not in page
    assert "More plots" not in page
    assert "<h2>Training</h2>" not in page


def test_a_dataset_without_actions_says_so(report: dict[str, Any]) -> None:
    for name in list(report["laq"]):
        if name.startswith("probe"):
            report["laq"][name] = None
    text = Tags(render_report(report, {}, {})).text
    for claim in ("probe R²", "gain over the frame", "R² from latent codes"):
        assert claim not in text


def test_all_that_is_missing_is_named_at_once(report: dict[str, Any]) -> None:
    del report["seed"], report["laq"]["probe_r2"], report["policies"]["act"]["tasks"]
    with pytest.raises(ValueError, match=r"lacks seed, laq\.probe_r2, policies\.act\.tasks;"):
        render_report(report, {}, {})


def test_missing_sections_and_no_policies_are_named(report: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lacks foundation;"):
        render_report({name: part for name, part in report.items() if name != "foundation"}, {}, {})
    with pytest.raises(ValueError, match="no policy"):
        render_report(report | {"policies": {}}, {}, {})


def test_a_missing_video_is_named(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"):
        render_report(report, {}, {"door": tmp_path / "gone.mp4"})
