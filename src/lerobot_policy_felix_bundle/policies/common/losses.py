"""Total loss of a policy, without branches on tensor values, and its parts as numbers for LeRobot's log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hlrp.foundation.backends import FoundationLoss
from hlrp.foundation.batch import FoundationBatch, are_pixels, require_finite

from .configuration import HLRPConfig


def total_loss(
    config: HLRPConfig,
    inputs: FoundationBatch,
    *,
    reduction: str,
    latent: FoundationLoss | None,
    error: Float[Tensor, " b"],
    counted: Bool[Tensor, " b"],
    shares: Mapping[str, Float[Tensor, ""]] | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the losses, and their values as plain numbers for the log, copied to the CPU in one transfer.

    Args:
        config: Configuration with the weights of the losses.
        inputs: Input of the VLA; its pixels are checked here, so that the check needs no transfer of its own.
        reduction: "mean", or "none" for a loss per sample.
        latent: Loss on latent codes; None if they are not learned.
        error: Action error of each sample.
        counted: Samples whose actions are learned.
        shares: Further numbers for the log.

    Raises:
        ValueError: If a pixel is not finite, or `reduction` is unknown.
    """
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be mean or none, got {reduction!r}")
    action_loss = _masked_mean(error, counted)
    loss, per_sample = config.action_loss_weight * action_loss, config.action_loss_weight * error
    values = {"action_loss": action_loss, "action_share": counted.float().mean(), **(shares or {})}
    if latent is not None:
        loss = loss + config.latent_loss_weight * latent.loss
        per_sample = per_sample + config.latent_loss_weight * latent.per_sample
        values |= {
            "latent_loss": latent.loss,
            "code_accuracy": latent.accuracy.mean(),
            "code_share": latent.counted.float().mean(),
        }
    numbers = _to_floats({**values, "are_pixels": are_pixels(inputs.images)})
    if not numbers.pop("are_pixels"):
        require_finite(inputs.images)
    return (per_sample if reduction == "none" else loss), numbers


def _to_floats(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Copy scalar tensors to the host in one transfer; LeRobot's log only accepts plain numbers."""
    return dict(zip(scalars, torch.stack([value.detach().float() for value in scalars.values()]).tolist(), strict=True))


def _masked_mean(values: Float[Tensor, " b"], keep: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean of `values` where `keep` is true; 0 if no value is kept."""
    return torch.where(keep, values, 0.0).sum() / keep.sum().clamp_min(1)
