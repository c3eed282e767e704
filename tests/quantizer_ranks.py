"""Trains quantizers and the continuous head on one process or several, for `tests/laq/test_quantizers_ranks.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hlrp.foundation.backends.smolvlm.vector_flow_head import VectorFlowHead
from hlrp.laq.config import QUANTIZERS
from hlrp.laq.quantizers import quantizer_class
from hlrp.latents import LatentSpec
from hlrp.training.row_draws import RowDraws

SPEC = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=3)
STEPS, BATCH_SIZE = 44, 16
NAMES = list(QUANTIZERS)


class Encoder(nn.Module):
    """A linear map before a quantizer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.quantizer = quantizer_class(name)(SPEC)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized = self.quantizer(self.linear(x))
        return quantized.vectors, quantized.ids, quantized.loss


class Head(nn.Module):
    """The continuous head, whose condition comes from a linear map of what it predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.head = VectorFlowHead(condition_width=4, num_slots=2, vector_width=3)

    def forward(self, x: Tensor, draws: RowDraws) -> Tensor:
        keep = torch.ones(len(x), dtype=torch.bool)
        return self.head.loss(10 * x, self.linear(x), keep, draws=draws).mean()


def batches() -> Tensor:
    """Latents that move away halfway, so that codes die."""
    x = torch.randn(STEPS, BATCH_SIZE, 2, 3, generator=torch.Generator().manual_seed(7))
    x[STEPS // 2 :] += 5
    return x


def train(name: str, rank: int, world: int) -> dict[str, Any]:
    """Losses, ids and gradients of every step on this process, and the state at the end."""
    torch.manual_seed(0)
    model = Encoder(name).train()
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if world > 1 else model
    torch.manual_seed(rank)  # processes draw differently, the first one like a single process
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002)
    losses, ids, gradients = [], [], []
    for x in batches():
        part = x.chunk(world)[rank]
        vectors, codes, loss = wrapped(part)
        loss = loss + (vectors - part).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        ids.append(codes)
        gradients.append(model.linear.weight.grad.clone())  # pyright: ignore[reportOptionalMemberAccess]
    return {
        "losses": torch.stack(losses),
        "ids": torch.stack(ids),
        "gradients": torch.stack(gradients),
        "state": dict(model.state_dict()),
    }


def train_head(rank: int, world: int) -> dict[str, Any]:
    """State at the end, of weights and statistics."""
    torch.manual_seed(0)
    model = Head().train()
    wrapped = DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, x in enumerate(batches()):
        draws = RowDraws.of_part(step, rank, world, batch_size=BATCH_SIZE)
        optimizer.zero_grad()
        wrapped(x.chunk(world)[rank], draws).backward()
        optimizer.step()
    return dict(model.state_dict())


def work(rank: int, world: int, folder: Path) -> None:
    """One of several processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    found = {name: train(name, rank, world) for name in NAMES}
    torch.save({**found, "head": train_head(rank, world)}, folder / f"{rank}.pt")
    distributed.destroy_process_group()
