"""Configuration of `hlrp_diffusion`: `hlrp_action_expert_latent` at the size of LeRobot's diffusion policy."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from hlrp.runtime.checks import raises_parsing_errors, require_numbers
from hlrp.runtime.size_limits import LONGEST_CHUNK

from ..common.preset import VLAPreset
from ..hlrp_action_expert_latent.configuration_hlrp_action_expert_latent import HLRPActionExpertLatentConfig


@PreTrainedConfig.register_subclass("hlrp_diffusion")
@dataclass
class HLRPDiffusionConfig(VLAPreset, HLRPActionExpertLatentConfig):
    """Diffusion policy that gets latent codes predicted by a frozen Cosmos-Reason2-2B."""

    horizon: int = 16
    """Actions predicted at once: chunk_size under the name of LeRobot's diffusion policy."""
    n_action_steps: int | None = 8
    """Actions executed before the next prediction. None: half of horizon, rounded up."""
    chunk_size: int | None = None
    """Set from horizon; leave it out."""
    latent_embed_dim: int | None = 64
    """Width of learned vectors, one per code, that represent codes. None: use the LAQ's own code vectors, frozen."""
    freeze_vla: bool = True
    """Freeze the foundation VLA; train only the action expert."""

    expert_image_size: tuple[int, int] = (96, 96)
    """Height and width of the images for the expert's image encoder, in pixels."""
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    """Widths of the diffusion UNet."""
    noise_scheduler_type: str = "DDPM"
    """Noise scheduler of the diffusion expert: DDPM or DDIM."""
    num_inference_steps: int | None = None
    """Denoising steps at inference. None: as many as num_train_timesteps."""
    prediction_type: str = "epsilon"
    """Target of the diffusion UNet. sample: the actions. epsilon: the noise."""

    optimizer_lr: float = 1e-4
    """Peak learning rate of AdamW."""
    scheduler_warmup_steps: int = 500
    """Optimizer steps over which the learning rate grows from 0 to its peak."""

    @raises_parsing_errors
    def __post_init__(self) -> None:
        if self.chunk_size not in (None, self.horizon):
            raise ValueError(
                f"--policy.chunk_size={self.chunk_size} and --policy.horizon={self.horizon} differ; set both alike, or "
                "leave out chunk_size"
            )
        require_numbers(self, "horizon", at_least=1, limit=LONGEST_CHUNK)
        self.chunk_size = self.horizon
        super().__post_init__()
