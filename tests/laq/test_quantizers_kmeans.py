"""Codes that are fitted near the end of the training, in directions that altered views of a clip do not change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hlrp.laq.batch import ClipBatch, unlabelled
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.code_fit import fit_codes
from hlrp.laq.objective.config import LAQTrainingConfig, ViewConfig
from hlrp.laq.objective.task import LAQTask
from hlrp.laq.quantizers.kmeans import WhitenedKMeans, action_directions, discriminant_directions
from hlrp.latents import LatentSpec

SPEC = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=6)


def fitted(view: Tensor, other_view: Tensor) -> WhitenedKMeans:
    quantizer = WhitenedKMeans(SPEC).eval()
    quantizer.fit(view, other_view)
    return quantizer


def two_views(number: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """What clips show, one of four motions in two faint directions, and two views of it under loud noise elsewhere."""
    motion = torch.randint(0, 4, (number,))
    faint = 0.1 * torch.stack([motion % 2, motion // 2], dim=1).float()
    views = []
    for _ in range(2):
        loud = torch.randn(number, 2, 6)
        loud[:, 0, :2] = faint + 0.01 * torch.randn(number, 2)
        views.append(loud)
    return motion, views[0], views[1]


def test_codes_tell_what_is_faint_but_the_same_in_all_views() -> None:
    motion, view, other_view = two_views()
    first = fitted(view, other_view)(view).ids[:, 0]
    for number in range(4):
        assert len(first[motion == number].unique()) == 1
    assert len(first.unique()) == 4


def test_codes_that_are_fitted_to_actions_leave_out_what_moves_without_the_robot() -> None:
    """Robot and nuisance are the same in both views; the robot moves in faint directions, the nuisance in loud ones."""
    robot, nuisance = torch.randint(0, 2, (2, 2048, 2)).float()
    vectors = 0.01 * torch.randn(2048, 2, 6)
    vectors[:, 0, :2] += 0.1 * robot
    vectors[:, 1, :2] += nuisance
    actions = torch.cat([robot, -robot], dim=1)
    actions[1024:] = torch.nan  # unknown, and not looked at
    labelled = torch.arange(2048) < 1024
    quantizer = WhitenedKMeans(SPEC).eval()
    quantizer.fit(vectors, vectors + 0.001 * torch.randn_like(vectors), actions, labelled)
    first = quantizer(vectors).ids[:, 0]
    state = (robot @ torch.tensor([1.0, 2.0])).long()
    assert all(len(first[state == number].unique()) == 1 for number in range(4))
    assert len(first.unique()) == 4
    follows_video = fitted(vectors, vectors + 0.001 * torch.randn_like(vectors))(vectors).ids[:, 0]
    assert max(len(follows_video[state == number].unique()) for number in range(4)) == 4


def test_action_directions_predict_the_actions_and_fall_in_variance() -> None:
    points = torch.randn(4096, 8).double()
    points = points - points.mean(0)
    actions = points[:, :3] * torch.tensor([1.0, 3.0, 2.0]) + 0.1 * torch.randn(4096, 3).double()
    directions = action_directions(points, actions, torch.ones(4096, dtype=torch.bool))
    torch.testing.assert_close(directions.norm(dim=0), torch.tensor([3.0, 2.0, 1.0]).double(), atol=0.1, rtol=0)
    assert directions[3:].abs().max() < 0.05
    still = action_directions(
        torch.zeros(16, 8).double(), torch.zeros(16, 3).double(), torch.ones(16, dtype=torch.bool)
    )
    assert not still.any()


def test_k_means_without_whitening_would_follow_the_noise() -> None:
    motion, view, _ = two_views()
    first = fitted(view, view)(view).ids[:, 0]  # no difference between the views: all directions count alike
    assert max(len(first[motion == number].unique()) for number in range(4)) == 4


def test_directions_have_noise_of_variance_1_and_fall_in_variance() -> None:
    shown = torch.randn(4096, 12).double() * torch.arange(1, 13)
    one, other = (shown + torch.randn(4096, 12).double() * torch.linspace(0.5, 2, 12) for _ in range(2))
    points = torch.cat([one, other])
    directions = discriminant_directions(points - points.mean(0), one - other)
    noise = (one - other) @ directions
    torch.testing.assert_close(noise.T @ noise / (2 * len(noise)), torch.eye(12).double(), atol=1e-3, rtol=0)
    variance = ((points - points.mean(0)) @ directions).var(0)
    assert (variance[:-1] >= variance[1:] - 1e-6).all()


@pytest.mark.parametrize("points", [torch.zeros(1, 2, 6), torch.ones(40, 2, 6), torch.randn(3, 2, 6)])
def test_clips_that_hardly_differ_get_finite_codes(points: Tensor) -> None:
    quantizer = fitted(points, points)
    quantized = quantizer(points)
    assert quantized.vectors.isfinite().all()
    assert torch.equal(quantizer.lookup(quantized.ids), quantized.vectors)


def test_before_the_fit_codes_are_those_of_fsq_and_a_fit_can_be_forgotten() -> None:
    quantizer = WhitenedKMeans(SPEC)
    quantizer.train()(torch.randn(64, 2, 6))
    latents = torch.randn(16, 2, 6)
    before = quantizer.eval()(latents)
    assert torch.equal(before.ids, quantizer.until_fitted(latents).ids)
    assert not quantizer.is_final
    quantizer.fit(latents, latents + 0.1 * torch.randn_like(latents))
    assert quantizer.is_final
    assert not torch.equal(quantizer(latents).vectors, before.vectors)
    quantizer.forget_fit()
    assert torch.equal(quantizer(latents).vectors, before.vectors)


def test_weight_averaging_leaves_out_what_the_fit_has_set_once() -> None:
    quantizer = WhitenedKMeans(SPEC)
    assert quantizer.replaced_values() == {}
    quantizer.fit(torch.randn(16, 2, 6), torch.randn(16, 2, 6))
    assert {name: bool(mask.all()) for name, mask in quantizer.replaced_values().items()} == {
        "mean": True,
        "directions": True,
        "centres": True,
    }
    assert quantizer.replaced_values() == {}


def test_slots_too_wide_for_a_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(code_seq_len \* code_dim\)² of kmeans must be 268435456 or less"):
        WhitenedKMeans(LatentSpec(code_seq_len=1024, code_dim=1024))


def test_a_fit_changes_codes_but_neither_the_encoder_nor_the_mode(
    kmeans_model: LatentActionQuantizer, clips: Tensor
) -> None:
    before = kmeans_model.encode(clips)
    batch = ClipBatch(**{**vars(unlabelled(clips)), "views": torch.rand(len(clips), 4) * 2 - 1})
    kmeans_model.train()
    fit_codes(kmeans_model, [batch, batch], ViewConfig())
    assert kmeans_model.training
    after = kmeans_model.encode(clips)
    assert torch.equal(after.require_vectors(), before.require_vectors())
    assert not torch.equal(after.require_codes(), before.require_codes())


def test_after_the_fit_only_the_decoder_gets_gradients(kmeans_model: LatentActionQuantizer, clips: Tensor) -> None:
    fit_codes(kmeans_model, [unlabelled(clips)], ViewConfig())
    torch.nn.init.normal_(kmeans_model.decoder.heads["pixels"].weight)  # which starts at zero and lets nothing through
    frames = kmeans_model.train()(clips.float() / 255).frames
    assert frames is not None
    frames.square().mean().backward()
    learns = {name.split(".")[0] for name, value in kmeans_model.named_parameters() if value.grad is not None}
    assert learns == {"decoder"}


def test_the_sketch_counts_nothing_once_codes_are_final(kmeans_model: LatentActionQuantizer, clips: Tensor) -> None:
    task, batch = LAQTask(kmeans_model, LAQTrainingConfig()), unlabelled(clips)
    frames = clips.float() / 255

    def sketch() -> float:
        return float(task.losses(kmeans_model(frames), frames[:, :-1], frames[:, 1:], batch)["sketch"])

    assert sketch() > 0
    fit_codes(kmeans_model, [batch], ViewConfig())
    assert sketch() == 0  # and is not left out, for the log would go on with the last value
