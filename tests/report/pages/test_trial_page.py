"""The page about a trial says what was solved, and holds all its pictures and videos itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hlrp.report.pages.trial_page import Trial, render_trial
from hlrp.report.plots.rollout_plots import film_strip_figure


@pytest.fixture
def trial(report: dict[str, Any], make_video: Callable[..., Path]) -> Trial:
    picture = film_strip_figure({"a": [np.zeros((8, 8, 3), dtype=np.uint8)]})
    return Trial(
        success={
            "success_rate": 0.75,
            "episodes": 4,
            "interval": [0.3, 0.95],
            "tasks": {"push<v3": 1.0, "pull-v3": 0.5},
            "task_episodes": {"push<v3": 2, "pull-v3": 2},
        },
        laq=report["laq"],
        foundation=report["foundation"],
        rollouts={"copy_gain_moving": 0.61},
        plots={"films": picture, "imagined": picture, "transfer": picture, "atlas: slot 0": picture},
        videos={"push<v3": make_video("push.mp4", frames=5)},
        span_s=0.1,
        seconds=84.0,
        first_seed=2000,
    )


def test_the_page_says_what_was_solved_and_what_it_cost(trial: Trial) -> None:
    page = render_trial(trial)
    for text in (
        "3 of 4",
        "1 min 24 s",
        "0.61",
        "2 of 2",
        "1 of 2",
        "30% … 95%",
        "0.1 s later",
        "Seeds 2000",
        "slot 0",
    ):
        assert text in page
    assert "codes alone" not in page  # the decoder gets frame t, too


def test_the_page_needs_no_other_file_and_trusts_no_name(trial: Trial) -> None:
    page = render_trial(trial)
    assert page.count("<img ") == 4
    assert page.count("<video ") == 1
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))
    assert "push<v3" not in page


def test_what_was_not_drawn_is_left_out(trial: Trial) -> None:
    kept = {name: plot for name, plot in trial.plots.items() if name == "films"}
    page = render_trial(Trial(**{**vars(trial), "plots": kept, "rollouts": {"copy_gain_moving": None}}))
    assert "imagines" not in page
    assert page.count("<img ") == 1
