"""Film strips and imagined frames show what the episodes hold."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hlrp.report.plots.rollout_plots import ImaginedMoment, film_strip_figure, imagination_figure

pytestmark = pytest.mark.filterwarnings("error")  # a layout that does not fit only warns


def grey(value: int, size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), value, dtype=np.uint8)


def colours(png: bytes) -> set[tuple[int, ...]]:
    found = Image.open(BytesIO(png)).convert("RGB").getcolors(1 << 24)
    assert found is not None
    return {colour for _, colour in found}


def test_a_film_strip_shows_the_first_and_the_last_frame_and_not_every_one() -> None:
    shown = colours(film_strip_figure({"door-open-v3": [grey(10), *[grey(100 + i) for i in range(20)], grey(77)]}))
    assert {(10, 10, 10), (77, 77, 77)} <= shown
    assert sum((100 + i,) * 3 in shown for i in range(20)) == 4


def test_a_film_of_one_frame_has_a_strip() -> None:
    assert (40, 40, 40) in colours(film_strip_figure({"a": [grey(40)]}))


def test_an_imagined_moment_shows_three_frames_and_two_changes() -> None:
    shown = colours(imagination_figure([ImaginedMoment("a", grey(50), grey(50), grey(250))]))
    assert {(50, 50, 50), (250, 250, 250)} <= shown
    # Nothing was imagined to change, so that its map is grey; the real change is as strong as the map can show.
    assert any(r == g == b and r not in (50, 250, 255) for r, g, b in shown)
    assert (214, 94, 0) in shown


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one film"):
        film_strip_figure({})
    with pytest.raises(ValueError, match="at least one moment"):
        imagination_figure([])
