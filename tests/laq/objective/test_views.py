from __future__ import annotations

import pytest
import torch

from hlrp.laq.objective.views import ViewConfig, altered_view, shift

NOTHING = ViewConfig(max_shift=0, max_brightness=0, max_contrast=0)


def test_a_view_that_alters_nothing_is_the_clip() -> None:
    frames = torch.rand(3, 2, 1, 3, 16, 16)
    torch.testing.assert_close(altered_view(frames, torch.ones(3, 4), NOTHING), frames)


def test_all_frames_of_a_clip_are_altered_alike_and_clips_differently() -> None:
    frames = torch.rand(1, 1, 2, 3, 16, 16).expand(4, 3, -1, -1, -1, -1)
    view = altered_view(frames, torch.rand(4, 4), ViewConfig())
    torch.testing.assert_close(view, view[:, :1].expand_as(view))
    assert not torch.allclose(view[0], view[1])


def test_a_view_is_a_function_of_its_draws() -> None:
    frames, draws = torch.rand(4, 2, 1, 3, 16, 16), torch.rand(4, 4)
    together = altered_view(frames, draws, ViewConfig())
    torch.testing.assert_close(altered_view(frames[1::2], draws[1::2], ViewConfig()), together[1::2])


def test_a_still_clip_stays_still_and_a_motion_keeps_its_direction() -> None:
    frames = torch.zeros(1, 2, 1, 3, 32, 32)
    frames[:, 0, ..., 12:20, 12:20] = 1
    frames[:, 1, ..., 12:20, 16:24] = 1
    view = altered_view(frames, torch.rand(1, 4), ViewConfig())
    places = torch.arange(32.0)
    weight = (view[0, :, 0, 0] - view[0, :, 0, 0].amin((-1, -2), keepdim=True)).clamp_min(0)
    centres = [((w.sum(0) * places).sum() / w.sum(), (w.sum(1) * places).sum() / w.sum()) for w in weight]
    assert float(centres[1][0] - centres[0][0]) == pytest.approx(4, abs=0.2)
    assert float(centres[1][1] - centres[0][1]) == pytest.approx(0, abs=0.2)


def test_a_shift_by_whole_pixels_moves_them_and_repeats_the_border() -> None:
    images = torch.rand(1, 3, 8, 8)
    moved = shift(images, torch.tensor([[2 / 8, 0.0]]))
    torch.testing.assert_close(moved[..., :6], images[..., 2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[..., 6:], images[..., 7:].expand(-1, -1, -1, 2), atol=1e-5, rtol=0)


def test_half_precision_does_not_round_a_shift() -> None:
    images, by = torch.rand(2, 3, 256, 256), torch.tensor([[0.031, -0.047], [0.013, 0.1]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = shift(images, by)
    torch.testing.assert_close(moved, shift(images, by))


@pytest.mark.parametrize("changes", [{"max_shift": 0.5}, {"max_brightness": -0.1}, {"max_contrast": 1.0}])
def test_an_impossible_view_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"max_(shift|brightness|contrast) must be (in|0 or more)"):
        ViewConfig(**changes)
