"""The picture of clips that share their codes: how clips are chosen, and where arrows start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.laq_nuisance import motion_r2
from benchmarks.shared_codes import find_camera, fit_camera, most_shared, project, spread_first
from benchmarks.shared_codes_plot import SharedCodes, shared_codes_figure

CAMERA = torch.tensor([[30.0, 5.0, 2.0, 20.0], [1.0, -4.0, -30.0, 40.0], [0.0, 0.2, 0.0, 1.0]], dtype=torch.float64)
"""A projection of points in a cube of one metre to about 64 pixels."""


def test_a_camera_is_found_from_points_and_their_places_in_the_image() -> None:
    points, others = torch.rand(40, 3), torch.rand(10, 3)
    camera = fit_camera(points, project(CAMERA, points))
    torch.testing.assert_close(project(camera, others), project(CAMERA, others), atol=0.05, rtol=0)


def test_the_ball_is_found_by_its_colour() -> None:
    ball = torch.rand(60, 3)
    frames = torch.zeros(60, 3, 96, 96, dtype=torch.uint8)
    rows, columns = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    for frame, (x, y) in zip(frames, project(CAMERA, ball).add(10).tolist(), strict=True):
        frame[0, (rows - y) ** 2 + (columns - x) ** 2 < 25] = 255
        frame[2] = frame[0]
    source: Any = SimpleNamespace(frames=SimpleNamespace(read=lambda index: frames[index][:, :, None]))
    error = (project(find_camera(source, ball), ball) - project(CAMERA, ball) - 10).norm(dim=1)
    assert float(error.max()) < 1


def test_codes_are_chosen_whose_clips_move_alike_with_one_clip_of_each_episode() -> None:
    codes = torch.tensor([[1, 1], [1, 1], [1, 1], [2, 3], [2, 3]])
    labels: Any = SimpleNamespace(codes=codes, episode_index=torch.tensor([0, 0, 1, 1, 2]))
    left, right, up = [-1.0, 0.0], [2.0, 0.0], [0.0, 1.0]
    assert most_shared(labels, torch.arange(5), torch.tensor([left, right, left, right, up])).tolist() == [0, 2]
    assert most_shared(labels, torch.arange(5), torch.tensor([left, right, right, up, up])).tolist() == [3, 4]


def test_drawn_clips_are_spread_over_all() -> None:
    assert spread_first(torch.arange(10, 16), 3).tolist() == [10, 12, 15, 11, 13, 14]
    assert spread_first(torch.arange(2), 5).tolist() == [0, 1]


def test_codes_that_give_the_motion_explain_it() -> None:
    number = torch.randint(3, (90,))
    codes = torch.nn.functional.one_hot(number, 3)
    moves = number[:, None] * torch.tensor([1.0, -2.0, 0.5])
    is_held_out = torch.arange(90) >= 60
    assert motion_r2(codes, moves, is_held_out) == pytest.approx(1, abs=1e-2)
    assert motion_r2(codes, torch.randn(90, 3), is_held_out) < 0.3


def test_a_row_is_drawn_for_each_quantizer() -> None:
    motion = torch.rand(7, 2, 2) * 64
    row = SharedCodes(
        title="Learned from video",
        codes=[1, 2],
        frames=torch.randint(255, (3, 3, 64, 64)).to(torch.uint8),
        hand=motion,
        ball=motion.flip(0),
        hand_r2=0.1,
        ball_r2=0.6,
    )
    one, two = shared_codes_figure([row]), shared_codes_figure([row, row])
    assert one.startswith(b"\x89PNG")
    assert len(two) > len(one)
