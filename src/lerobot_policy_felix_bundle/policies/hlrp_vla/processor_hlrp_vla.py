"""Pre- and postprocessing pipelines of `hlrp_vla`, which are the same for all policies."""

from typing import Any

from lerobot.processor import PolicyProcessorPipeline

from ..common.processors import make_processors
from .configuration_hlrp_vla import HLRPVLAConfig


def make_hlrp_vla_pre_post_processors(
    config: HLRPVLAConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """Build the pipelines, by the name under which LeRobot looks for them; see `make_processors`."""
    return make_processors(config, dataset_stats)
