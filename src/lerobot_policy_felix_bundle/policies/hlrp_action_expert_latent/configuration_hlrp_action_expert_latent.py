"""Configuration of `hlrp_action_expert_latent`: an expert maps images, state and latent codes to actions."""

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig

from hlrp.experts.interface import ActionExpert
from hlrp.experts.registry import EXPERTS, ExpertOptions, options_of_other_experts
from hlrp.runtime.checks import raises_parsing_errors, require_numbers, require_one_of
from hlrp.runtime.size_limits import WIDEST_LAYER

from ..common.expert_configuration import HLRPExpertConfig

_NORMALIZATION = {
    "VISUAL": NormalizationMode.IDENTITY,
    "STATE": NormalizationMode.MEAN_STD,
    "ACTION": NormalizationMode.MIN_MAX,  # the diffusion expert clips to [-1, 1]
}


@PreTrainedConfig.register_subclass("hlrp_action_expert_latent")
@dataclass
class HLRPActionExpertLatentConfig(ExpertOptions, HLRPExpertConfig):
    """Foundation VLA that predicts latent codes, and an action expert with its own image encoder that follows them."""

    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_NORMALIZATION.copy)
    """Normalization by kind of feature (VISUAL, STATE, ACTION); a kind that is not named keeps its default."""

    vision_backbone: str = "resnet18"
    """ResNet of torchvision that is the expert's image encoder, trained from scratch; one per camera."""
    expert_image_size: tuple[int, int] = (64, 64)
    """Height and width of the images for the expert's image encoder, in pixels; at least 32x32."""
    spatial_softmax_num_keypoints: int = 32
    """Keypoints of the spatial softmax in the expert's image encoder."""

    latent_conditioning: bool = True
    """Give the expert latent codes. False: a baseline without codes, in which the VLA is neither trained nor used."""
    latent_embed_dim: int | None = None
    """Width of learned vectors, one per code, that represent codes. None: use the LAQ's own code vectors, frozen."""
    predicted_codes: float = 0.0
    """Final share of training samples for which the expert gets the VLA's predicted codes instead of the labels. This
    makes training resemble inference, but every step has to decode codes."""
    predicted_codes_after: int = 1000
    """Training steps of a run over which the share of predicted codes grows from 0 to predicted_codes."""
    replan_every: int = 1
    """Number of action chunks that use the same predicted codes before the VLA predicts new ones. A new instruction or
    a new episode always triggers a new prediction."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, "predicted_codes", at_least=0, at_most=1)
        require_numbers(
            self,
            "predicted_codes_after",
            "replan_every",
            "expert_image_size",
            "spatial_softmax_num_keypoints",
            "num_inference_steps",
            "latent_embed_dim",
            at_least=1,
            limit=WIDEST_LAYER,
        )

    def require_effect(self) -> None:
        """Refuse an option that has no effect in training, given the other options.

        Raises:
            ValueError: If an option has no effect; the message names it.
        """
        if not self.latent_conditioning:
            idle = {
                "predicted_codes": self.predicted_codes > 0,
                "replan_every": self.replan_every > 1,
                "latent_targets": self.latent_targets == "online",
                "latent_labels_path": bool(self.latent_labels_path),
            }
            for name in (name for name, is_asked in idle.items() if is_asked):
                raise ValueError(
                    f"{name}={getattr(self, name)} has no effect with latent_conditioning=false, where there are no "
                    "codes; leave it out"
                )
        super().require_effect()
        if self.pretrained_path is None:  # a saved policy holds the defaults of its time
            self._require_no_option_of_other_experts()
        if self.rtc_config is not None and not self.expert_class.supports_rtc:
            able = ", ".join(name for name, expert in EXPERTS.items() if expert.supports_rtc)
            raise ValueError(
                f"rtc_config has no effect with the {self.expert} expert, which does not support real-time chunking; "
                f"leave it out, or train a policy with another --policy.expert: {able}"
            )

    def _require_no_option_of_other_experts(self) -> None:
        for name in options_of_other_experts(self.expert):
            value = getattr(self, name)
            if value != getattr(type(self), name):
                raise ValueError(f"{name}={value} has no effect with the {self.expert} expert; leave it out")

    @property
    def needs_labels(self) -> bool:
        """Whether training needs latent labels: true unless `latent_conditioning` is off."""
        return self.latent_conditioning

    @property
    def actions_need_codes(self) -> bool:
        """Whether actions can be learned only on frames with codes: true unless `latent_conditioning` is off."""
        return self.latent_conditioning

    @property
    def expert_class(self) -> type[ActionExpert]:
        """Class of the action expert.

        Raises:
            ValueError: If there is no expert of this name.
        """
        require_one_of("expert", self.expert, EXPERTS)
        return EXPERTS[self.expert]

    @property
    def denoising_steps(self) -> int | None:
        """Denoising steps of the expert at inference; None for the expert's own number."""
        return self.num_inference_steps
