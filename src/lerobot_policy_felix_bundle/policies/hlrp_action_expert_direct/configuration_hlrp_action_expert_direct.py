"""Configuration of `hlrp_action_expert_direct`: a flow-matching expert that reads the foundation VLA's features."""

from dataclasses import dataclass
from typing import ClassVar

from lerobot.configs import PreTrainedConfig

from hlrp.experts.flow import FlowExpert, FlowOptions
from hlrp.runtime.checks import raises_parsing_errors, require_numbers

from ..common.expert_configuration import HLRPExpertConfig


@PreTrainedConfig.register_subclass("hlrp_action_expert_direct")
@dataclass
class HLRPActionExpertDirectConfig(FlowOptions, HLRPExpertConfig):
    """Flow-matching expert on the foundation VLA's features; no latent code is decoded to predict actions."""

    actions_teach_vla: ClassVar[bool] = True

    latent_loss_weight: float = 0.0
    """Weight of the loss on latent codes. Above 0: latent labels are needed, and the VLA also learns from frames
    without actions."""
    num_denoising_steps: int = 10
    """Denoising (Euler) steps from noise to actions at inference."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "num_denoising_steps", at_least=1)

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

    @property
    def needs_labels(self) -> bool:
        """Whether training needs latent labels: true if the VLA also learns latent codes."""
        return self.learns_codes

    @property
    def expert_class(self) -> type[FlowExpert]:
        """Class of the action expert: flow matching, since the number of the VLA's tokens varies."""
        return FlowExpert

    @property
    def denoising_steps(self) -> int:
        """Denoising steps of the expert at inference."""
        return self.num_denoising_steps
