"""Configuration of `hlrp_action_expert_direct`: a flow-matching expert that reads the foundation VLA's features."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from hlrp.checks import require_numbers, told_by_draccus

from ..common.configuration import HLRPConfig


@PreTrainedConfig.register_subclass("hlrp_action_expert_direct")
@dataclass
class HLRPActionExpertDirectConfig(HLRPConfig):
    """One frame and an instruction in, a chunk of continuous actions out; no latent code is decoded in between."""

    chunk_size: int = 16
    """Actions predicted at once."""
    n_action_steps: int = 8
    """Actions executed before the next prediction."""

    latent_loss_weight: float = 0.0
    """Weight of the cross-entropy of latent codes: above 0, frames without actions teach the VLM too; needs labels."""

    expert_width: int = 128
    """Width of the action expert."""
    expert_layers: int = 3
    """Its transformer layers."""
    expert_heads: int = 4
    """Its attention heads; twice their number divides the width."""
    expert_uses_state: bool = True
    """Give the expert the robot's state, where the dataset has one."""
    num_denoising_steps: int = 10
    """Euler steps from noise to actions."""
    rtc_config: RTCConfig | None = None
    """Real-time chunking (arXiv:2506.07339): how a chunk continues the one that is being executed. LeRobot sets it."""

    @told_by_draccus
    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "num_denoising_steps", "expert_width", "expert_layers", "expert_heads", at_least=1)
