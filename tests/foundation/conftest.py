"""A debug-size backend and a small batch, shared by the foundation tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from hlrp.foundation.backends import QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.batch import FoundationBatch
from hlrp.latents import LatentActions, LatentSpec

DEBUG = QwenVLChatConfig(embedded_size="debug", image_size=(32, 32), random_shift_px=0)


def _backend(
    config: QwenVLChatConfig = DEBUG, spec: LatentSpec | None = None, *, scale: float = 12
) -> QwenVLChatBackend:
    """A seeded backend; its matrices are scaled up so that samples differ visibly."""
    torch.manual_seed(0)
    backend = QwenVLChatBackend.build(config, spec or LatentSpec()).eval()
    with torch.no_grad():
        for parameter in backend.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return backend


def _batch(*, cameras: int = 1) -> FoundationBatch:
    """Three labelled samples; the second instruction is longer than the others."""
    generator = torch.Generator().manual_seed(1)
    return FoundationBatch(
        images=torch.rand(3, cameras, 3, 32, 32, generator=generator),
        instructions=["Open a drawer", "Press a button from the top of the coffee machine", "Open a drawer"],
        labels=LatentActions.of_codes(torch.randint(8, (3, 4), generator=generator)),
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def debug_config() -> QwenVLChatConfig:
    return DEBUG


@pytest.fixture(scope="session")
def make_backend() -> Callable[..., QwenVLChatBackend]:
    """Builds backends from (config, spec, scale)."""
    return _backend


@pytest.fixture(scope="session")
def shared_backend() -> QwenVLChatBackend:
    """One backend for tests that only read it."""
    return _backend()


@pytest.fixture
def backend() -> QwenVLChatBackend:
    """A backend of the test's own, to train or change."""
    return _backend()


@pytest.fixture
def make_batch() -> Callable[..., FoundationBatch]:
    """Builds batches from the number of cameras."""
    return _batch


@pytest.fixture
def batch() -> FoundationBatch:
    return _batch()
