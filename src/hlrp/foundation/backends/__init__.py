"""Foundation backends, by the name a checkpoint stores."""

from __future__ import annotations

from hlrp.foundation.backends.interfaces import (
    FoundationBackend,
    FoundationLoss,
    LatentPrediction,
    PromptFeatures,
)
from hlrp.foundation.backends.qwen3vl_chat_backend import QwenVLChatBackend, QwenVLChatConfig

BACKENDS: dict[str, type[FoundationBackend]] = {QwenVLChatBackend.backend_type: QwenVLChatBackend}

__all__ = [
    "BACKENDS",
    "FoundationBackend",
    "FoundationLoss",
    "LatentPrediction",
    "PromptFeatures",
    "QwenVLChatBackend",
    "QwenVLChatConfig",
]
