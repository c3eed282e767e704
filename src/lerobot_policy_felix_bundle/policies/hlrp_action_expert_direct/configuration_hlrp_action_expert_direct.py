"""Configuration of `hlrp_action_expert_direct`: a flow-matching expert that reads the foundation VLA's features."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from hlrp.runtime.checks import require_numbers, told_by_draccus

from ..common.configuration import HLRPConfig


@PreTrainedConfig.register_subclass("hlrp_action_expert_direct")
@dataclass
class HLRPActionExpertDirectConfig(HLRPConfig):
    """One frame and an instruction in, a chunk of continuous actions out; no latent code is decoded in between."""

    chunk_size: int | None = 16
    """Actions predicted at once. None: as many as the frames that a label spans."""

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

    def require_effect(self) -> None:
        """Raise where an option would have no effect in training beside the others.

        Raises:
            ValueError: Naming the option.
        """
        super().require_effect()
        if self.latent_loss_weight > 0 and self.freeze_vla:
            raise ValueError(
                f"latent_loss_weight={self.latent_loss_weight:g} teaches the VLA, which freeze_vla=true leaves as it "
                "is; set one of them back"
            )
        if self.latent_loss_weight == 0 and self.latent_targets == "online":
            raise ValueError(
                "latent_targets=online makes labels that nothing learns from while latent_loss_weight is 0; set "
                "--policy.latent_loss_weight=1"
            )
