from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hlrp.data.clips import ClipBatches
from hlrp.data.episode_split import TrainingSource
from hlrp.data.frames import CachedFrames, StackedFrames
from hlrp.data.source_config import ClipAugmentation
from hlrp.data.sources import ClipSource
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.task import LAQTask, LAQTrainingConfig
from hlrp.latents import LatentSpec
from hlrp.measure.laq_quality import LAQQuality, QualityClips, measure_quality
from hlrp.training.optimization import OptimizerConfig
from hlrp.training.run import TrainingRun
from hlrp.training.step_data import StepData
from tiny_datasets import moving_square

EPISODES, LENGTH = 24, 16


def film(seed: int) -> tuple[Tensor, Tensor]:
    """Frames (n, 3, h, w) and what the square did after each (n, 2)."""
    episodes = [moving_square(LENGTH, seed=seed + number) for number in range(EPISODES)]
    frames = torch.cat([torch.from_numpy(images) for images, _, _ in episodes]).permute(0, 3, 1, 2)
    return frames.contiguous(), torch.cat([torch.from_numpy(actions)[:, :2] for _, _, actions in episodes])


def train(tmp_path: Path, quantizer: str, *, steps: int) -> LAQQuality:
    """Train on 24 episodes; the card is of 24 others."""
    torch.manual_seed(0)
    spec = LatentSpec(code_seq_len=2)
    model = LatentActionQuantizer(replace(debug(), patch_size=8, quantizer=quantizer, spec=spec))
    firsts = torch.arange(EPISODES) * LENGTH
    frames, actions = film(0)
    source = ClipSource(
        name="film",
        frames=StackedFrames([CachedFrames(frames)]),
        bounds=torch.stack([firsts, firsts + LENGTH], dim=1),
        fps=10.0,
        cameras=("top",),
        actions=None,
    )
    batches = ClipBatches(
        [TrainingSource(source=source, episodes=torch.arange(EPISODES))],
        spec,
        batch_size=64,
        num_batches=steps,
        seed=0,
        augmentation=ClipAugmentation(),
    )
    optimizer = OptimizerConfig(lr=2e-3, warmup_steps=20)
    TrainingRun(tmp_path / "laq", resume=False).fit(
        LAQTask(model, LAQTrainingConfig(optimizer=optimizer, motion_strength=1.0)),
        StepData(batches, None, num_workers=0),
        steps=steps,
        save_every=steps,
        device="cpu",
    )
    other_frames, other_actions = film(1000)
    starts = (torch.arange(EPISODES * LENGTH) % LENGTH < LENGTH - 1).nonzero()[:, 0]
    fit, held_out = (
        StackedFrames([CachedFrames(x)]).read(starts[:, None] + torch.arange(2)) for x in (frames, other_frames)
    )
    clips = QualityClips(
        [fit], [held_out], starts // LENGTH, held_out[:256], actions[starts, None], other_actions[starts, None]
    )
    return measure_quality(model, clips)


@pytest.mark.parametrize("quantizer", ["fsq", pytest.param("vq", marks=pytest.mark.slow)])
def test_more_than_half_of_every_codebook_stays_alive(tmp_path: Path, quantizer: str) -> None:
    card = train(tmp_path, quantizer, steps=150)
    assert all(dead < 4 for dead in card.codes.dead_codes), card.codes.code_usage
    assert all(perplexity > 3 for perplexity in card.codes.perplexity)
    assert card.pictures.copy_gain > 0
    if quantizer == "fsq":  # which learns in so few steps what the codes are for; chance is 0
        assert card.probe.probe_r2 is not None
        assert card.probe.probe_r2 > 0.15
        assert card.probe.probe_r2_frame_only == pytest.approx(0, abs=0.1)


def test_one_step_moves_every_weight_that_trains(fsq_model: LatentActionQuantizer) -> None:
    torch.nn.init.normal_(fsq_model.decoder.heads["pixels"].weight)  # which starts at zero and lets nothing through
    task = LAQTask(fsq_model.train(), LAQTrainingConfig())
    frames = torch.rand(8, 2, 1, 3, 32, 32)
    result = fsq_model(frames)
    (result.frames - frames[:, 1:]).square().mean().backward()
    still = [
        name
        for name, parameter in task.model.named_parameters()
        if parameter.grad is None or parameter.grad.count_nonzero() == 0
    ]
    assert still == []
