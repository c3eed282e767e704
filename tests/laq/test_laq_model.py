from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hlrp.laq.config import QUANTIZERS, LAQConfig, debug, lapa
from hlrp.laq.model import LatentActionQuantizer, description
from hlrp.latents import LatentSpec
from hlrp.storage.plain_values import from_plain


def three_frame_model() -> LatentActionQuantizer:
    return LatentActionQuantizer(replace(debug(), spec=LatentSpec(num_frames=3, code_dim=8))).eval()


def test_the_decoder_starts_as_an_exact_copy_of_frame_t(model: LatentActionQuantizer) -> None:
    frames = torch.rand(2, 2, 1, 3, 32, 32)
    assert torch.equal(model(frames).frames, frames[:, :1])


def test_three_frames_give_two_transitions_each_predicted_from_the_frame_before(clips: Tensor) -> None:
    model = three_frame_model()
    frames = torch.rand(2, 3, 1, 3, 32, 32)
    result = model(frames)
    assert result.codes.shape == (2, 2, 4)
    assert result.vectors.shape == (2, 2, 4, 8)
    assert torch.equal(result.frames, frames[:, :2])
    assert model.encode(frames).require_codes().shape == (2, 2, 4)


def test_an_earlier_transition_does_not_see_later_frames() -> None:
    model = three_frame_model()
    frames = torch.rand(2, 3, 1, 3, 32, 32)
    other = frames.clone()
    other[:, 2] = torch.rand(2, 1, 3, 32, 32)
    one, two = model.encode(frames), model.encode(other)
    assert torch.equal(one.require_vectors()[:, 0], two.require_vectors()[:, 0])
    assert torch.equal(one.require_codes()[:, 0], two.require_codes()[:, 0])
    assert not torch.allclose(one.require_vectors()[:, 1], two.require_vectors()[:, 1])


def test_a_code_tells_the_direction_of_time(model: LatentActionQuantizer) -> None:
    frames = torch.rand(2, 2, 1, 3, 32, 32)
    assert not torch.allclose(model.encode(frames).require_vectors(), model.encode(frames.flip(1)).require_vectors())


def test_the_decoder_predicts_each_transition_from_its_own_codes_only(clips: Tensor) -> None:
    model = three_frame_model()
    torch.nn.init.normal_(model.decoder.heads["pixels"].weight)
    frames, vectors = torch.rand(2, 2, 1, 3, 32, 32), torch.randn(2, 2, 4, 8)
    other = vectors.clone()
    other[:, 1] += 1
    one, two = model.predict(frames, vectors), model.predict(frames, other)
    assert torch.equal(one[:, 0], two[:, 0])
    assert not torch.allclose(one[:, 1], two[:, 1])


def test_encoding_changes_no_state_and_repeats_itself(model: LatentActionQuantizer, clips: Tensor) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = model.encode(clips), model.encode(clips)
    assert torch.equal(first.require_codes(), second.require_codes())
    assert torch.equal(first.require_vectors(), second.require_vectors())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("quantizer", list(QUANTIZERS))
