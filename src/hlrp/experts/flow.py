"""Action expert that denoises a chunk of actions by flow matching, with cross-attention to the observation.

Flow matching over action chunks, as in pi0 (arXiv:2410.24164) and SmolVLA (arXiv:2506.01844); see `hlrp.flow_matching`.
Keys and values of the observation are computed once and reused in every denoising step.

LeRobot reads the types of the option fields, so this file must not use `from __future__ import annotations`.

Shapes: heads attention heads of width head_dim.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hlrp.experts.interface import ActionExpert, ExpertSizes, ObservationTokens
from hlrp.flow_matching import Guide, integrate, path_point, waves
from hlrp.runtime.checks import require_numbers
from hlrp.runtime.size_limits import MOST_LAYERS, WIDEST_LAYER

KeysValues = tuple[Float[Tensor, "b heads l head_dim"], Float[Tensor, "b heads l head_dim"]]


@dataclass
class FlowOptions:
    """Size of a `FlowExpert`."""

    expert_width: int = 128
    """Width of the flow expert's tokens."""
    expert_layers: int = 3
    """Transformer layers of the flow expert."""
    expert_heads: int = 4
    """Attention heads of the flow expert; twice their number must divide expert_width."""


class FlowBlock(nn.Module):
    """Self-attention over the chunk, cross-attention to the observation, and an MLP, all modulated by the condition."""

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

    def keys_values(self, context: Float[Tensor, "b l d"]) -> KeysValues:
        """Keys and values of the observation's tokens for cross-attention."""
        k, v = rearrange(
            self.kv(context), "b l (two heads head_dim) -> two b heads l head_dim", two=2, heads=self.heads
        )
        return k, v

    def forward(
        self,
        tokens: Float[Tensor, "b h d"],
        condition: Float[Tensor, "b d"],
        keys_values: KeysValues,
        mask: Bool[Tensor, "b l"],
    ) -> Float[Tensor, "b h d"]:
        """Self-attention over the chunk, cross-attention to the observation, then the MLP."""
        shift, scale, gate = rearrange(
            self.modulation(F.silu(condition)), "b (part three d) -> part three b 1 d", part=3, three=3
        )

        def modulated(part: int) -> Float[Tensor, "b h d"]:
            return self.norms[part](tokens) * (1 + scale[part]) + shift[part]

        q, k, v = self._by_head(self.qkv(modulated(0)), parts=3)
        mixed = rearrange(F.scaled_dot_product_attention(q, k, v), "b heads h head_dim -> b h (heads head_dim)")
        tokens = tokens + (1 + gate[0]) * self.mixed(mixed)
        (q,) = self._by_head(self.q(modulated(1)), parts=1)
        read = F.scaled_dot_product_attention(q, *keys_values, attn_mask=mask[:, None, None])
        tokens = tokens + (1 + gate[1]) * self.read(rearrange(read, "b heads h head_dim -> b h (heads head_dim)"))
        return tokens + (1 + gate[2]) * self.feed_forward(modulated(2))

    def _by_head(self, x: Float[Tensor, "b l _"], *, parts: int) -> Float[Tensor, "parts b heads l head_dim"]:
        pattern = "b l (parts heads head_dim) -> parts b heads l head_dim"
        return rearrange(x, pattern, parts=parts, heads=self.heads)


