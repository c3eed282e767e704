"""The pipelines of `hlrp_vla_direct`: those of every policy."""

from typing import Any

from lerobot.processor import PolicyProcessorPipeline

from ..common.processors import make_processors
from .configuration_hlrp_vla_direct import HLRPVLADirectConfig


def make_hlrp_vla_direct_pre_post_processors(
    config: HLRPVLADirectConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """See `make_processors`."""
    return make_processors(config, dataset_stats)
