"""AdamW with a linear warmup and a cosine decay: the optimizer of every stage of our own."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from hlrp.training_config import OptimizerConfig


def lr_fraction(step: int, *, total_steps: int, config: OptimizerConfig) -> float:
    """Learning rate at `step`, over its peak; stays at its final value after `total_steps`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = min((step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1), 1.0)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * cosine


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters: matrices with weight decay, vectors (biases, norms) without.

    Raises:
        ValueError: If nothing is trainable.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter; unfreeze a part of it")
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def lightning_optimizers(module: nn.Module, config: OptimizerConfig, *, total_steps: int) -> dict[str, object]:
    """What `configure_optimizers` returns: AdamW, with its schedule stepped every optimizer step."""
    optimizer = AdamW(parameter_groups(module, config.weight_decay), lr=config.lr, betas=config.betas)
    schedule = LambdaLR(optimizer, lambda step: lr_fraction(step, total_steps=total_steps, config=config))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
