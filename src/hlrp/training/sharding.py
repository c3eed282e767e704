"""Fully sharded data parallel training (FSDP2): every process keeps its share of weights, gradients and moments.

Lightning's own `FSDPStrategy` wraps the first FSDP and refuses a CPU; this builds on its `ModelParallelStrategy` and on
`torch.distributed.fsdp.fully_shard`, which run on a CPU (gloo) and on GPUs (NCCL) alike.
"""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method


def sharding_strategy(module: pl.LightningModule, *, world_size: int) -> ModelParallelStrategy:
    """A strategy that shards `module` in place over all processes; its states are single files, as without sharding."""
    # The hook in which Lightning lets a module shard itself; ours need not know how.
    module.configure_model = partial(_shard, module)
    return ModelParallelStrategy(
        data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def gather_weights(sharded: nn.Module, into: nn.Module) -> None:
    """Copy the weights of `sharded` into the whole module `into` on the first process; every process must call it."""
    weights = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if distributed.get_rank() == 0:
        into.load_state_dict(weights)


def _shard(module: pl.LightningModule) -> None:
    """Shard the elements of every `nn.ModuleList` one by one, as they are used one after the other, then the rest."""
    if isinstance(module, FSDPModule):  # Lightning asks again where validation follows training
        return
    module.to(module.trainer.strategy.root_device)
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            distributed.broadcast(tensor.data, src=0)  # processes may have drawn different first weights
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
