"""Two processes with half a batch each train as one process with the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

import quantizer_ranks
from quantizer_ranks import BATCH_SIZE, NAMES, STEPS, train, train_head


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes report, by quantizer."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(quantizer_ranks.work, args=(2, folder), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_both_processes_hold_the_same_quantizer(ranks: list[dict[str, Any]], name: str) -> None:
    one, other = (rank[name]["state"] for rank in ranks)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_codes_loss_and_gradients_are_those_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    alone = train(name, 0, 1)
    assert torch.equal(torch.cat([rank[name]["ids"] for rank in ranks], dim=1), alone["ids"])
    torch.testing.assert_close((ranks[0][name]["losses"] + ranks[1][name]["losses"]) / 2, alone["losses"])
    torch.testing.assert_close(ranks[0][name]["gradients"], alone["gradients"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ranks[0][name]["state"], alone["state"], rtol=1e-4, atol=1e-4)


def test_the_continuous_head_learns_the_same_and_its_statistics_are_of_all_vectors(ranks: list[dict[str, Any]]) -> None:
    alone = train_head(0, 1)
    assert alone["head.standardizer.count"] == BATCH_SIZE * STEPS
    for rank in ranks:
        torch.testing.assert_close(rank["head"], alone, rtol=1e-4, atol=1e-4)
