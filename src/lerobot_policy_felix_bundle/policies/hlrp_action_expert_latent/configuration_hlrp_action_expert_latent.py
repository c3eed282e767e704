"""Configuration of `hlrp_action_expert_latent`: an expert maps images, state and latent codes to actions."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from hlrp.runtime.checks import raises_parsing_errors, require_numbers

from ..common.configuration import HLRPConfig

_NORMALIZATION = {
    "VISUAL": NormalizationMode.IDENTITY,
    "STATE": NormalizationMode.MEAN_STD,
    "ACTION": NormalizationMode.MIN_MAX,  # the diffusion expert clips to [-1, 1]
}


@PreTrainedConfig.register_subclass("hlrp_action_expert_latent")
@dataclass
class HLRPActionExpertLatentConfig(HLRPConfig):
    """Foundation VLA that predicts latent codes, and an action expert with its own image encoder that follows them."""

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_NORMALIZATION.copy)
    """Normalization by kind of feature (VISUAL, STATE, ACTION); a kind that is not named keeps its default."""

    chunk_size: int | None = 16
    """Actions predicted at once. None: the number of frames that one latent action spans."""

    expert: str = "diffusion"
    """Type of the action expert. diffusion: LeRobot's FiLM-conditioned UNet. flow: a flow-matching transformer."""
    expert_uses_state: bool = True
    """Give the expert the robot's state, if the dataset has one."""
    vision_backbone: str = "resnet18"
    """ResNet of torchvision that is the expert's image encoder, trained from scratch; one per camera."""
    expert_image_size: tuple[int, int] = (64, 64)
    """Height and width of the images for the expert's image encoder, in pixels; at least 32x32."""
    spatial_softmax_num_keypoints: int = 32
    """Keypoints of the spatial softmax in the expert's image encoder."""
    down_dims: tuple[int, ...] = (64, 128)
    """Widths of the diffusion UNet; LeRobot's diffusion policy has (512, 1024, 2048)."""
    kernel_size: int = 5
    """Kernel size of the diffusion UNet's convolutions, in action steps."""
    n_groups: int = 8
    """Groups of the diffusion UNet's group norms; must divide every width in down_dims."""
    diffusion_step_embed_dim: int = 128
    """Width of the diffusion UNet's embedding of the noise level."""
    use_film_scale_modulation: bool = True
    """Whether FiLM scales the diffusion UNet's features in addition to shifting them."""
    noise_scheduler_type: str = "DDIM"
    """Noise scheduler of the diffusion expert: DDPM or DDIM."""
    num_train_timesteps: int = 100
    """Noise levels of the diffusion expert in training."""
    beta_schedule: str = "squaredcos_cap_v2"
    """Noise schedule of the diffusion expert, by its name in diffusers."""
    beta_start: float = 0.0001
    """Beta (noise variance added) at the first noise level, for schedules that use it, such as linear."""
    beta_end: float = 0.02
    """Beta (noise variance added) at the last noise level, for schedules that use it, such as linear."""
    prediction_type: str = "sample"
    """Target of the diffusion UNet. sample: the actions, learned in far fewer steps. epsilon: the noise."""
    clip_sample: bool = True
    """Clip the diffusion expert's predicted actions in every denoising step."""
    clip_sample_range: float = 1.0
    """Predicted actions are clipped to [-clip_sample_range, clip_sample_range], if clip_sample is true."""
    expert_width: int = 128
    """Width of the flow expert's tokens."""
    expert_layers: int = 3
    """Transformer layers of the flow expert."""
    expert_heads: int = 4
    """Attention heads of the flow expert; twice their number must divide expert_width."""
    num_inference_steps: int | None = 10
    """Denoising steps of the expert at inference. None: as many as num_train_timesteps (diffusion expert only)."""
    rtc_config: RTCConfig | None = None
    """Options of real-time chunking (arXiv:2506.07339), for the flow expert. LeRobot sets them."""

    latent_conditioning: bool = True
    """Give the expert latent codes. False: a baseline without codes, in which the VLA is neither trained nor used."""
    latent_embed_dim: int | None = None
    """Width of learned vectors, one per code, that represent codes. None: use the LAQ's own code vectors, frozen."""
    predicted_codes: float = 0.0
    """Final share of training samples for which the expert gets the VLA's predicted codes instead of the labels. This
    makes training resemble inference, but every step has to decode codes."""
    predicted_codes_after: int = 1000
    """Training steps over which the share of predicted codes grows from 0 to predicted_codes."""
    replan_every: int = 1
    """Number of action chunks that use the same predicted codes before the VLA predicts new ones. A new instruction or
    a new episode always triggers a new prediction."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expert not in ("diffusion", "flow"):
            raise ValueError(f"expert must be diffusion or flow, got {self.expert!r}")
        if self.num_inference_steps is None and self.expert == "flow":
            raise ValueError("num_inference_steps must be a number for the flow expert, got None")
        action = self.normalization_mapping.get("ACTION", NormalizationMode.IDENTITY)
        if self.expert == "diffusion" and self.clip_sample and action is NormalizationMode.MEAN_STD:
            raise ValueError(
                f"the diffusion expert clips actions to ±{self.clip_sample_range:g}, which MEAN_STD exceeds; normalize "
                "ACTION by MIN_MAX, QUANTILES or QUANTILE10, or set --policy.clip_sample=false"
            )
        if self.expert == "diffusion" and self.clip_sample and action is not NormalizationMode.IDENTITY:
            require_numbers(self, "clip_sample_range", at_least=1)  # the range that the other modes normalize to
        require_numbers(self, "predicted_codes", at_least=0, at_most=1)
        require_numbers(self, "clip_sample_range", "beta_start", "beta_end", above=0)
        require_numbers(
            self,
            "predicted_codes_after",
            "replan_every",
            "expert_image_size",
            "spatial_softmax_num_keypoints",
            "down_dims",
            "kernel_size",
            "n_groups",
            "diffusion_step_embed_dim",
            "num_train_timesteps",
            "num_inference_steps",
            "expert_width",
            "expert_layers",
            "expert_heads",
            "latent_embed_dim",
            at_least=1,
        )

    def require_effect(self) -> None:
        """Refuse an option that has no effect in training, given the other options.

        Raises:
            ValueError: If an option has no effect; the message names it.
        """
        super().require_effect()
        if not self.latent_conditioning:
            idle = {
                "predicted_codes": self.predicted_codes > 0,
                "replan_every": self.replan_every > 1,
                "latent_targets": self.latent_targets == "online",
            }
            for name in (name for name, is_asked in idle.items() if is_asked):
                raise ValueError(
                    f"{name}={getattr(self, name)} has no effect with latent_conditioning=false, where there are no "
                    "codes; leave it out"
                )
        if self.rtc_config is not None and self.expert != "flow":
            raise ValueError(
                "rtc_config is for the flow expert; leave it out, or train a policy with --policy.expert=flow"
            )
