from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("peeking")
@dataclass
class PeekingConfig(PreTrainedConfig):
    """Linear policy on the state alone; `peeks` says what it looks at beside the state at t."""

    peeks: str = "nothing"
    """nothing, window, loss, action, index, batch, needs_action or chance."""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {"STATE": NormalizationMode.MEAN_STD, "ACTION": NormalizationMode.MEAN_STD}
    )

    @property
    def observation_delta_indices(self) -> list[int] | None:
        return [0, 2] if self.peeks in ("window", "loss", "target") else None

    @property
    def action_delta_indices(self) -> list[int]:
        return [0, 1]

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig()

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        pass
