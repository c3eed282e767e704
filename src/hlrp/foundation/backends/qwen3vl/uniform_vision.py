"""The stock Qwen3-VL vision tower without its per-image Python loops, for batches of equally sized images.

The stock tower interpolates position embeddings, builds rotary tables and runs attention one image at a time.
Here all images have one size: the tables are made for one image and repeated, and attention runs once over the batch.
The patch embedding is a convolution whose stride equals its kernel, so it is computed as a matrix product. Weights,
state-dict names and outputs are those of the stock model.

Shapes: n images, g patches of one image, r = n*g rows, h heads, d width, p numbers a patch, m = n+1 bounds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLVisionAttention,
    Qwen3VLVisionModel,
    Qwen3VLVisionPatchEmbed,
    eager_attention_forward,
)
from transformers.utils.generic import is_flash_attention_requested


class UniformVisionModel(Qwen3VLVisionModel):
    """Vision tower that computes the position tables of the first image and repeats them for the others."""

    def rot_pos_emb(self, grid_thw: Int[Tensor, "n 3"]) -> Float[Tensor, "r d"]:
        return super().rot_pos_emb(grid_thw[:1]).repeat(len(grid_thw), 1)

    def fast_pos_embed_interpolate(self, grid_thw: Int[Tensor, "n 3"]) -> Float[Tensor, "r d"]:
        return super().fast_pos_embed_interpolate(grid_thw[:1]).repeat(len(grid_thw), 1)


class UniformVisionAttention(Qwen3VLVisionAttention):
    """Attention within each image, computed in one call for the whole batch."""

    def forward(
        self,
        hidden_states: Float[Tensor, "r d"],
        cu_seqlens: Int[Tensor, " m"],
        rotary_pos_emb: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: object,
    ) -> Float[Tensor, "r d"]:
        """Attend as the stock layer does; `cu_seqlens` holds the n+1 bounds of the images, all of one length."""
        if is_flash_attention_requested(self.config):
            cu_seqlens = cu_seqlens.to(hidden_states.device)
            return super().forward(hidden_states, cu_seqlens, rotary_pos_emb, position_embeddings, **kwargs)
        assert position_embeddings is not None
        num_images = len(cu_seqlens) - 1
        query, key, value = rearrange(
            self.qkv(hidden_states),
            "(n g) (three h d) -> three n h g d",
            n=num_images,
            three=3,
            h=self.num_heads,
        ).unbind(0)
        # All images have the same rotary angles, and the two halves of a head share them: one copy is enough.
        cos, sin = (table[: query.shape[2], : query.shape[3] // 2] for table in position_embeddings)
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation or "eager", eager_attention_forward
        )
        output, _ = attend(
            self,
            query,
            key,
            value,
            attention_mask=None,
            scaling=self.scaling,
            dropout=0.0,
            is_causal=False,
            **kwargs,
        )
        return self.proj(rearrange(output, "n g h d -> (n g) (h d)"))


class LinearPatchEmbed(Qwen3VLVisionPatchEmbed):
    """Patch embedding as a matrix product with the convolution's own weight."""

    def forward(self, hidden_states: Float[Tensor, "r p"]) -> Float[Tensor, "r d"]:
        weight = self.proj.weight.flatten(1)
        return F.linear(hidden_states.to(weight.dtype), weight, self.proj.bias)


def _rotate(
    x: Float[Tensor, "n h g d"], cos: Float[Tensor, "g half"], sin: Float[Tensor, "g half"]
) -> Float[Tensor, "n h g d"]:
    """Rotary position embedding, computed in float32.

    `chunk` is used instead of slices: the gradient of a slice would allocate a zero-padded tensor for each half.
    """
    first, second = x.float().chunk(2, dim=-1)
    cos, sin = cos.float(), sin.float()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def use_uniform_vision(visual: Qwen3VLVisionModel) -> None:
    """Turn a stock vision tower, in place, into one for batches of equally sized images.

    Only the methods change. Parameters, buffers and state-dict names stay the same.
    """
    visual.__class__ = UniformVisionModel
    visual.patch_embed.__class__ = LinearPatchEmbed
    for block in visual.blocks:
        block.get_submodule("attn").__class__ = UniformVisionAttention
