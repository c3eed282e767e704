"""The simulator tests run the real simulator, where the machine can render at all."""

from __future__ import annotations

import importlib.util
import os

import pytest

from hlrp.sim.gl_backend import choose_gl_backend


@pytest.fixture(scope="session", autouse=True)
def can_render() -> None:
    """Skip where Meta-World, or a display and any offscreen OpenGL library, is missing."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    if importlib.util.find_spec("metaworld") is None:
        pytest.skip("Meta-World is not installed")
    try:
        choose_gl_backend()
    except FileNotFoundError as error:
        pytest.skip(str(error))
