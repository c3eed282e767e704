"""The encoder of the quantizer: from a clip to one vector for each code slot of each transition."""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from hlrp.laq.blocks import CrossAttention, FeedForward, PatchStem, SpaceTimeBlock
from hlrp.laq.config import LAQConfig


class TransitionEncoder(nn.Module):
    """Space-time transformer over patches, then cross-attention from one learned query per code slot.

    LAPA (arXiv:2410.11758) pools patches to a grid of slots, which ties a slot to a region of the frame. Here the query
    of each slot attends to the whole frame.
    """

    def __init__(self, config: LAQConfig) -> None:
        super().__init__()
        spec = config.spec
        self.stem = PatchStem(6, config.dim, config.patch_size, config.num_tokens, config.num_cameras)
        self.time = nn.Parameter(0.02 * torch.randn(spec.num_frames, 1, config.dim))
        self.blocks = nn.ModuleList(SpaceTimeBlock(config.dim, config.heads) for _ in range(config.encoder_layers))
        self.slots = nn.Parameter(0.02 * torch.randn(spec.code_seq_len, config.dim))
        self.read = CrossAttention(config.dim, config.heads)
        self.feed_forward = FeedForward(config.dim)
        self.to_code = nn.Sequential(nn.LayerNorm(config.dim), nn.Linear(config.dim, spec.code_dim))

    def forward(self, frames: Float[Tensor, "b t m c h w"]) -> Float[Tensor, "b n s v"]:
        """Encode clips, float32 in [0, 1], to the vectors that the quantizer takes."""
        b, t = frames.shape[:2]
        tokens = self.stem(rearrange(with_change(frames), "b t m c h w -> (b t) m c h w"))
        tokens = rearrange(tokens, "(b t) l d -> b t l d", b=b)
        tokens = tokens + self.time[:t]
        for block in self.blocks:
            tokens = block(tokens)
        # Slots attend to the change of each token, and to the tokens of the later frame, which show what has moved.
        change = torch.cat([tokens[:, 1:] - tokens[:, :-1], tokens[:, 1:]], dim=2)
        change = rearrange(change, "b n l d -> (b n) l d")
        slots = self.read(repeat(self.slots, "s d -> b s d", b=len(change)), change)
        slots = slots + self.feed_forward(slots)
        return rearrange(self.to_code(slots), "(b n) s v -> b n s v", b=b)


def with_change(frames: Float[Tensor, "b t m 3 h w"]) -> Float[Tensor, "b t m 6 h w"]:
    """Join, along the channels, each frame in [-1, 1] and its difference from the frame before (0 for the first frame).

    A motion of a few pixels is clear in the difference, but hardly survives in the patches of two separate frames.
    """
    change = torch.cat([torch.zeros_like(frames[:, :1]), frames[:, 1:] - frames[:, :-1]], dim=1)
    return torch.cat([2 * frames - 1, 4 * change], dim=3)  # 4: differences are much smaller than pixel values
