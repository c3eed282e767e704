"""Figures of a foundation model are tested on the models of the foundation tests."""

from foundation.conftest import backend, batch, debug_config, make_backend, make_batch, one_thread, shared_backend

__all__ = ["backend", "batch", "debug_config", "make_backend", "make_batch", "one_thread", "shared_backend"]
