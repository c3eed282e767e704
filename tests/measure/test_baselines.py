from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from brightness_laq import brightness_clips
from hlrp.laq.config import LAQConfig, debug
from hlrp.laq.k_means import k_means
from hlrp.latents import LatentSpec
from hlrp.measure.action_probe import standardized
from hlrp.measure.baselines import (
    LabelledClips,
    LabellerConfig,
    baseline_rows,
    code_row,
    inverse_dynamics_labeller,
    model_row,
    oracle_codes,
    random_laq,
)
from hlrp.measure.clip_features import clip_features
from hlrp.measure.code_usage import code_usage
from hlrp.measure.laq_quality import QualityClips, measure_quality

SPEC = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=4)
LABELLER = LabellerConfig(steps=60, batch_size=32, lr=3e-3)


@pytest.fixture
def config() -> LAQConfig:
    return replace(debug(), spec=SPEC)


@pytest.fixture
def clips() -> QualityClips:
    """Clips that become brighter or darker, and actions that say by how much."""
    frames, codes = brightness_clips(192, 2)
    actions = (codes - 2.0)[:, :, None].expand(-1, 3, 2)
    return QualityClips(
        frames[:128].split(64), frames[128:].split(64), torch.arange(64) % 4, frames[128:],
        actions[:128], actions[128:],
    )  # fmt: skip


def test_oracle_codes_explain_more_than_random_ones_and_more_slots_more() -> None:
    actions = torch.randn(600, 3, 2) @ torch.randn(2, 2)
    chunks = standardized(actions[:400], actions[400:], torch.arange(200) % 5)

    def r2(spec: LatentSpec) -> float:
        found = code_row("oracle", "", *oracle_codes(chunks, spec, seed=0), chunks, spec.codebook_size).probe_r2
        assert found is not None
        return found

    noise = code_row("random", "", torch.randint(4, (400, 1, 2)), torch.randint(4, (200, 1, 2)), chunks, 4).probe_r2
    assert noise is not None
    assert noise < 0.05 < 0.3 < r2(SPEC) < r2(replace(SPEC, code_seq_len=5)) < 1
    assert r2(SPEC) < r2(replace(SPEC, codebook_size=16))


def test_clips_whose_actions_are_not_finite_are_left_out_of_every_probe(config: LAQConfig, clips: QualityClips) -> None:
    assert clips.fit_actions is not None
    assert clips.held_out_actions is not None
    fit, held_out = clips.fit_actions.clone(), clips.held_out_actions.clone()
    fit[::5, 1, 0], held_out[::4, 2] = torch.nan, torch.inf
    lost = replace(clips, fit_actions=fit, held_out_actions=held_out)
    chunks = lost.chunks
    assert chunks is not None
    row = code_row("oracle", "", *oracle_codes(chunks, SPEC, seed=0), chunks, SPEC.codebook_size)
    assert row.probe_r2 == pytest.approx(1, abs=0.01)
    with torch.no_grad():
        card = measure_quality(random_laq(config, clips.fit), lost)
    assert card.probe.probe_r2_vectors is not None
    assert card.probe.probe_r2_vectors > 0.5
    assert card.reversal.reversal_correlation is not None
    assert card.clips == 64  # codes need no actions
    assert replace(clips, held_out_actions=torch.full_like(held_out, torch.nan)).chunks is None


def test_oracle_codes_have_the_shape_of_the_quantizers_own() -> None:
    chunks = standardized(torch.randn(50, 4, 3), torch.randn(20, 4, 3), torch.arange(20))
    fit, held_out = oracle_codes(chunks, replace(SPEC, num_frames=3), seed=0)
    assert fit.shape == (50, 2, 2)
    assert held_out.shape == (20, 2, 2)
    assert fit.min() >= 0
    assert fit.max() < 4


