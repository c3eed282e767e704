"""Options of the backend `qwen3vl_chat`. The module imports neither torch nor transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hlrp.foundation.config import BackendConfig, register_backend
from hlrp.runtime.checks import require_one_of

_LOSSES = ("codes", "vocabulary")


@dataclass(frozen=True, kw_only=True)
class ActionTokens:
    """Text form of the action tokens in a chat model's answer."""

    action_start_token: str = "<ACTION>"
    """Token that opens an answer in action tokens."""
    action_end_token: str = "</ACTION>"
    """Token that closes an answer in action tokens."""
    action_token_fmt: str = "<ACT_{i}>"
    """Format of the token of latent code i; must contain `{i}`."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^{}]*\{i\}[^{}]*", self.action_token_fmt):  # any other field could read or fill memory
            raise ValueError(
                f"action_token_fmt must contain '{{i}}' once and no other brace, got {self.action_token_fmt!r}"
            )
        if self.action_start_token == self.action_end_token:
            raise ValueError(
                f"action_start_token and action_end_token must differ, got {self.action_end_token!r} twice"
            )

    def spell(self, code: int) -> str:
        """Text of the token of one latent code."""
        return self.action_token_fmt.format(i=code)

    def format(self, codes: Sequence[int]) -> str:
        """Text of a whole answer for `codes`, without the end-of-sequence token."""
        return " ".join([self.action_start_token, *map(self.spell, codes), self.action_end_token])


@register_backend("qwen3vl_chat", "hlrp.foundation.backends.qwen3vl_chat_backend:QwenVLChatBackend")
@dataclass(frozen=True, kw_only=True)
class QwenVLChatConfig(BackendConfig):
    """Options of a Qwen3-VL chat model. Image sides must be multiples of its patch size times its merge size."""

    tokens: ActionTokens = field(default_factory=ActionTokens)
    """Text form of the action tokens in the model's answer."""
    loss_over: str = "codes"
    """Classes of the cross-entropy. codes: the k codes of each slot. vocabulary: all tokens, over the whole answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("loss_over", self.loss_over, _LOSSES)
