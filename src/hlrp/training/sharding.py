"""Fully sharded data parallel training (FSDP2): every process keeps a share of weights, gradients and optimizer states.

Lightning's `FSDPStrategy` uses the first version of FSDP and does not run on a CPU. This module uses Lightning's
`ModelParallelStrategy` and `torch.distributed.fsdp.fully_shard`, which run on CPUs (gloo) and on GPUs (NCCL).
"""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


def sharding_strategy(module: pl.LightningModule, *, world_size: int) -> ModelParallelStrategy:
    """A Lightning strategy that shards `module` in place over all processes, and saves its state as a single file."""
    # `configure_model` is the hook in which Lightning lets a module shard itself; setting it here keeps FSDP out of the
    # modules.
    module.configure_model = partial(_shard, module)
    return ModelParallelStrategy(
        data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def gather_weights(sharded: nn.Module, into: nn.Module) -> None:
    """Copy the weights of `sharded` to the unsharded module `into` on the first process; all processes must call it."""
    weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if distributed.get_rank() == 0:
        into.load_state_dict(weights)


def _shard(module: pl.LightningModule) -> None:
    """Shard the elements of every `nn.ModuleList` one by one, then the rest of the module.

    Such elements, for example transformer blocks, run one after the other, so that few are gathered at the same time.
    """
    if isinstance(module, FSDPModule):  # Lightning calls `configure_model` again for a validation after training
        return
    module.to(module.trainer.strategy.root_device)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            distributed.broadcast(tensor.data, src=0)  # the random first weights may differ between processes
    assert module.device_mesh is not None
    mesh = module.device_mesh["data_parallel"]
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    blocks = [block for blocks in reversed(lists) for block in blocks]  # inner lists first
    for block in blocks:
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    for step in ("training_step", "validation_step"):  # Lightning calls these, not `forward`
        register_fsdp_forward_method(module, step)
