"""LeRobot's standard pipelines: language and pixels are prepared by the foundation backend, batched on the device."""

from typing import Any

from lerobot.processor import PolicyProcessorPipeline, make_default_pre_post_processors

from .configuration_hlrp_vla import HLRPVLAConfig


def make_hlrp_vla_pre_post_processors(
    config: HLRPVLAConfig, dataset_stats: dict[str, Any] | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """Rename, batch, move, normalize; and on the way out unnormalize, move to the CPU."""
    return make_default_pre_post_processors(config, dataset_stats)
