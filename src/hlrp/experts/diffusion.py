"""Action head that denoises a chunk of actions with LeRobot's conditional UNet (diffusion policy, arXiv:2303.04137).

The UNet is LeRobot's, FiLM-conditioned on one vector. This class adds chunks of any length, by padding.

Shapes: b batch, h chunk steps, p chunk steps padded to a multiple of the UNet's downsampling, a action dimensions,
g condition width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d
from torch import Tensor, nn

from hlrp.runtime.checks import require_numbers
from hlrp.runtime.extras import MissingPackage

try:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
except ModuleNotFoundError as error:
    raise MissingPackage("diffusers", needed_for="the diffusion expert") from error

SCHEDULERS = {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}


@dataclass(frozen=True, kw_only=True)
class DiffusionExpertConfig:
    """Size and noise schedule of a `DiffusionExpert`."""

    down_dims: tuple[int, ...] = (64, 128)
    """Widths of the UNet's levels; LeRobot's diffusion policy has (512, 1024, 2048)."""
    kernel_size: int = 5
    """Kernel size of the UNet's convolutions, in chunk steps."""
    n_groups: int = 8
    """Groups of the UNet's group norms; must divide every width in down_dims."""
    diffusion_step_embed_dim: int = 128
    """Width of the embedding of the noise level."""
    use_film_scale_modulation: bool = True
    """Whether FiLM scales the features in addition to shifting them."""
    noise_scheduler_type: str = "DDIM"
    """Noise scheduler of diffusers: DDPM or DDIM."""
    num_train_timesteps: int = 100
    """Noise levels in training."""
    beta_schedule: str = "squaredcos_cap_v2"
    """Noise schedule, by its name in diffusers."""
    beta_start: float = 0.0001
    """Beta (noise variance added per level) at the first level, for schedules that use it, such as linear."""
    beta_end: float = 0.02
    """Beta (noise variance added per level) at the last level, for schedules that use it, such as linear."""
    prediction_type: str = "epsilon"
    """Target of the UNet. epsilon: the noise. sample: the actions."""
    clip_sample: bool = True
    """Whether predicted actions are clipped while denoising."""
    clip_sample_range: float = 1.0
    """Predicted actions are clipped to [-clip_sample_range, clip_sample_range]."""
    num_inference_steps: int | None = 10
    """Denoising steps at inference. None: as many as num_train_timesteps, as DDPM is designed for."""

    def __post_init__(self) -> None:
        if self.noise_scheduler_type not in SCHEDULERS:
            raise ValueError(
                f"noise_scheduler_type must be one of {', '.join(SCHEDULERS)}, got {self.noise_scheduler_type!r}"
            )
        require_numbers(self, "clip_sample_range", "beta_start", "beta_end", above=0)
        require_numbers(self, "kernel_size", "n_groups", "diffusion_step_embed_dim", "num_train_timesteps", at_least=1)
        if self.num_inference_steps is not None and not 1 <= self.num_inference_steps <= self.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps must be between 1 and num_train_timesteps {self.num_train_timesteps}, got "
                f"{self.num_inference_steps}"
            )
        if self.prediction_type not in ("epsilon", "sample"):
            raise ValueError(f"prediction_type must be epsilon or sample, got {self.prediction_type!r}")
        if not self.down_dims or any(width % self.n_groups for width in self.down_dims):
            raise ValueError(f"down_dims must be multiples of n_groups {self.n_groups}, got {self.down_dims}")


class DiffusionExpert(nn.Module):
    """Diffusion model of action chunks given one condition vector; actions are normalized to [-1, 1]."""

    def __init__(self, config: DiffusionExpertConfig, *, condition_dim: int, chunk_size: int, action_dim: int) -> None:
        super().__init__()
        self.chunk_size, self.action_dim = chunk_size, action_dim
        factor = 2 ** len(config.down_dims)  # LeRobot's UNet requires a horizon that this factor divides
        self.padded_size = -(-chunk_size // factor) * factor
        self.unet = DiffusionConditionalUnet1d(
            DiffusionConfig(
                horizon=self.padded_size,
                n_obs_steps=1,
                n_action_steps=1,
                down_dims=config.down_dims,
                kernel_size=config.kernel_size,
                n_groups=config.n_groups,
                diffusion_step_embed_dim=config.diffusion_step_embed_dim,
                use_film_scale_modulation=config.use_film_scale_modulation,
                pretrained_backbone_weights=None,
                output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(action_dim,))},
                device="cpu",
            ),
            global_cond_dim=condition_dim,
        )
        self.num_inference_steps = config.num_inference_steps or config.num_train_timesteps
        self.scheduler = SCHEDULERS[config.noise_scheduler_type](
            num_train_timesteps=config.num_train_timesteps,
            beta_schedule=config.beta_schedule,
            beta_start=config.beta_start,
            beta_end=config.beta_end,
            clip_sample=config.clip_sample,
            clip_sample_range=config.clip_sample_range,
            prediction_type=config.prediction_type,
        )

    def loss(self, actions: Float[Tensor, "b h a"], condition: Float[Tensor, "b g"]) -> Float[Tensor, "b h"]:
        """Squared error of the UNet's prediction for every chunk step, averaged over action dimensions."""
        chunk = self._padded(actions)
        noise = torch.randn_like(chunk)
        levels = self.scheduler.config["num_train_timesteps"]
        level = torch.randint(levels, (len(chunk),), device=chunk.device)
        noisy = self.scheduler.add_noise(chunk, noise, level)  # pyright: ignore[reportArgumentType]
        target = noise if self.scheduler.config["prediction_type"] == "epsilon" else chunk
        error = (self.unet(noisy, level, global_cond=condition) - target).square().mean(-1)
        return error[:, : self.chunk_size]

    def denoise(
        self, condition: Float[Tensor, "b g"], *, noise: Float[Tensor, "b h a"] | None = None
    ) -> Float[Tensor, "b h a"]:
        """Denoise a chunk of actions under `condition`, starting from `noise`, or from new noise if it is None."""
        shape = (len(condition), self.padded_size, self.action_dim)
        chunk = torch.randn(shape, device=condition.device) if noise is None else self._padded(noise)
        self.scheduler.set_timesteps(self.num_inference_steps)
        for level in self.scheduler.timesteps:
            at = torch.full(shape[:1], int(level), device=condition.device)
            predicted = self.unet(chunk, at, global_cond=condition)
            chunk = self.scheduler.step(predicted, int(level), chunk).prev_sample  # pyright: ignore[reportAttributeAccessIssue]
        return chunk[:, : self.chunk_size]

    def _padded(self, actions: Float[Tensor, "b h a"]) -> Float[Tensor, "b p a"]:
        """Pad a chunk to p steps by repeating its last step; padded steps are neither scored nor executed."""
        return torch.cat([actions, actions[:, -1:].expand(-1, self.padded_size - actions.shape[1], -1)], dim=1)