def test_k_means_finds_separate_clusters_and_survives_fewer_points_than_centres() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centres.repeat_interleave(30, 0) + 0.1 * torch.randn(90, 2)
    found = k_means(points, 3, torch.Generator().manual_seed(0))
    assert torch.cdist(centres, found).amin(1).max() < 0.2
    assert k_means(points[:2], 4, torch.Generator().manual_seed(0)).isfinite().all()


@pytest.mark.parametrize("quantizer", ["kmeans", "fsq", "vq"])
def test_a_random_quantizer_uses_its_codes_since_its_statistics_fit_the_clips(
    config: LAQConfig, clips: QualityClips, quantizer: str
) -> None:
    model = random_laq(replace(config, quantizer=quantizer), clips.fit)
    assert not model.training
    with torch.no_grad():
        codes = clip_features(model, clips.fit).latents.codes
    assert codes is not None
    perplexity = code_usage(codes, SPEC.codebook_size).perplexity
    assert perplexity is not None
    assert min(perplexity) > 1.5


@pytest.mark.parametrize("quantizer", ["kmeans", "fsq"])
def test_a_labeller_learns_the_actions_of_its_few_clips(config: LAQConfig, clips: QualityClips, quantizer: str) -> None:
    frames, codes = brightness_clips(48, 2)
    labelled = LabelledClips(frames, (codes - 2.0)[:, :, None].expand(-1, 3, 2), 2)
    model = inverse_dynamics_labeller(replace(config, quantizer=quantizer), labelled, LABELLER)
    assert not model.training
    assert model.quantizer.is_final == (quantizer == "kmeans")  # these codes are fitted, as those of a training are
    assert clips.chunks is not None
    row = model_row("labeller", "", model, clips, clips.chunks)
    assert row.probe_r2 is not None
    assert row.probe_r2 > 0.5


def test_codes_of_unknown_actions_do_not_count_as_used(clips: QualityClips) -> None:
    assert clips.chunks is not None
    half = torch.arange(len(clips.chunks.held_out)) % 2 == 0
    unknown = replace(clips.chunks, held_out=torch.where(half[:, None], torch.nan, clips.chunks.held_out))
    codes = torch.randint(SPEC.codebook_size, (len(half), 1, SPEC.code_seq_len))
    codes[half] = 0  # what the nearest centre of an action that is not known comes to
    fit = torch.randint(SPEC.codebook_size, (len(clips.chunks.fit), 1, SPEC.code_seq_len))
    row = code_row("oracle codes", "", fit, codes, unknown, SPEC.codebook_size)
    assert row.perplexity == code_usage(codes[~half], SPEC.codebook_size).perplexity


def test_every_baseline_stands_beside_the_quantizer(config: LAQConfig, clips: QualityClips) -> None:
    model = random_laq(config, clips.fit)
    quality = measure_quality(model, clips)
    frames, codes = brightness_clips(32, 2)
    labelled = LabelledClips(frames, (codes - 2.0)[:, :, None].expand(-1, 3, 2), 1)
    rows = baseline_rows(config, quality, clips, labelled, replace(LABELLER, steps=2), seed=0)
    assert [row.name for row in rows] == ["this LAQ", "random LAQ", "inverse dynamics", "oracle codes"]
    assert rows[0].probe_r2 == quality.probe.probe_r2
    assert rows[3].probe_r2 == pytest.approx(1, abs=0.01)  # five values fit into two codes of four
    assert rows[1].meaning.startswith("the same architecture with random weights")


def test_without_actions_there_is_nothing_to_compare(config: LAQConfig, clips: QualityClips) -> None:
    blind = replace(clips, fit_actions=None, held_out_actions=None)
    model = random_laq(config, clips.fit)
    labelled = LabelledClips(clips.pictures, torch.zeros(len(clips.pictures), 3, 2), 1)
    with pytest.raises(
        ValueError,
        match=r"the actions of 2 fitting clips .* fewer clips have known actions; leave the baselines out",
    ):
        baseline_rows(config, measure_quality(model, blind), blind, labelled, LABELLER, seed=0)
