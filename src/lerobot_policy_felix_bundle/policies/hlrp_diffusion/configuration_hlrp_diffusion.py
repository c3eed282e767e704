"""Configuration of `hlrp_diffusion`: `hlrp_action_expert_latent` at the size of LeRobot's diffusion policy."""

from dataclasses import dataclass

from lerobot.configs import PreTrainedConfig

from hlrp.runtime.checks import require_numbers, told_by_draccus

from ..common.preset import VLAPreset
from ..hlrp_action_expert_latent.configuration_hlrp_action_expert_latent import HLRPActionExpertLatentConfig


@PreTrainedConfig.register_subclass("hlrp_diffusion")
@dataclass
class HLRPDiffusionConfig(VLAPreset, HLRPActionExpertLatentConfig):
    """A diffusion policy under the latent codes of Cosmos-Reason2-2B, which stays as it is."""

    horizon: int = 16
    """Actions of a chunk: chunk_size by the name that LeRobot's diffusion policy gives it."""
    n_action_steps: int | None = 8
    """Actions executed before the next prediction. None: half of horizon, rounded up."""
    chunk_size: int | None = None
    """Follows horizon."""
    codebook_size: int | None = 8
    """Codes k per slot; must be the LAQ's. None: take it from there."""
    code_seq_len: int | None = 4
    """Code slots s per transition; must be the LAQ's. None: take it from there."""
    latent_embed_dim: int | None = 64
    """Width of the vector learned for every code. None: the LAQ's own code vectors."""
    freeze_vla: bool = True
    """Train the expert alone."""

    expert_image_size: tuple[int, int] = (96, 96)
    """Height and width of the pictures the expert sees."""
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    """Widths of the diffusion UNet."""
    noise_scheduler_type: str = "DDPM"
    """DDPM or DDIM."""
    num_inference_steps: int | None = None
    """Denoising steps; None: as many as noise levels in training."""
    prediction_type: str = "epsilon"
    """sample or epsilon: whether the UNet predicts the actions or the noise."""

    optimizer_lr: float = 1e-4
    """Peak learning rate of AdamW."""
    scheduler_warmup_steps: int = 500
    """Optimizer steps until the peak of the learning rate."""

    @told_by_draccus
    def __post_init__(self) -> None:
        if self.chunk_size not in (None, self.horizon):
            raise ValueError(
                f"--policy.chunk_size={self.chunk_size} and --policy.horizon={self.horizon} differ; set both alike, or "
                "leave out chunk_size"
            )
        require_numbers(self, "horizon", at_least=1)
        self.chunk_size = self.horizon
        super().__post_init__()
