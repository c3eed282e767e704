"""Train inverse dynamics models on the clips whose actions are known."""

from __future__ import annotations

import copy
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from hlrp.inverse_dynamics.clips import ActionClips
from hlrp.inverse_dynamics.config import InverseDynamicsConfig
from hlrp.inverse_dynamics.network import InverseDynamicsNetwork
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.config import ViewConfig
from hlrp.laq.objective.views import altered_view
from hlrp.runtime.progress import progress
from hlrp.training.config import OptimizerConfig
from hlrp.training.optimization import lr_fraction, parameter_groups

_WARMUP_SHARE = 0.1
"""Share of the steps over which the learning rate rises to its peak."""


def new_network(
    clips: ActionClips,
    config: InverseDynamicsConfig,
    laq: LatentActionQuantizer | None,
    *,
    laq_deltas: list[int],
    image_size: tuple[int, int],
) -> InverseDynamicsNetwork:
    """An untrained network for `clips`.

    With `laq`, the network holds a trainable copy of this quantizer's encoder, which sees the frames `laq_deltas`.
    """
    encoder: nn.Module | None = None
    width = 0
    if laq is not None:
        encoder = copy.deepcopy(laq.encoder).requires_grad_(True)
        width = laq.spec.num_codes * laq.spec.code_dim
    return InverseDynamicsNetwork(
        image_size=image_size,
        num_frames=len(clips.deltas),
        num_cameras=clips.source.num_cameras,
        chunk_steps=clips.chunk_steps,
        action_dim=clips.actions.shape[1],
        width=config.width,
        dropout=config.dropout,
        encoder=encoder,
        encoder_frames=[clips.deltas.tolist().index(delta) for delta in laq_deltas],
        encoder_width=width,
    )


def train_network(
    network: InverseDynamicsNetwork,
    clips: ActionClips,
    held_out: Bool[Tensor, " f"],
    config: InverseDynamicsConfig,
    *,
    seed: int,
    device: str,
    title: str,
) -> InverseDynamicsNetwork:
    """Train `network` in place on the known actions that are not held out.

    Args:
        network: The network.
        clips: Clips and their actions.
        held_out: True for frames whose actions the network must not learn.
        config: Options of the training.
        seed: Seed of batches, augmentation and dropout.
        device: Device of the training.
        title: Text of the progress bar.

    Returns:
        `network`, in evaluation mode.

    Raises:
        ValueError: If no clip with a known action is left.
    """
    starts = clips.training_starts(held_out)
    if not len(starts):
        raise ValueError(
            f"no clip of {clips.source.name} with a known action is left to train on; label longer or more episodes, "
            "or use a LAQ with a shorter frame offset"
        )
    optimizer = AdamW(parameter_groups(network, config.weight_decay), lr=config.lr)
    shape = OptimizerConfig(lr=config.lr, warmup_steps=math.ceil(_WARMUP_SHARE * config.steps), final_lr_fraction=0.0)
    schedule = LambdaLR(optimizer, lambda step: lr_fraction(step, total_steps=config.steps, config=shape))
    with torch.random.fork_rng():  # dropout draws from the global random state
        torch.manual_seed(seed)
        network.to(device).train()
        for _ in progress(range(config.steps), title):
            chosen = starts[torch.randint(len(starts), (config.batch_size,))]
            loss = _loss(network, clips, chosen, ~held_out, config, device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def _loss(
    network: InverseDynamicsNetwork,
    clips: ActionClips,
    starts: Int[Tensor, " b"],
    usable: Bool[Tensor, " f"],
    config: InverseDynamicsConfig,
    device: str,
) -> Float[Tensor, ""]:
    """Mean squared error of the known standardized actions of augmented clips, over dimensions that vary."""
    frames = clips.frames(starts).to(device).float() / 255
    views = ViewConfig(
        max_shift=config.max_shift, max_contrast=config.max_contrast, max_brightness=config.max_brightness
    )
    frames = altered_view(frames, torch.rand(len(frames), 4).to(device) * 2 - 1, views)
    actions, known = (value.to(device) for value in clips.targets(starts, usable))
    error = (network(frames) - actions)[..., clips.scale.varies.to(device)].square().mean(-1)
    return (error * known).sum() / known.sum()
