"""Configuration of `hlrp_action_expert_latent`: an expert that turns picture, state and latent codes into actions."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from hlrp.checks import require_numbers, told_by_draccus

from ..common.configuration import HLRPConfig

_NORMALIZATION = {
    "VISUAL": NormalizationMode.IDENTITY,
    "STATE": NormalizationMode.MEAN_STD,
    "ACTION": NormalizationMode.MIN_MAX,  # the diffusion expert clips to [-1, 1]
}


@PreTrainedConfig.register_subclass("hlrp_action_expert_latent")
@dataclass
class HLRPActionExpertLatentConfig(HLRPConfig):
    """The foundation VLA plans in latent codes; an expert of its own eyes carries the plan out."""

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_NORMALIZATION.copy)
    """How each kind of feature is normalized; a kind that is not named keeps its default."""

    chunk_size: int | None = 16
    """Actions predicted at once. None: as many as the frames that a label spans."""

    expert: str = "diffusion"
    """diffusion: LeRobot's UNet with FiLM; flow: a flow-matching transformer."""
    expert_uses_state: bool = True
    """Give the expert the robot's state, where the dataset has one."""
    vision_backbone: str = "resnet18"
    """The expert's own image encoder, of torchvision, trained from scratch."""
    expert_image_size: tuple[int, int] = (64, 64)
    """Height and width of the pictures it sees."""
    spatial_softmax_num_keypoints: int = 32
    """Points in the picture that it reports."""
    down_dims: tuple[int, ...] = (64, 128)
    """Widths of the diffusion UNet; LeRobot's diffusion policy has (512, 1024, 2048)."""
    kernel_size: int = 5
    """Steps that a convolution of the UNet spans."""
    n_groups: int = 8
    """Groups of its group norms; they divide every width."""
    diffusion_step_embed_dim: int = 128
    """Width of the embedding of the noise level."""
    use_film_scale_modulation: bool = True
    """Let the condition scale the UNet's features as well as shift them."""
    noise_scheduler_type: str = "DDIM"
    """DDPM or DDIM. Like the UNet's sizes above and the schedule below, as in LeRobot's diffusion policy."""
    num_train_timesteps: int = 100
    """Noise levels in training."""
    beta_schedule: str = "squaredcos_cap_v2"
    """How the variance of the noise grows with the level."""
    beta_start: float = 0.0001
    """Variance of the noise at the first level, for a linear schedule."""
    beta_end: float = 0.02
    """Variance of the noise at the last level, for a linear schedule."""
    prediction_type: str = "sample"
    """sample or epsilon: whether the UNet predicts the actions, which it learns in far fewer steps, or the noise."""
    clip_sample: bool = True
    """Clip the predicted actions in every denoising step."""
    clip_sample_range: float = 1.0
    """Where they are clipped, above and below 0."""
    expert_width: int = 128
    """Width of the flow expert."""
    expert_layers: int = 3
    """Layers of the flow expert."""
    expert_heads: int = 4
    """Attention heads of the flow expert; twice their number divides the width."""
    num_inference_steps: int | None = 10
    """Denoising steps of either expert; None: as many as noise levels in training, for the diffusion expert."""
    rtc_config: RTCConfig | None = None
    """Real-time chunking (arXiv:2506.07339) of the flow expert. LeRobot sets it."""

    latent_conditioning: bool = True
    """False: the same expert without latents, as a reference; the VLA then neither learns nor plans."""
    latent_embed_dim: int | None = None
    """Learn a vector of this width for every code. None: the LAQ's own code vectors."""
    predicted_codes: float = 0.0
    """Share of the samples whose labels are replaced by the VLA's own predictions, at its largest: training then meets
    what inference sees, at the price of decoding in every step."""
    predicted_codes_after: int = 1000
    """Training steps over which that share grows from 0."""
    replan_every: int = 1
    """Chunks of actions that are made from one plan before the VLA plans anew, whoever asks for them. Another
    instruction or the start of an episode needs a new plan in any case."""

    @told_by_draccus
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
        """Raise where an option would have no effect in training beside the others.

        Raises:
            ValueError: Naming the option.
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
