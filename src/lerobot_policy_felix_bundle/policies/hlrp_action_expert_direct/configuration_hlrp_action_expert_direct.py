"""Configuration of `hlrp_action_expert_direct`: a flow-matching expert that reads the foundation VLA's features."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from hlrp.runtime.checks import raises_parsing_errors, require_numbers

from ..common.configuration import HLRPConfig


@PreTrainedConfig.register_subclass("hlrp_action_expert_direct")
@dataclass
class HLRPActionExpertDirectConfig(HLRPConfig):
    """Flow-matching expert on the foundation VLA's features; no latent code is decoded to predict actions."""

    chunk_size: int | None = 16
    """Actions predicted at once. None: the number of frames that one latent action spans."""

    latent_loss_weight: float = 0.0
    """Weight of the loss on latent codes. Above 0: latent labels are needed, and the VLA also learns from frames
    without actions."""

    expert_width: int = 128
    """Width of the action expert's tokens."""
    expert_layers: int = 3
    """Transformer layers of the action expert."""
    expert_heads: int = 4
    """Attention heads of the action expert; twice their number must divide expert_width."""
    expert_uses_state: bool = True
    """Give the expert the robot's state, if the dataset has one."""
    num_denoising_steps: int = 10
    """Denoising (Euler) steps from noise to actions at inference."""
    rtc_config: RTCConfig | None = None
    """Options of real-time chunking (arXiv:2506.07339), which keeps successive chunks consistent. LeRobot sets them."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "num_denoising_steps", "expert_width", "expert_layers", "expert_heads", at_least=1)

    def require_effect(self) -> None:
        """Refuse an option that has no effect in training, given the other options.

        Raises:
            ValueError: If an option has no effect; the message names it.
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
