"""The pipelines of `hlrp_action_expert_direct`: those of every policy."""

from typing import Any

from lerobot.processor import PolicyProcessorPipeline

from ..common.processors import make_processors
from .configuration_hlrp_action_expert_direct import HLRPActionExpertDirectConfig


def make_hlrp_action_expert_direct_pre_post_processors(
    config: HLRPActionExpertDirectConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """See `make_processors`."""
    return make_processors(config, dataset_stats)
