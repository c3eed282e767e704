from __future__ import annotations

import pytest
import torch

from hlrp.data.frames import CachedFrames, StackedFrames
from hlrp.data.sources import ClipSource
from hlrp.latents import LatentSpec
from hlrp.measure.held_out import quality_clips

LENGTH, EPISODES = 20, 6


def test_probes_are_fitted_on_clips_with_known_actions_if_there_are_more_clips_than_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hlrp.measure.held_out._PROBE_CLIPS", 18)
    ends = torch.arange(1, EPISODES + 1) * LENGTH
    actions = torch.randn(EPISODES * LENGTH, 2)
    actions[LENGTH : 4 * LENGTH] = torch.nan  # episode 0 is the only training episode with actions
    source = ClipSource(
        name="source",
        frames=StackedFrames([CachedFrames(torch.zeros(EPISODES * LENGTH, 3, 16, 16, dtype=torch.uint8))]),
        bounds=torch.stack([ends - LENGTH, ends], dim=1),
        fps=10.0,
        cameras=("camera",),
        actions=actions,
    )
    clips = quality_clips(source, LatentSpec(frame_offset_s=0.2), torch.arange(4), torch.tensor([4, 5]), seed=0)
    assert clips.fit_actions is not None
    assert clips.fit_actions.shape == (18, 2, 2)
    assert clips.fit_actions.isfinite().all()
    films = torch.arange(1, 4)
    without = quality_clips(source, LatentSpec(frame_offset_s=0.2), films, torch.tensor([4, 5]), seed=0)
    assert without.fit_actions is not None
    assert without.fit_actions.isnan().all()