class CodeTokens(nn.Module):
    """Code vectors, projected without normalization, plus a learned vector for each position in the label.

    Attention has no order of its own, and slots or transitions may share their code vectors. A layer norm would make
    codes equal that differ only in the length of their vectors, as those of FSQ on one axis.
    """

    def __init__(self, num_codes: int, code_dim: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(code_dim, width, bias=False)
        self.positions = nn.Parameter(0.02 * torch.randn(num_codes, width))

    def forward(self, codes: Float[Tensor, "b q v"]) -> Float[Tensor, "b q d"]:
        """One token per code of a label."""
        return self.project(codes) + self.positions


@dataclass(frozen=True)
class Prefix:
    """Observation as used in every denoising step: keys and values of each block, embedded state, token mask."""

    keys_values: list[KeysValues]
    state: Float[Tensor, "b d"] | None
    mask: Bool[Tensor, "b l"]

    def repeated(self, times: int) -> "Prefix":
        """Every sample `times` times in a row."""
        keys_values = [(k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.keys_values]
        state = None if self.state is None else self.state.repeat_interleave(times, 0)
        return Prefix(keys_values, state, self.mask.repeat_interleave(times, 0))


class FlowExpert(ActionExpert):
    """Transformer over the steps of a chunk; every block cross-attends to the tokens of observation and codes."""

    supports_rtc = True
    shaping_options = ("expert_width", "expert_layers", "expert_heads")
    block_names = ("FlowBlock",)

    def __init__(self, options: FlowOptions, sizes: ExpertSizes, *, num_inference_steps: int | None) -> None:
        super().__init__(options, sizes, num_inference_steps=num_inference_steps)
        assert num_inference_steps is not None, "refused by `check`"
        self.num_inference_steps = num_inference_steps
        d, token_dim = options.expert_width, sizes.feature_dim + sizes.code_dim
        self.from_features = nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, d))
        self.from_state = None if sizes.state_dim is None else nn.Linear(sizes.state_dim, d)
        self.from_action = nn.Linear(sizes.action_dim, d)
        self.steps = nn.Parameter(0.02 * torch.randn(sizes.chunk_size, d))
        self.from_time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.blocks = nn.ModuleList(FlowBlock(d, options.expert_heads) for _ in range(options.expert_layers))
        self.norm = nn.LayerNorm(d)
        self.to_velocity = nn.Linear(d, sizes.action_dim)
        # The initial prediction is 0 everywhere, as usual for diffusion transformers (arXiv:2212.09748).
        nn.init.zeros_(self.to_velocity.weight)
        nn.init.zeros_(self.to_velocity.bias)
        # Added to what `from_features` makes of the codes. None without codes, and in policies of earlier versions.
        self.from_codes = CodeTokens(sizes.num_codes, sizes.code_dim, d) if sizes.num_codes else None

    @classmethod
    def check(cls, options: FlowOptions, *, num_inference_steps: int | None, largest_action: float) -> None:
        require_numbers(options, "expert_width", "expert_heads", at_least=1, limit=WIDEST_LAYER)
        require_numbers(options, "expert_layers", at_least=1, limit=MOST_LAYERS)
        if options.expert_width % (2 * options.expert_heads):
            raise ValueError(
                "expert_width must be a multiple of twice expert_heads, got "
                f"expert_width={options.expert_width} and expert_heads={options.expert_heads}"
            )
        if num_inference_steps is None:
            raise ValueError("num_inference_steps must be a number for the flow expert, got None")

    def prefix(
        self,
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        state: Float[Tensor, "b r"] | None,
    ) -> Prefix:
        """Precompute what denoising needs of observation, codes and state."""
        tokens, mask = _tokens(observation, codes)
        context = self.from_features(tokens.to(self.steps.dtype))
        if codes is not None and self.from_codes is not None:
            before = context.shape[1] - codes.shape[1]  # the code tokens follow those of the observation
            context = context + F.pad(self.from_codes(codes.to(self.steps.dtype)), (0, 0, before, 0))
        state_features = None
        if self.from_state is not None:
            assert state is not None, "this expert was built with a state"
            state_features = self.from_state(state.to(self.steps.dtype))
        return Prefix([block.keys_values(context) for block in self._blocks()], state_features, mask)

    def velocity(
        self, noisy: Float[Tensor, "b h a"], time: Float[Tensor, " b"], prefix: Prefix
    ) -> Float[Tensor, "b h a"]:
        """Predicted velocity, noise - actions, of chunks at `time` in [0, 1]: 1 is noise, 0 is actions."""
        tokens = self.from_action(noisy) + self.steps
        condition = self.from_time(_time_features(time, self.steps.shape[1]).to(noisy.dtype))
        if prefix.state is not None:
            condition = condition + prefix.state
        for block, keys_values in zip(self._blocks(), prefix.keys_values, strict=True):
            tokens = block(tokens, condition, keys_values, prefix.mask)
        return self.to_velocity(self.norm(tokens))

    def loss(
        self,
        actions: Float[Tensor, "b h a"],
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        state: Float[Tensor, "b r"] | None,
        *,
        draws: int = 1,
    ) -> Float[Tensor, "b h"]:
        """Squared error of the velocity for every chunk step, averaged over action dimensions and noise draws."""
        prefix = self.prefix(observation, codes, state).repeated(draws)
        actions = actions.repeat_interleave(draws, 0)
        time = early_times(len(actions), device=actions.device)
        noise = torch.randn_like(actions)
        predicted = self.velocity(path_point(actions, noise, time), time, prefix)
        return reduce((predicted - (noise - actions)).square(), "(b draws) h a -> b h", "mean", draws=draws)

    def act(
        self,
        observation: ObservationTokens,
        codes: Float[Tensor, "b q v"] | None,
        state: Float[Tensor, "b r"] | None,
        *,
        noise: Float[Tensor, "b h a"] | None = None,
        guide: Guide | None = None,
    ) -> Float[Tensor, "b h a"]:
        prefix = self.prefix(observation, codes, state)
        if noise is None:
            shape = (len(observation.features), self.sizes.chunk_size, self.sizes.action_dim)
            noise = torch.randn(shape, device=observation.features.device)

        def velocity(chunk: Float[Tensor, "b h a"], time: float) -> Float[Tensor, "b h a"]:
            return self.velocity(chunk, chunk.new_full((len(chunk),), time), prefix)

        return integrate(velocity, noise, steps=self.num_inference_steps, guide=guide)

    def _blocks(self) -> list[FlowBlock]:
        return [block for block in self.blocks if isinstance(block, FlowBlock)]


def _tokens(
    observation: ObservationTokens, codes: Float[Tensor, "b q v"] | None
) -> tuple[Float[Tensor, "b l d"], Bool[Tensor, "b l"]]:
    """Tokens of the observation and of the codes, and their mask.

    Zero padding gives features and code vectors separate channels, so that one projection serves both.
    """
    features, mask = observation.features, observation.mask
    if mask is None:
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    if codes is None:
        return features, mask
    tokens = torch.cat([F.pad(features, (0, codes.shape[-1])), F.pad(codes, (features.shape[-1], 0))], dim=1)
    return tokens, torch.cat([mask, mask.new_ones(codes.shape[:2])], dim=1)


def early_times(num: int, *, device: torch.device) -> Float[Tensor, " b"]:
    """Training times in [0.001, 1], sampled from Beta(1.5, 1) as in pi0: noisy chunks (times near 1) are likelier."""
    return 0.001 + 0.999 * torch.rand(num, device=device).pow(1 / 1.5)


def _time_features(time: Float[Tensor, " b"], width: int) -> Float[Tensor, "b d"]:
    """Sine and cosine features of the time, with periods from 0.004 to 4, as in pi0."""
    fraction = torch.linspace(0, 1, width // 2, device=time.device)
    return waves(time, 2 * math.pi / (0.004 * (4 / 0.004) ** fraction))
