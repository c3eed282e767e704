from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.quality import ClipFeatures, clip_features, measure_quality
from hlrp.latents import LatentSpec

K, SLOTS = 4, 2


@pytest.fixture
def model() -> LatentActionQuantizer:
    spec = LatentSpec(codebook_size=K, code_seq_len=SLOTS, code_dim=4)
    return LatentActionQuantizer(replace(debug(), spec=spec)).eval()


def features(codes: Tensor, *, error: float = 1.0, copy_error: float = 2.0) -> ClipFeatures:
    """Clips of `codes` that start from unrelated pictures."""
    b = len(codes)
    return ClipFeatures(codes, torch.randn(b, 8), torch.zeros_like(codes), torch.randn(b, 5), error, copy_error)


def random_codes(b: int) -> Tensor:
    return torch.randint(K, (b, SLOTS))


def chunks(codes: Tensor) -> Tensor:
    """Actions (b, 3 steps, 2) that the codes determine; every slot says one dimension."""
    table = torch.tensor([-3.0, 1.0, 0.5, 2.0])
    return table[codes][:, None, :].expand(-1, 3, -1) * torch.tensor([1.0, 100.0])


def test_codes_that_determine_the_action_score_one_and_all_of_it_is_gain(
    model: LatentActionQuantizer,
) -> None:
    fit, test = random_codes(600), random_codes(300)
    card = measure_quality(model, features(fit), features(test), chunks(fit), chunks(test))
    assert card.probe_r2 == pytest.approx(1, abs=1e-3)
    assert card.probe_r2_per_action == pytest.approx([1, 1], abs=1e-3)
    assert card.probe_r2_frame_only == pytest.approx(0, abs=0.02)
    assert card.probe_r2_pixels == pytest.approx(0, abs=0.1)
    assert card.probe_r2_pixels_and_codes == pytest.approx(1, abs=1e-3)
    assert card.probe_gain == pytest.approx(1, abs=0.1)
    assert card.clips == 300


def test_codes_count_as_names_so_that_renaming_them_changes_nothing(model: LatentActionQuantizer) -> None:
    fit, test = random_codes(600), random_codes(300)
    names = torch.tensor([2, 0, 3, 1])
    noise = [torch.randn(len(codes), 3, 2) for codes in (fit, test)]
    actions = [chunks(codes) + n for codes, n in zip((fit, test), noise, strict=True)]
    plain = measure_quality(model, features(fit), features(test), *actions)
    renamed = measure_quality(model, features(names[fit]), features(names[test]), *actions)
    assert plain.probe_r2 == pytest.approx(renamed.probe_r2, abs=1e-6)


def test_an_action_that_never_varies_has_no_score_and_the_card_stays_plain_json(
    model: LatentActionQuantizer,
) -> None:
    fit, test = random_codes(400), random_codes(200)
    actions = [F.pad(chunks(codes), (0, 1), value=1.0) for codes in (fit, test)]
    card = measure_quality(model, features(fit), features(test), *actions)
    assert card.probe_r2 == pytest.approx(1, abs=1e-3)
    assert card.probe_r2_per_action is not None
    assert card.probe_r2_per_action[2] is None
    assert json.loads(json.dumps(card.to_dict(), allow_nan=False)) == card.to_dict()


def test_without_a_single_varying_action_there_is_no_probe(model: LatentActionQuantizer) -> None:
    still = torch.zeros(50, 3, 2)
    card = measure_quality(model, features(random_codes(50)), features(random_codes(50)), still, still)
    assert card.probe_r2 is None
    assert card.probe_gain is None
    json.dumps(card.to_dict(), allow_nan=False)


def test_a_dataset_without_actions_has_a_card_without_probes(model: LatentActionQuantizer) -> None:
    card = measure_quality(model, features(random_codes(20)), features(random_codes(20)), None, None)
    values = card.to_dict()
    assert all(values[name] is None for name in values if name.startswith("probe"))
    assert card.copy_gain == pytest.approx(0.5)


def test_usage_perplexity_and_dead_codes_describe_each_slot(model: LatentActionQuantizer) -> None:
    codes = torch.stack([torch.arange(8) % 4, torch.arange(8) % 2], dim=1)  # four codes, and two of four
    card = measure_quality(model, features(codes), features(codes), None, None)
    assert card.perplexity == pytest.approx([4, 2])
    assert card.dead_codes == [0, 2]
    assert card.code_usage[1] == pytest.approx([0.5, 0.5, 0, 0])
    assert all(math.isclose(sum(shares), 1) for shares in card.code_usage)


def test_slots_of_all_transitions_are_pooled() -> None:
    spec = LatentSpec(codebook_size=K, code_seq_len=SLOTS, num_frames=3, code_dim=4)
    model = LatentActionQuantizer(replace(debug(), spec=spec))
    codes = torch.tensor([[0, 1, 2, 1]])  # slots 0 and 1 of two transitions
    card = measure_quality(model, features(codes), features(codes), None, None)
    assert card.perplexity == pytest.approx([2, 1])


def test_an_untrained_model_gains_nothing_over_the_copy_and_stays_as_it_was(
    model: LatentActionQuantizer,
) -> None:
    clips = torch.randint(0, 256, (10, 2, 3, 32, 32), dtype=torch.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    found = clip_features(model, clips.split(4))
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert found.squared_error == found.squared_copy_error > 0
    assert found.codes.shape == (10, SLOTS)
    assert found.pixels.shape == (10, 3 * 16 * 16)


def test_features_do_not_depend_on_how_clips_are_batched(model: LatentActionQuantizer) -> None:
    clips = torch.randint(0, 256, (6, 2, 3, 32, 32), dtype=torch.uint8)
    one, other = clip_features(model, [clips]), clip_features(model, clips.split(1))
    torch.testing.assert_close(one.vectors, other.vectors)
    torch.testing.assert_close(one.pixels, other.pixels)
    assert one.squared_copy_error == pytest.approx(other.squared_copy_error)


def test_the_codes_of_a_still_clip_know_the_first_frame_only(model: LatentActionQuantizer) -> None:
    clips = torch.randint(0, 256, (6, 2, 3, 32, 32), dtype=torch.uint8)
    other = clips.clone()
    other[:, 1] = 0
    assert torch.equal(clip_features(model, [clips]).still_codes, clip_features(model, [other]).still_codes)