def test_encoding_is_the_same_in_training_mode_and_under_autocast(quantizer: str, clips: Tensor) -> None:
    model = LatentActionQuantizer(replace(debug(), quantizer=quantizer)).train()
    model(model.to_pixels(clips))  # statistics and codebooks that have seen data
    expected = model.eval().encode(clips)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.decoder.eval()  # a part in another mode than the rest
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.encode(clips)
    assert (found.codes is None) == (quantizer == "continuous")
    torch.testing.assert_close(vars(found), vars(expected), rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert model.quantizer.training
    assert not model.decoder.training


def test_a_clip_is_encoded_alike_alone_and_in_a_batch(model: LatentActionQuantizer, clips: Tensor) -> None:
    together = model.encode(clips)
    alone = model.encode(clips[2:3])
    torch.testing.assert_close(alone.require_vectors()[0], together.require_vectors()[2])


def test_bytes_and_fractions_mean_the_same_pixels(model: LatentActionQuantizer, clips: Tensor) -> None:
    torch.testing.assert_close(model.encode(clips).vectors, model.encode(clips.float() / 255).vectors, rtol=0, atol=0)


def test_encoding_is_the_forward_pass_without_a_decoder(model: LatentActionQuantizer, clips: Tensor) -> None:
    result, actions = model(model.to_pixels(clips)), model.encode(clips)
    assert torch.equal(result.codes, actions.require_codes())
    assert torch.equal(result.vectors, actions.require_vectors())
    assert not actions.vectors.requires_grad


def test_a_clip_of_one_camera_may_lack_the_camera_axis(fsq_model: LatentActionQuantizer, clips: Tensor) -> None:
    assert torch.equal(fsq_model.encode(clips[:, :, 0]).require_codes(), fsq_model.encode(clips).require_codes())


def test_clips_for_two_cameras_need_the_camera_axis() -> None:
    model = LatentActionQuantizer(replace(debug(), num_cameras=2)).eval()
    with pytest.raises(ValueError, match=r"clips must be \(batch, 2, 2, 3, 32, 32\).* got \(1, 2, 6, 32, 32\)"):
        model.encode(torch.rand(1, 2, 6, 32, 32))


def test_validity_is_passed_on_and_assumed_where_not_given(fsq_model: LatentActionQuantizer, clips: Tensor) -> None:
    valid = torch.tensor([True, False, True, True, False, True])
    assert torch.equal(fsq_model.encode(clips, valid).valid, valid)
    assert fsq_model.encode(clips).valid.all()


@pytest.mark.parametrize("shape", [(2, 3, 3, 32, 32), (2, 2, 3, 32, 48), (2, 2, 2, 3, 32, 32), (2, 2, 1, 32, 32)])
def test_clips_of_another_shape_are_refused(fsq_model: LatentActionQuantizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clips must be \(batch, 2, 1, 3, 32, 32\): batch, frames, .*; got \(2, "):
        fsq_model.encode(torch.rand(shape))


@pytest.mark.parametrize("pixel", [torch.nan, torch.inf])
def test_a_pixel_that_is_no_number_is_refused(fsq_model: LatentActionQuantizer, pixel: float) -> None:
    frames = torch.rand(2, 2, 1, 3, 32, 32)
    frames[1, 0, 0, 2, 5, 5] = pixel
    with pytest.raises(ValueError, match="NaN or infinite pixels"):
        fsq_model.encode(frames)


def test_the_fingerprint_changes_with_any_weight_and_any_setting(model: LatentActionQuantizer) -> None:
    name = model.fingerprint()
    state = model.state_dict()
    for key, value in state.items():
        old = value.clone()
        value.copy_(~value if value.dtype == torch.bool else value + 1)
        assert model.fingerprint() != name, key
        value.copy_(old)
    assert model.fingerprint() == name

    other = LatentActionQuantizer(replace(model.config, spec=replace(model.config.spec, frame_offset_s=0.2)))
    other.load_state_dict(state)
    assert other.fingerprint() != name


def test_a_configuration_survives_its_description() -> None:
    spec = LatentSpec(num_frames=4, codebook_size=5)
    config = replace(debug(), spec=spec, image_size=(32, 48), quantizer="vq", targets=("pixels", "flow"))
    assert from_plain(type(config), description(config)) == config


def test_looking_codes_up_gives_what_the_decoder_saw(model: LatentActionQuantizer, clips: Tensor) -> None:
    result = model(model.to_pixels(clips))
    torch.testing.assert_close(model.lookup(result.codes), result.quantized)
    assert result.frames is not None
    torch.testing.assert_close(model.predict(model.to_pixels(clips)[:, :-1], result.quantized), result.frames)


def test_every_camera_is_seen_and_predicted() -> None:
    model = LatentActionQuantizer(replace(debug(), num_cameras=2)).eval()
    torch.nn.init.normal_(model.decoder.heads["pixels"].weight, std=0.1)
    frames = torch.rand(2, 2, 2, 3, 32, 32)
    other = frames.clone()
    other[:, 1, 1] = torch.rand(2, 3, 32, 32)  # what the second camera sees later
    one, two = model(frames), model(other)
    assert one.frames.shape == (2, 1, 2, 3, 32, 32)
    assert not torch.allclose(one.vectors, two.vectors)
    swapped = model(frames.flip(2))
    assert not torch.allclose(one.vectors, swapped.vectors)  # the order of cameras means something


def test_targets_other_than_pixels_start_at_no_change_and_have_their_shapes() -> None:
    config = replace(debug(), num_cameras=2, targets=("features", "flow"), feature_dim=5, action_dim=6)
    model = LatentActionQuantizer(config).eval()
    result = model(torch.rand(3, 2, 2, 3, 32, 32))
    assert result.frames is None
    assert result.change.features is not None
    assert result.change.features.shape == (3, 1, 2, 5, 2, 2)
    assert result.change.flow is not None
    assert result.change.flow.shape == (3, 1, 2, 2, 8, 8)
    assert result.change.features.count_nonzero() == result.change.flow.count_nonzero() == 0
    assert result.actions is not None
    assert result.actions.shape == (3, 1, 6)
    with pytest.raises(ValueError, match="this LAQ predicts features, flow, no pixels"):
        model.predict(torch.rand(3, 1, 2, 3, 32, 32), result.quantized)


def test_the_preset_lapa_has_the_size_of_lapas_release() -> None:
    config = lapa()
    assert (config.dim, config.encoder_layers, config.decoder_layers) == (1024, 8, 8)
    assert (config.image_size, config.grid) == ((256, 256), (8, 8))
    assert (config.spec.codebook_size, config.spec.code_seq_len) == (8, 4)


def test_frames_need_not_be_square() -> None:
    model = LatentActionQuantizer(replace(debug(), image_size=(32, 64))).eval()
    frames = torch.rand(1, 2, 1, 3, 32, 64)
    assert torch.equal(model(frames).frames, frames[:, :1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 12}, "patch_size must be a power of two, 4 or more, got 12"),
        ({"patch_size": 2}, "patch_size must be a power of two, 4 or more, got 2"),
        ({"image_size": (32, 40)}, r"image_size \(32, 40\) must be a multiple of patch_size 16"),
        ({"dim": 30, "heads": 4}, "dim 30 must be a multiple of heads 4"),
        ({"num_cameras": 0}, "num_cameras must be 1 or more, got 0"),
        ({"targets": ("pixels", "pixels")}, r"targets must be one or more of pixels, features, flow, got"),
        ({"targets": ()}, "targets must be one or more of pixels, features, flow"),
        ({"targets": ("features",)}, "feature_dim 0 and targets .* disagree"),
        ({"feature_dim": 4}, "feature_dim 4 and targets .* disagree"),
        ({"action_dim": -1}, "action_dim must be 0 or more, got -1"),
    ],
)
def test_an_impossible_architecture_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LAQConfig(**changes)  # pyright: ignore[reportArgumentType]
