from __future__ import annotations

from typing import Any

from lerobot.policies.act.processor_act import make_act_pre_post_processors

from .configuration_peeking import PeekingConfig


def make_peeking_pre_post_processors(config: PeekingConfig, dataset_stats: Any | None = None) -> Any:
    """ACT's processors, which do not depend on the kind of policy."""
    return make_act_pre_post_processors(config, dataset_stats)  # type: ignore[arg-type]
