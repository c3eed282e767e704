"""Action expert that denoises a chunk of actions with LeRobot's conditional UNet (diffusion policy, arXiv:2303.04137).

The UNet is LeRobot's, FiLM-conditioned on one vector. This expert adds chunks of any length, by padding.

LeRobot reads the types of the option fields, so this file must not use `from __future__ import annotations`.

Shapes: p chunk steps padded to a multiple of the UNet's downsampling, g width of the condition vector.
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from hlrp.experts.interface import ActionExpert, ExpertSizes, ObservationTokens
from hlrp.flow_matching import Guide
from hlrp.runtime.checks import require_numbers, require_one_of
from hlrp.runtime.extras import require_packages
from hlrp.runtime.size_limits import WIDEST_LAYER

NOISE_SCHEDULERS = ("DDPM", "DDIM")


@dataclass
class DiffusionOptions:
    """Size and noise schedule of a `DiffusionExpert`."""

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


class DiffusionExpert(ActionExpert):
    """Diffusion model of action chunks, conditioned on all features, code vectors and state values as one vector."""

    shaping_options = (
        "down_dims",
        "kernel_size",
        "n_groups",
        "diffusion_step_embed_dim",
        "use_film_scale_modulation",
    )
    block_names = ("DiffusionConditionalResidualBlock1d",)

    def __init__(self, options: DiffusionOptions, sizes: ExpertSizes, *, num_inference_steps: int | None) -> None:
        super().__init__(options, sizes, num_inference_steps=num_inference_steps)
        require_packages("diffusers", needed_for="the diffusion expert")
        if sizes.num_tokens is None:
            raise ValueError("the diffusion expert needs a fixed number of observation tokens")
        factor = 2 ** len(options.down_dims)  # LeRobot's UNet requires a horizon that this factor divides
        self.padded_size = -(-sizes.chunk_size // factor) * factor
        width = sizes.num_tokens * sizes.feature_dim + sizes.num_codes * sizes.code_dim + (sizes.state_dim or 0)
        self.unet = _unet(options, horizon=self.padded_size, action_dim=sizes.action_dim, condition_dim=width)
        self.num_inference_steps = num_inference_steps or options.num_train_timesteps
        self.scheduler = _scheduler(options)

    @classmethod
    def check(cls, options: DiffusionOptions, *, num_inference_steps: int | None, largest_action: float) -> None:
        require_one_of("noise_scheduler_type", options.noise_scheduler_type, NOISE_SCHEDULERS)
        require_one_of("prediction_type", options.prediction_type, ("sample", "epsilon"))
        require_numbers(options, "clip_sample_range", "beta_start", "beta_end", above=0)
        require_numbers(
            options,
            "down_dims",
            "kernel_size",
            "n_groups",
            "diffusion_step_embed_dim",
            "num_train_timesteps",
            at_least=1,
            limit=WIDEST_LAYER,
        )
        if num_inference_steps is not None and not 1 <= num_inference_steps <= options.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps must be between 1 and num_train_timesteps {options.num_train_timesteps}, got "
                f"{num_inference_steps}"
            )
        if not options.down_dims or any(width % options.n_groups for width in options.down_dims):
            raise ValueError(f"down_dims must be multiples of n_groups {options.n_groups}, got {options.down_dims}")
        if options.clip_sample and largest_action > options.clip_sample_range:
            raise ValueError(
                f"the diffusion expert clips actions to ±{options.clip_sample_range:g}, and normalized actions reach "
                f"±{largest_action:.3g}; normalize ACTION by MIN_MAX with a clip_sample_range of 1 or more, or set "
                "--policy.clip_sample=false"
            )

    def loss(
        self,
        actions: Float[Tensor, "b h a"],
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        state: Float[Tensor, "b r"] | None,
        *,
        draws: int = 1,
    ) -> Float[Tensor, "b h"]:
        """Squared error of the UNet's prediction for every chunk step, averaged over action dimensions and draws."""
        chunk = self._padded(actions).repeat_interleave(draws, 0)
        noise = torch.randn_like(chunk)
        levels = self.scheduler.config["num_train_timesteps"]
        level = torch.randint(levels, (len(chunk),), device=chunk.device)
        noisy = self.scheduler.add_noise(chunk, noise, level)
        target = noise if self.scheduler.config["prediction_type"] == "epsilon" else chunk
        condition = _condition(observation, codes, state).repeat_interleave(draws, 0)
        error = (self.unet(noisy, level, global_cond=condition) - target).square()
        return reduce(error, "(b draws) p a -> b p", "mean", draws=draws)[:, : self.sizes.chunk_size]

    def act(
        self,
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        state: Float[Tensor, "b r"] | None,
        *,
        noise: Float[Tensor, "b h a"] | None = None,
        guide: Guide | None = None,
    ) -> Float[Tensor, "b h a"]:
        assert guide is None, "the diffusion expert does not support real-time chunking"
        condition = _condition(observation, codes, state)
        shape = (len(condition), self.padded_size, self.sizes.action_dim)
        chunk = torch.randn(shape, device=condition.device) if noise is None else self._padded(noise)
        self.scheduler.set_timesteps(self.num_inference_steps)
        for level in self.scheduler.timesteps:
            at = torch.full(shape[:1], int(level), device=condition.device)
            predicted = self.unet(chunk, at, global_cond=condition)
            chunk = self.scheduler.step(predicted, int(level), chunk).prev_sample
        return chunk[:, : self.sizes.chunk_size]

    def _padded(self, actions: Float[Tensor, "b h a"]) -> Float[Tensor, "b p a"]:
        """Pad a chunk to p steps by repeating its last step; padded steps are neither scored nor executed."""
        return torch.cat([actions, actions[:, -1:].expand(-1, self.padded_size - actions.shape[1], -1)], dim=1)


def _condition(
    observation: ObservationTokens, codes: Float[Tensor, "b q v"] | None, state: Float[Tensor, "b r"] | None
) -> Float[Tensor, "b g"]:
    """All inputs as one vector."""
    assert observation.mask is None, "the condition vector has no place for padding"
    parts = (observation.features, codes, state)
    return torch.cat([part.flatten(1) for part in parts if part is not None], dim=1)


def _unet(options: DiffusionOptions, *, horizon: int, action_dim: int, condition_dim: int) -> nn.Module:
    # Imported here, because every LeRobot command imports this file, and these modules are slow to import.
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionConditionalUnet1d

    config = DiffusionConfig(
        horizon=horizon,
        n_obs_steps=1,
        n_action_steps=1,
        down_dims=options.down_dims,
        kernel_size=options.kernel_size,
        n_groups=options.n_groups,
        diffusion_step_embed_dim=options.diffusion_step_embed_dim,
        use_film_scale_modulation=options.use_film_scale_modulation,
        pretrained_backbone_weights=None,
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(action_dim,))},
        device="cpu",
    )
    return DiffusionConditionalUnet1d(config, global_cond_dim=condition_dim)


def _scheduler(options: DiffusionOptions) -> Any:
    """Noise scheduler of diffusers, which has no common type with usable annotations."""
    import diffusers  # imported here: it is slow, and other experts do not need it

    return getattr(diffusers, f"{options.noise_scheduler_type}Scheduler")(
        num_train_timesteps=options.num_train_timesteps,
        beta_schedule=options.beta_schedule,
        beta_start=options.beta_start,
        beta_end=options.beta_end,
        clip_sample=options.clip_sample,
        clip_sample_range=options.clip_sample_range,
        prediction_type=options.prediction_type,
    )
