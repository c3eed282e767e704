"""Registry of the foundation backends, by the name that a checkpoint stores."""

from __future__ import annotations

from hlrp.foundation.backends.interfaces import (
    FoundationBackend,
    FoundationLoss,
    LatentCandidates,
    LatentPrediction,
    PromptFeatures,
)
from hlrp.foundation.backends.qwen3vl_chat_backend import QwenVLChatBackend
from hlrp.foundation.backends.smol_latent_head_backend import SmolLatentHeadBackend
from hlrp.foundation.config import BackendConfig, QwenVLChatConfig, SmolLatentHeadConfig
from hlrp.latents import LatentSpec

BACKENDS: dict[str, type[FoundationBackend]] = {
    backend.backend_type: backend for backend in (QwenVLChatBackend, SmolLatentHeadBackend)
}


def build_backend(config: BackendConfig, spec: LatentSpec) -> FoundationBackend:
    """Build a model to start training from, by the class that belongs to `config`; see `FoundationBackend.build`."""
    return BACKENDS[BackendConfig.get_choice_name(type(config))].build(config, spec)


__all__ = [
    "BACKENDS",
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
    "build_backend",
]
