"""The foundation backends. Importing the configuration of a backend registers it; see `register_backend`.

The package itself imports neither torch nor transformers, so that commands check their options at once. The other names
are imported from their modules when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hlrp.foundation.backends.qwen3vl.config import QwenVLChatConfig
from hlrp.foundation.backends.smolvlm.config import SmolLatentHeadConfig
from hlrp.foundation.config import BackendConfig, register_backend

if TYPE_CHECKING:
    from hlrp.foundation.backends.interfaces import (
        FoundationBackend,
        FoundationLoss,
        LatentCandidates,
        LatentPrediction,
        PromptFeatures,
        backend_class,
        build_backend,
    )
    from hlrp.foundation.backends.qwen3vl_chat_backend import QwenVLChatBackend
    from hlrp.foundation.backends.smol_latent_head_backend import SmolLatentHeadBackend

_OTHER_PLACES = {
    "QwenVLChatBackend": "hlrp.foundation.backends.qwen3vl_chat_backend",
    "SmolLatentHeadBackend": "hlrp.foundation.backends.smol_latent_head_backend",
}

__all__ = [
    "BackendConfig",
    "FoundationBackend",
    "FoundationLoss",
    "LatentCandidates",
    "LatentPrediction",
    "PromptFeatures",
    "QwenVLChatBackend",
    "QwenVLChatConfig",
    "SmolLatentHeadBackend",
    "SmolLatentHeadConfig",
    "backend_class",
    "build_backend",
    "register_backend",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_OTHER_PLACES.get(name, "hlrp.foundation.backends.interfaces")), name)
