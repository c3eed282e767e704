"""The card: probes on codes made for the purpose, and every figure on a quantizer that knows the truth."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brightness_laq import BlindLAQ, BrightnessLAQ, brightness_clips
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions, LatentSpec
from hlrp.measure.action_probe import NO_PROBE, ProbeMetrics, probe_metrics, standardized
from hlrp.measure.clip_features import ClipFeatures, clip_features
from hlrp.measure.laq_quality import LAQQuality, QualityClips, evaluating, measure_quality
from hlrp.measure.reconstruction import NO_PICTURES
from hlrp.report.latent_table import basis_of_r2

K, SLOTS = 4, 2


# ---- Probes ----


def features(codes: Tensor) -> ClipFeatures:
    """Clips of `codes` (b, slots) that start from unrelated pictures."""
    b, quantized = len(codes), F.one_hot(codes, K).float()[:, None]
    valid = torch.ones(b, dtype=torch.bool)
    return ClipFeatures(
        latents=LatentActions(codes[:, None], quantized + 0.1 * torch.randn_like(quantized), valid),
        quantized=quantized,
        still=LatentActions(torch.zeros_like(codes[:, None]), torch.zeros_like(quantized), valid),
        pixels=torch.randn(b, 5),
    )


def random_codes(b: int) -> Tensor:
    return torch.randint(K, (b, SLOTS))


def actions_of(codes: Tensor) -> Tensor:
    """Actions (b, 3 steps, 2) that the codes determine; every slot says one dimension."""
    table = torch.tensor([-3.0, 1.0, 0.5, 2.0])
    return table[codes][:, None, :].expand(-1, 3, -1) * torch.tensor([1.0, 100.0])


def probed(fit: ClipFeatures, test: ClipFeatures, fit_actions: Tensor, test_actions: Tensor) -> ProbeMetrics:
    """Figures of held-out clips from ten episodes."""
    episode = torch.arange(len(test_actions)) % 10
    return probe_metrics(fit, test, standardized(fit_actions, test_actions, episode), K)


def test_codes_that_determine_the_action_score_one_and_all_of_it_is_gain() -> None:
    fit, test = random_codes(600), random_codes(300)
    card = probed(features(fit), features(test), actions_of(fit), actions_of(test))
    assert card.probe_r2 == pytest.approx(1, abs=1e-3)
    assert card.probe_r2_quantized == pytest.approx(1, abs=1e-3)
    assert card.probe_r2_per_action == pytest.approx([1, 1], abs=1e-3)
    assert card.probe_r2_frame_only == pytest.approx(0, abs=0.02)
    assert card.probe_r2_pixels == pytest.approx(0, abs=0.1)
    assert card.probe_r2_pixels_and_codes == pytest.approx(1, abs=1e-3)
    assert card.probe_gain == pytest.approx(1, abs=0.1)


def test_codes_of_the_motion_score_on_relative_actions_even_if_they_do_not_tell_the_position() -> None:
    fit, test = random_codes(600), random_codes(300)

    def targets(codes: Tensor) -> Tensor:  # positions anywhere, which move in every step as the codes say
        steps = torch.arange(3.0)[None, :, None]
        return 30 * torch.randn(len(codes), 1, 2) + steps * actions_of(codes) * torch.tensor([1.0, 0.01])

    card = probed(features(fit), features(test), targets(fit), targets(test))
    assert card.probe_r2 is not None
    assert card.probe_r2 < 0.2
    assert card.probe_r2_relative == pytest.approx(1, abs=1e-3)
    assert card.probe_r2_relative_vectors == pytest.approx(0.9, abs=0.1)


def test_chunks_of_one_action_have_no_relative_actions() -> None:
    fit, test = random_codes(60), random_codes(30)
    card = probed(features(fit), features(test), actions_of(fit)[:, :1], actions_of(test)[:, :1])
    assert card.probe_r2_relative is None
    assert card.probe_r2 == pytest.approx(1, abs=1e-2)


def test_intervals_contain_their_figures() -> None:
    fit, test = random_codes(600), random_codes(300)
    noise = [2 * torch.randn(len(codes), 3, 2) * torch.tensor([1.0, 100.0]) for codes in (fit, test)]
    card = probed(features(fit), features(test), actions_of(fit) + noise[0], actions_of(test) + noise[1])
    for value, interval in ((card.probe_r2, card.probe_r2_interval), (card.probe_gain, card.probe_gain_interval)):
        assert value is not None
        assert interval is not None
        assert interval[0] < value < interval[1]


def test_codes_of_frame_t_alone_add_nothing_to_a_still_clip() -> None:
    def card_of(*, shows_motion: bool) -> ProbeMetrics:
        clips, actions = [], []
        for count in (600, 300):
            position, motion = random_codes(count), random_codes(count)  # of frame t, and of the clip
            still = LatentActions.of_codes(position[:, None])
            shown = features(motion if shows_motion else position)
            clips.append(replace(shown, still=still))  # the pixels do not tell the position linearly
            actions.append(actions_of(position) + actions_of(motion))
        return probed(*clips, *actions)

    alone, motion = card_of(shows_motion=False), card_of(shows_motion=True)
    assert alone.probe_gain is not None
    assert alone.probe_gain > 0.3, "so that the gain over the pixels does not find it out"
    assert alone.probe_gain_over_still == pytest.approx(0, abs=0.01)
    assert motion.probe_gain_over_still is not None
    assert motion.probe_gain_over_still > 0.3
    assert motion.probe_gain_over_still_interval is not None
    assert motion.probe_gain_over_still_interval[0] > 0.2


@pytest.mark.parametrize("episodes", [1, 2, 5])
def test_few_held_out_episodes_say_nothing_about_others(episodes: int) -> None:
    fit, test = random_codes(100), random_codes(50)
    chunks = standardized(actions_of(fit), actions_of(test), torch.arange(50) % episodes)
    assert probe_metrics(features(fit), features(test), chunks, K).probe_r2_interval is None


def test_codes_count_as_names_so_that_renaming_them_changes_nothing() -> None:
    fit, test = random_codes(600), random_codes(300)
    names = torch.tensor([2, 0, 3, 1])
    noise = [torch.randn(len(codes), 3, 2) for codes in (fit, test)]
    actions = [actions_of(codes) + n for codes, n in zip((fit, test), noise, strict=True)]
    plain = probed(features(fit), features(test), *actions)
    renamed = probed(features(names[fit]), features(names[test]), *actions)
    assert plain.probe_r2 == pytest.approx(renamed.probe_r2, abs=1e-6)


def test_an_action_that_never_varies_has_no_score() -> None:
    fit, test = random_codes(400), random_codes(200)
    card = probed(features(fit), features(test), *(F.pad(actions_of(c), (0, 1), value=1.0) for c in (fit, test)))
    assert card.probe_r2 == pytest.approx(1, abs=1e-3)
    assert card.probe_r2_per_action is not None
    assert card.probe_r2_per_action_by_features is not None
    assert card.probe_r2_per_action[2] is None
    assert card.probe_r2_per_action_by_features["pixels"][2] is None
    assert card.probe_r2_per_action_by_features["codes"] == card.probe_r2_per_action


@pytest.mark.parametrize("constant", [-1.0, 100.1])
def test_an_action_that_is_constant_where_probes_are_fitted_spoils_no_metric(constant: float) -> None:
    fit, test = random_codes(400), random_codes(200)
    gripper = torch.full((200, 3, 1), constant)
    gripper[::10] += 2  # closes in one held-out episode
    fit_actions = F.pad(actions_of(fit), (0, 1), value=constant)
    card = probed(features(fit), features(test), fit_actions, torch.cat([actions_of(test), gripper], -1))
    assert card.probe_r2 == pytest.approx(1, abs=1e-3)
    assert card.probe_r2_per_action == [pytest.approx(1, abs=1e-3), pytest.approx(1, abs=1e-3), None]


def test_clips_and_episodes_without_known_actions_are_not_counted() -> None:
    fit, test = random_codes(40), random_codes(30)
    fit_actions, test_actions = actions_of(fit), actions_of(test)
    fit_actions[:4], test_actions[torch.arange(30) % 10 < 7] = torch.nan, torch.nan  # 3 of 10 held-out episodes remain
    card = probed(features(fit), features(test), fit_actions, test_actions)
    assert (card.probe_fit_clips, card.probe_clips, card.probe_episodes) == (36, 9, 3)
    sentence = basis_of_r2(card)
    assert "9 clips of 3 episodes whose actions are known" in sentence
    assert "fitted on 36 clips of other episodes" in sentence
    assert basis_of_r2(NO_PROBE) == ""


def test_a_feature_that_is_constant_where_a_probe_is_fitted_changes_nothing() -> None:
    fit, test = random_codes(400), random_codes(200)
    plain, spoiled = features(fit), features(test)
    plain.pixels[:, 0], spoiled.pixels[:, 0] = 0.3 + 1e-7 * torch.randn(400), 0.9  # constant but for rounding
    chunks = standardized(actions_of(fit), actions_of(test), torch.arange(200) % 10)
    r2 = probe_metrics(plain, spoiled, chunks, K).probe_r2_pixels
    spoiled.pixels[:, 0] = 0.3
    assert r2 == pytest.approx(probe_metrics(plain, spoiled, chunks, K).probe_r2_pixels, abs=1e-3)


def test_without_a_single_varying_action_there_is_no_probe() -> None:
    still = torch.zeros(50, 3, 2)
    card = probed(features(random_codes(50)), features(random_codes(50)), still, still)
    assert card.probe_r2 is card.probe_gain is card.probe_r2_interval is card.probe_gain_interval is None


# ---- The whole card ----


def measured(model: LatentActionQuantizer, count: int = 80, *, actions: bool = True, t: int = 2) -> LAQQuality:
    clips, codes = brightness_clips(count, t)
    chunks = (codes[:, :1, None] - 2.0).expand(-1, 4, 1) if actions else None
    half = count // 2
    return measure_quality(
        model,
        QualityClips(
            fit=clips[:half].split(16),
            held_out=clips[half:].split(16),
            episode=torch.arange(count - half) % 4,
            pictures=clips[half : half + 32],
            fit_actions=None if chunks is None else chunks[:half],
            held_out_actions=None if chunks is None else chunks[half:],
        ),
    )


def test_a_quantizer_that_knows_the_truth_passes_every_check() -> None:
    card = measured(BrightnessLAQ().eval())
    assert card.pictures.copy_gain == pytest.approx(1)
    assert card.pictures.copy_gain_moving == pytest.approx(1)
    assert card.pictures.permuted_gain_ratio == pytest.approx(0, abs=0.2)
    assert card.pictures.still_change_ratio == card.still.still_entropy_bits == 0
    assert card.still.still_modal_share == card.transfer.self_consistency == card.transfer.transfer_consistency == 1
    assert card.transfer.transfer_r2 == pytest.approx(1)
    assert card.transfer.transfer_chance == pytest.approx(0.2, abs=0.1)
    assert card.reversal.reversal_correlation == pytest.approx(1, abs=1e-3)
    assert card.probe.probe_r2 == pytest.approx(1, abs=1e-2)
    assert (card.clips, card.picture_clips, card.episodes) == (40, 32, 4)


def test_reversal_changes_all_codes_but_those_without_motion() -> None:
    clips, codes = brightness_clips(80, 2)
    moving = float((codes[40:72] != 2).double().mean())
    card = measured(BrightnessLAQ().eval())
    assert clips.shape[0] == 80
    assert card.reversal.reversal_changed_codes == pytest.approx(moving, abs=0.15)


def test_a_decoder_that_ignores_codes_keeps_its_gain_under_foreign_ones() -> None:
    clips, _ = brightness_clips(40, 2)
    brighter = torch.stack([clips[:, 0], clips[:, 0] + 25], dim=1)
    card = measure_quality(
        BlindLAQ().eval(),
        QualityClips([brighter], [brighter], torch.arange(40) % 4, brighter, None, None),
    )
    assert card.pictures.copy_gain == pytest.approx(1, abs=1e-4)
    assert card.pictures.permuted_gain_ratio == pytest.approx(1)


def test_codes_blind_to_direction_are_found_out() -> None:
    class Directionless(BrightnessLAQ):
        def code_of(self, change: Tensor) -> Tensor:
            return super().code_of(change.abs())

    card = measured(Directionless().eval())
    assert card.reversal.reversal_changed_codes == 0
    assert card.reversal.reversal_correlation == pytest.approx(-1, abs=1e-3)


def test_a_clip_of_one_episode_has_nowhere_to_transfer_to() -> None:
    clips, _ = brightness_clips(8, 2)
    one = QualityClips([clips], [clips], torch.zeros(8, dtype=torch.int64), clips, None, None)
    card = measure_quality(BrightnessLAQ().eval(), one)
    assert card.transfer.transfer_consistency is card.transfer.transfer_r2 is None
    assert card.transfer.self_consistency == 1


def test_a_single_clip_has_no_other_clip_to_take_codes_from() -> None:
    clips, _ = brightness_clips(40, 2)
    moving = clips[(clips[:, 0] != clips[:, 1]).flatten(1).any(1)][:1]
    card = measure_quality(
        BrightnessLAQ().eval(),
        QualityClips([clips], [moving], torch.zeros(1, dtype=torch.int64), moving, None, None),
    )
    assert card.pictures.copy_gain == pytest.approx(1)
    assert card.pictures.permuted_copy_gain is card.pictures.permuted_gain_ratio is None


def test_measuring_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hlrp.runtime.progress._DELAY_S", 0)
    measured(BrightnessLAQ().eval())
    shown = capsys.readouterr()
    assert all(work in shown.err for work in ("measuring latents", "measuring predictions", "transferring latents"))
    assert shown.out == ""


def test_a_dataset_without_actions_has_a_card_without_probes() -> None:
    card = measured(BrightnessLAQ().eval(), actions=False)
    values = card.to_dict()
    assert all(values[name] is None for name in values if name.startswith("probe"))
    assert card.reversal.reversal_correlation is None
    assert card.pictures.copy_gain == pytest.approx(1)


def test_a_quantizer_that_diverged_is_told_so_rather_than_the_camera() -> None:
    model = LatentActionQuantizer(debug()).eval()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"weights of this quantizer are NaN or infinite, since its training diverged"):
        measured(model)


@pytest.mark.parametrize("quantizer", ["kmeans", "fsq", "vq", "continuous"])
@pytest.mark.parametrize("t", [2, 3])
def test_the_card_of_any_quantizer_is_plain_json(quantizer: str, t: int) -> None:
    spec = LatentSpec(codebook_size=K, code_seq_len=SLOTS, code_dim=4, num_frames=t)
    model = LatentActionQuantizer(replace(debug(), spec=spec, quantizer=quantizer)).train()
    model(torch.rand(64, t, 1, 3, 32, 32))  # a learned codebook starts from data
    card = measured(model, t=t)
    assert json.loads(json.dumps(card.to_dict(), allow_nan=False)) == card.to_dict()
    assert (card.probe.probe_r2 is None) == (card.codes.perplexity is None) == (quantizer == "continuous")
    assert card.probe.probe_r2_quantized is not None
    assert model.training


def test_a_quantizer_that_predicts_no_pixels_has_no_figures_of_pictures() -> None:
    config = replace(debug(), targets=("flow",))
    card = measured(LatentActionQuantizer(config))
    assert card.pictures.copy_gain is card.pictures.permuted_gain_ratio is card.transfer.transfer_consistency is None
    assert card.probe.probe_r2 is not None
    assert card.reversal.reversal_changed_codes is not None


def test_several_cameras_are_measured_together() -> None:
    model = LatentActionQuantizer(replace(debug(), num_cameras=2))
    clips = brightness_clips(12, 2)[0].repeat(1, 1, 2, 1, 1, 1)
    card = measure_quality(model, QualityClips([clips], [clips], torch.arange(12) % 2, clips, None, None))
    assert card.clips == 12


def test_features_do_not_depend_on_how_clips_are_batched_and_leave_the_model_as_it_was() -> None:
    model = LatentActionQuantizer(debug()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clips = torch.randint(0, 256, (6, 2, 1, 3, 32, 32), dtype=torch.uint8)
    with evaluating(model):
        one, other = clip_features(model, [clips]), clip_features(model, clips.split(1))
    torch.testing.assert_close(one.latents.vectors, other.latents.vectors)
    torch.testing.assert_close(one.pixels, other.pixels)
    assert one.pixels.shape == (6, 3 * 16 * 16)
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_the_codes_of_a_still_clip_know_the_first_frame_only() -> None:
    model = LatentActionQuantizer(debug()).eval()
    clips = torch.randint(0, 256, (6, 2, 1, 3, 32, 32), dtype=torch.uint8)
    other = clips.clone()
    other[:, 1] = 0
    one, two = (clip_features(model, [batch]).still.vectors for batch in (clips, other))
    assert torch.equal(one, two)


def test_clips_in_which_nothing_changes_have_no_gain_over_copying() -> None:
    clips = torch.randint(0, 256, (12, 1, 1, 3, 32, 32), dtype=torch.uint8).repeat(1, 2, 1, 1, 1, 1)
    card = measure_quality(
        LatentActionQuantizer(debug()), QualityClips([clips], [clips], torch.arange(12) % 2, clips, None, None)
    )
    assert card.pictures == NO_PICTURES
    assert card.clips == 12
