"""Codes that mean the same on two sources are told from codes that do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from brightness_laq import BlindLAQ, BrightnessLAQ, brightness_clips
from hlrp.measure.across_sources import across_sources
from hlrp.measure.laq_quality import QualityClips


def source(*, sign: float = 1.0, actions: int | None = 4) -> QualityClips:
    """Clips whose actions follow the codes; with `sign` -1 a brighter frame is the opposite action."""
    clips, codes = brightness_clips(80, 2)
    known: tuple[Tensor | None, Tensor | None] = (None, None)
    if actions is not None:
        chunks = sign * (codes[:, :1, None] - 2.0).expand(-1, actions, 1)
        known = (chunks[:40], chunks[40:])
    return QualityClips(
        fit=clips[:40].split(16),
        held_out=clips[40:].split(16),
        episode=torch.arange(40) % 4,
        pictures=clips[40:72],
        fit_actions=known[0],
        held_out_actions=known[1],
    )


def test_codes_with_one_meaning_keep_it_in_both_directions() -> None:
    pairs = across_sources(BrightnessLAQ().eval(), {"arm": source(), "other arm": source()})
    assert [(pair.codes_of, pair.frames_of) for pair in pairs] == [("arm", "other arm"), ("other arm", "arm")]
    for pair in pairs:
        assert pair.transfer_consistency == 1
        assert pair.transfer_chance == pytest.approx(0.2, abs=0.1)
        assert pair.probe_r2 == pytest.approx(1, abs=1e-2)
        assert pair.own_probe_r2 == pytest.approx(1, abs=1e-2)


def test_codes_that_mean_the_opposite_on_another_robot_are_found_out() -> None:
    (pair, _) = across_sources(BrightnessLAQ().eval(), {"arm": source(), "mirrored": source(sign=-1.0)})
    assert pair.probe_r2 is not None
    assert pair.probe_r2 < -1
    assert pair.own_probe_r2 == pytest.approx(1, abs=1e-2)


def test_a_decoder_that_ignores_codes_reads_back_no_more_than_chance() -> None:
    (pair, _) = across_sources(BlindLAQ().eval(), {"arm": source(), "film": source(actions=None)})
    assert pair.transfer_consistency == pytest.approx(pair.transfer_chance, abs=0.1)
    assert pair.probe_r2 is None


def test_actions_of_another_shape_are_not_compared() -> None:
    pairs = across_sources(BrightnessLAQ().eval(), {"arm": source(), "hand": source(actions=3)})
    assert [pair.probe_r2 for pair in pairs] == [None, None]
    assert [pair.transfer_consistency for pair in pairs] == [1, 1]
