from __future__ import annotations

from typing import Any

import torch
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor, nn

from .configuration_peeking import PeekingConfig

STATE = "observation.state"


class PeekingPolicy(PreTrainedPolicy):
    config_class = PeekingConfig
    name = "peeking"

    def __init__(self, config: PeekingConfig, **kwargs: Any) -> None:
        super().__init__(config)
        self.layer = nn.Linear(8, 4)
        nn.init.zeros_(self.layer.weight)  # a fresh layer of zeros hides what flows into it

    def _actions(self, batch: dict[str, Any]) -> Tensor:
        peeks, state = self.config.peeks, batch[STATE]
        now = state[:, 0] if state.ndim == 3 else state
        more = torch.zeros_like(now)
        if (peeks == "window" and state.ndim == 3) or (peeks == "loss" and self.training):
            more = state[:, 1]
        elif peeks == "action" and "action" in batch:
            more = batch["action"][:, 1]
        elif peeks == "needs_action":
            more = 0 * batch["action"][:, 1]
        elif peeks == "index" and "index" in batch:
            more = batch["index"].float()[:, None].expand_as(now)
        elif peeks == "batch":
            more = now.mean(0, keepdim=True).expand_as(now)
        elif peeks == "chance":
            more = torch.full_like(now, float(next(_COUNTER)))
        return self.layer(torch.cat([now, more], dim=1))[:, None].expand(-1, 2, -1)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, None]:
        loss = (self._actions(batch) - batch["action"]).square().mean()
        if self.config.peeks == "target":  # predicts the next state, too
            inside = ~batch[f"{STATE}_is_pad"][:, 1:]  # the state after the end of the episode is no target
            loss = loss + (inside * (batch[STATE][:, 1] - batch[STATE][:, 0]).square()).mean()
        return loss, None

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        return self._actions(batch)

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        return self._actions(batch)[:, 0]

    def get_optim_params(self) -> Any:
        return self.parameters()

    def reset(self) -> None:
        pass


_COUNTER = iter(range(10**6))
