"""`hlrp_diffusion`: `hlrp_action_expert_latent` with other defaults and the options of `HLRPDiffusionConfig`."""

from typing import Any

from ..hlrp_action_expert_latent.modeling_hlrp_action_expert_latent import HLRPActionExpertLatentPolicy
from .configuration_hlrp_diffusion import HLRPDiffusionConfig


class HLRPDiffusionPolicy(HLRPActionExpertLatentPolicy):
    """Foundation VLA that predicts latent codes, with LeRobot's diffusion UNet that predicts actions."""

    config_class = HLRPDiffusionConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPDiffusionConfig
    name = "hlrp_diffusion"  # pyright: ignore[reportAssignmentType]

    def __init__(self, config: HLRPDiffusionConfig, *args: Any, **kwargs: Any) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, *args, **kwargs)
