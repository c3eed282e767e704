"""Optimizer of stages 1 and 2: AdamW with a linear warmup and a cosine decay of the learning rate."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from hlrp.training.config import OptimizerConfig


def lr_fraction(step: int, *, total_steps: int, config: OptimizerConfig) -> float:
    """Learning rate at `step` divided by the peak learning rate; constant after `total_steps`."""
    if step < config.warmup_steps:
        # + 1, since a first step with a learning rate of 0 would be wasted.
        return (step + 1) / config.warmup_steps
    progress = min((step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * cosine


def learn_in_float32(module: nn.Module) -> None:
    """Convert the trainable parameters of `module` to float32, in place; frozen parameters keep their type.

    bfloat16 has eight significant bits. An update of a weight of 0.02 by less than 6e-5 is rounded to no update, and
    AdamW's updates are about as large as the learning rate. A model with float32 weights can still compute in bfloat16
    under autocast, as with precision bf16-mixed.
    """
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: matrices with weight decay, vectors (biases and norms) without.

    Raises:
        ValueError: If no parameter is trainable, or a trainable parameter has less than 32 bits.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter; unfreeze a part of it")
    coarse = next((p.dtype for p in trainable if torch.finfo(p.dtype).bits < 32), None)
    if coarse is not None:
        raise ValueError(
            f"weights that learn must be float32, got {coarse}, in which most steps round to nothing; bring them to "
            "float32 with hlrp.training.optimization.learn_in_float32 and compute in half precision by autocast"
        )
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def lightning_optimizers(
    module: nn.Module, config: OptimizerConfig, *, total_steps: int, restart_at: int | None = None
) -> dict[str, object]:
    """Return value for Lightning's `configure_optimizers`: AdamW and a schedule that is updated every step.

    Args:
        module: Module to train.
        config: Learning rate and its schedule.
        total_steps: Steps of the whole training.
        restart_at: Step at which a second decay begins, at the peak learning rate; None for one decay over all steps.
    """

    def fraction(step: int) -> float:
        if restart_at is None:
            return lr_fraction(step, total_steps=total_steps, config=config)
        if step < restart_at:
            return lr_fraction(step, total_steps=restart_at, config=config)
        again = replace(config, warmup_steps=0)
        return lr_fraction(step - restart_at, total_steps=total_steps - restart_at, config=again)

    optimizer = AdamW(parameter_groups(module, config.weight_decay), lr=config.lr, betas=config.betas)
    schedule = LambdaLR(optimizer, fraction)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
