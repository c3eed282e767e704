"""`hlrp_vla`: `hlrp_vla_direct` with other defaults and the options of `HLRPVLAConfig`."""

from typing import Any

from ..hlrp_vla_direct.modeling_hlrp_vla_direct import HLRPVLADirectPolicy
from .configuration_hlrp_vla import HLRPVLAConfig


class HLRPVLAPolicy(HLRPVLADirectPolicy):
    """Chat model that answers in action tokens, with a decoder from these codes to actions."""

    config_class = HLRPVLAConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPVLAConfig
    name = "hlrp_vla"  # pyright: ignore[reportAssignmentType]

    def __init__(self, config: HLRPVLAConfig, *args: Any, **kwargs: Any) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, *args, **kwargs)
