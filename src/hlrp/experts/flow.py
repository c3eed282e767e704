"""Action head that denoises a chunk of actions by flow matching, with cross-attention to a VLM's features.

Flow matching (arXiv:2210.02747) over action chunks, as in pi0 (arXiv:2410.24164) and SmolVLA (arXiv:2506.01844): time
runs from 1 (noise) to 0 (actions), x_t = t * noise + (1 - t) * actions, and the network learns the velocity noise -
actions. Keys and values of the features are computed once and reused in every denoising step.

Shapes: b batch, h chunk steps, a action dimensions, r state values, l feature tokens, f feature width, d width,
n heads, e width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

Velocity = Callable[[Float[Tensor, "b h a"], float], Float[Tensor, "b h a"]]
"""Function (noisy chunk, time in [0, 1]) -> velocity of the chunk."""


@dataclass(frozen=True, kw_only=True)
class FlowExpertConfig:
    """Size of a `FlowExpert`."""

    width: int = 128
    """Width of the expert's tokens."""
    layers: int = 3
    """Transformer blocks."""
    heads: int = 4
    """Attention heads; twice their number must divide the width."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads) < 1 or self.width % (2 * self.heads):
            raise ValueError(
                "an expert needs layers and heads of 1 or more and a width that is a multiple of twice the heads, got "
                f"{self.layers}, {self.heads} and {self.width}"
            )


@dataclass(frozen=True)
class Prefix:
    """Observation as used in every denoising step: keys and values of each block, embedded state, token mask."""

    keys_values: list[tuple[Float[Tensor, "b n l e"], Float[Tensor, "b n l e"]]]
    state: Float[Tensor, "b d"] | None
    mask: Bool[Tensor, "b l"]


class FlowExpert(nn.Module):
    """Transformer over the steps of a chunk; every block cross-attends to the VLM's features."""

    def __init__(
        self,
        config: FlowExpertConfig,
        *,
        feature_dim: int,
        chunk_size: int,
        action_dim: int,
        state_dim: int | None,
    ) -> None:
        super().__init__()
        d = config.width
        self.chunk_size, self.action_dim, self.state_dim = chunk_size, action_dim, state_dim
        self.from_features = nn.Sequential(nn.LayerNorm(feature_dim), nn.Linear(feature_dim, d))
        self.from_state = None if state_dim is None else nn.Linear(state_dim, d)
        self.from_action = nn.Linear(action_dim, d)
        self.steps = nn.Parameter(0.02 * torch.randn(chunk_size, d))
        self.from_time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.blocks = nn.ModuleList(FlowBlock(d, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(d)
        self.to_velocity = nn.Linear(d, action_dim)
        # The initial prediction is 0 everywhere, as usual for diffusion transformers (arXiv:2212.09748).
        nn.init.zeros_(self.to_velocity.weight)
        nn.init.zeros_(self.to_velocity.bias)

    def prefix(
        self, features: Float[Tensor, "b l f"], mask: Bool[Tensor, "b l"], state: Float[Tensor, "b r"] | None
    ) -> Prefix:
        """Precompute what denoising needs of an observation; `state` is normalized, None if the expert has no state."""
        context = self.from_features(features.to(self.steps.dtype))
        if self.from_state is None:
            known = None
        else:
            assert state is not None, "this expert was built with a state"
            known = self.from_state(state.to(self.steps.dtype))
        return Prefix([block.keys_values(context) for block in self._blocks()], known, mask)

    def velocity(
        self, noisy: Float[Tensor, "b h a"], time: Float[Tensor, " b"], prefix: Prefix
    ) -> Float[Tensor, "b h a"]:
        """Predicted velocity, noise - actions, of chunks at `time` in [0, 1]: 1 is noise, 0 is actions."""
        tokens = self.from_action(noisy) + self.steps
        condition = self.from_time(_waves(time, self.steps.shape[1]).to(noisy.dtype))
        if prefix.state is not None:
            condition = condition + prefix.state
        for block, keys_values in zip(self._blocks(), prefix.keys_values, strict=True):
            tokens = block(tokens, condition, keys_values, prefix.mask)
        return self.to_velocity(self.norm(tokens))

    def loss(
        self,
        actions: Float[Tensor, "b h a"],
        prefix: Prefix,
        *,
        noise: Float[Tensor, "b h a"],
        time: Float[Tensor, " b"],
    ) -> Float[Tensor, "b h"]:
        """Squared error of the velocity for every chunk step, averaged over action dimensions."""
        t = time[:, None, None]
        predicted = self.velocity(t * noise + (1 - t) * actions, time, prefix)
        return (predicted - (noise - actions)).square().mean(-1)

    def denoise(
        self,
        noise: Float[Tensor, "b h a"],
        prefix: Prefix,
        *,
        steps: int,
        guide: Callable[[Float[Tensor, "b h a"], float, Velocity], Float[Tensor, "b h a"]] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Integrate noise to actions in `steps` Euler steps; `guide(chunk, time, velocity)` may correct velocities."""
        chunk = noise

        def plain(chunk: Float[Tensor, "b h a"], time: float) -> Float[Tensor, "b h a"]:
            return self.velocity(chunk, chunk.new_full((len(chunk),), time), prefix)

        for step in range(steps):
            time = 1 - step / steps
            velocity = plain(chunk, time) if guide is None else guide(chunk, time, plain)
            chunk = chunk - velocity / steps
        return chunk

    def _blocks(self) -> list[FlowBlock]:
        return [block for block in self.blocks if isinstance(block, FlowBlock)]


class FlowBlock(nn.Module):
    """Self-attention over the chunk, cross-attention to the features, and an MLP, all modulated by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(3))
        self.modulation = nn.Linear(width, 9 * width)
        self.qkv, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q, self.kv, self.read = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        # Shift, scale and gate start at 0. Branches are gated by 1 + gate, so they are active from the first step.
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def keys_values(self, context: Float[Tensor, "b l d"]) -> tuple[Float[Tensor, "b n l e"], Float[Tensor, "b n l e"]]:
        """Keys and values of the features for cross-attention."""
        k, v = rearrange(self.kv(context), "b l (two n e) -> two b n l e", two=2, n=self.heads)
        return k, v

    def forward(
        self,
        tokens: Float[Tensor, "b h d"],
        condition: Float[Tensor, "b d"],
        keys_values: tuple[Float[Tensor, "b n l e"], Float[Tensor, "b n l e"]],
        mask: Bool[Tensor, "b l"],
    ) -> Float[Tensor, "b h d"]:
        """Self-attention over the chunk, cross-attention to the VLM's features, then the MLP."""
        shift, scale, gate = rearrange(
            self.modulation(F.silu(condition)), "b (part three d) -> part three b 1 d", part=3, three=3
        )

        def shown(part: int) -> Float[Tensor, "b h d"]:
            return self.norms[part](tokens) * (1 + scale[part]) + shift[part]

        q, k, v = rearrange(self.qkv(shown(0)), "b h (three n e) -> three b n h e", three=3, n=self.heads)
        mixed = rearrange(F.scaled_dot_product_attention(q, k, v), "b n h e -> b h (n e)")
        tokens = tokens + (1 + gate[0]) * self.mixed(mixed)
        q = rearrange(self.q(shown(1)), "b h (n e) -> b n h e", n=self.heads)
        read = F.scaled_dot_product_attention(q, *keys_values, attn_mask=mask[:, None, None])
        tokens = tokens + (1 + gate[1]) * self.read(rearrange(read, "b n h e -> b h (n e)"))
        return tokens + (1 + gate[2]) * self.feed_forward(shown(2))


def early_times(num: int, *, device: torch.device) -> Float[Tensor, " b"]:
    """Training times in [0.001, 1], drawn from Beta(1.5, 1) as in pi0, which prefers noisy chunks (times near 1)."""
    return 0.001 + 0.999 * torch.rand(num, device=device).pow(1 / 1.5)


def _waves(time: Float[Tensor, " b"], width: int) -> Float[Tensor, "b d"]:
    """Sine and cosine features of the time, with periods from 0.004 to 4, as in pi0."""
    fraction = torch.linspace(0, 1, width // 2, device=time.device)
    angle = time.float()[:, None] * (2 * math.pi / (0.004 * (4 / 0.004) ** fraction))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
