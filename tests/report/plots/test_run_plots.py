"""Figures are whole PNG files of page width, whatever the data look like."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import matplotlib as mpl
import pytest
import torch
from PIL import Image

from hlrp.report.curves import Series
from hlrp.report.plots.reconstruction_plot import reconstruction_figure
from hlrp.report.plots.run_plots import (
    code_usage_figure,
    latent_quality_figure,
    loss_curves_figure,
    stage_time_figure,
    success_figure,
)
from hlrp.report.plots.style import figure_style

pytestmark = pytest.mark.filterwarnings("error")  # a layout that does not fit only warns


def opened(content: bytes) -> Image.Image:
    image = Image.open(BytesIO(content))
    image.load()
    assert image.format == "PNG"
    assert image.width == 1152
    assert len(image.convert("RGB").getcolors(1 << 24) or []) > 3
    return image


def test_reconstructions_take_a_row_for_each_clip() -> None:
    frames = torch.rand(3, 3, 16, 16)
    codes = torch.randint(8, (3, 4))
    three = opened(reconstruction_figure(frames, frames.flip(0), frames + 0.5, codes))
    one = opened(reconstruction_figure(frames[:1], frames[:1], frames[:1], codes[:1]))
    assert three.height > 2 * one.height


def test_no_reconstruction_is_refused() -> None:
    nothing = torch.rand(0, 3, 16, 16)
    with pytest.raises(ValueError, match="at least one clip"):
        reconstruction_figure(nothing, nothing, nothing, torch.zeros(0, 4, dtype=torch.long))


@pytest.mark.parametrize(("slots", "size"), [(1, 2), (4, 8), (6, 64)])
def test_code_usage_has_room_for_every_slot(slots: int, size: int) -> None:
    opened(code_usage_figure([[1 / size] * size] * slots, [float(size)] * slots))


def test_a_dead_code_is_marked() -> None:
    alive, dead = ([0.5, 0.5, 1e-6], [0.5, 0.5, 0.0])
    assert code_usage_figure([alive], [2.0]) != code_usage_figure([dead], [2.0])


def test_usage_and_perplexity_must_agree() -> None:
    with pytest.raises(ValueError, match="2 slots, 1 perplexities"):
        code_usage_figure([[1.0, 0.0], [0.5, 0.5]], [1.0])


def test_curves_of_any_length_and_size_are_drawn() -> None:
    curves = {
        "one point": Series([9], [1.0]),
        "short": Series([5, 10], [65.0, 59.0]),
        "decades": Series(list(range(100)), [10.0 / (i + 1) ** 2 for i in range(100)]),
        "negative": Series([1, 2, 3], [-0.2, 0.1, 0.5]),
        "diverged": Series([1, 2, 3], [1.0, float("nan"), float("nan")]),
    }
    opened(loss_curves_figure(curves))


def test_a_curve_without_points_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="act has no points"):
        loss_curves_figure({"act": Series([], [])})
    with pytest.raises(ValueError, match="at least one"):
        loss_curves_figure({})


def test_policies_need_not_share_their_tasks() -> None:
    opened(success_figure({"a": {"door": (0.0, 0.0, 0.3), "a-long-name-of-a-task": (1.0, 0.7, 1.0)}}))
    opened(success_figure({"a": {"door": (0.5, 0.2, 0.8)}, "b": {"drawer": (0.5, 0.2, 0.8)}}))
    with pytest.raises(ValueError, match="at least one policy"):
        success_figure({"a": {}})


@pytest.mark.parametrize("seconds", [0.04, 3.0, 900.0, 90_000.0])
def test_stages_of_any_length_share_a_bar(seconds: float) -> None:
    opened(stage_time_figure({"collect": seconds, "train": 3 * seconds, "label": 0.0}))


@pytest.mark.parametrize("stages", [{}, {"collect": -1.0}, {"collect": 0.0}])
def test_impossible_times_are_refused(stages: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="seconds of at least one stage"):
        stage_time_figure(stages)


def test_a_terrible_probe_still_leaves_a_readable_figure(report: dict[str, Any]) -> None:
    opened(latent_quality_figure(report["laq"]))
    opened(latent_quality_figure(report["laq"] | {"probe_r2_pixels": -4000.0}))


def test_a_probe_without_actions_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs actions"):
        latent_quality_figure(report["laq"] | {"probe_r2": None})


def test_the_style_stays_in_its_block() -> None:
    before = dict(mpl.rcParams)
    with figure_style():
        assert mpl.rcParams["legend.frameon"] is False
    assert dict(mpl.rcParams) == before
