"""Network that predicts the actions between the first and the last frame of a clip.

An inverse dynamics model (IDM), as in VPT (arXiv:2206.11795), sees the frames before and after an action. This is far
easier than choosing an action from one frame, so that few labelled episodes are enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

_GROUPS = 8
"""Groups of every group norm."""
_SMALLEST_SIDE = 4
"""Height and width to which the convolutions reduce a frame, roughly."""
_HIDDEN = 256
"""Width of the layers after the convolutions."""
_CHANGE_SCALE = 3.0
"""Factor of the differences between frames, which are much smaller than pixel values."""


class InverseDynamicsNetwork(nn.Module):
    """Convolutions over the frames of a clip and their differences, beside the encoder of a LAQ.

    Args:
        image_size: Height and width of the frames.
        num_frames: Frames of a clip.
        num_cameras: Cameras of a clip.
        chunk_steps: Actions between the first and the last frame.
        action_dim: Dimensions of an action.
        width: Channels of the first convolution; a multiple of 8.
        dropout: Share of the features that are dropped in training.
        encoder: Encoder of a LAQ, from clips to vectors (b, n, s, v), which is trained further; None for none.
        encoder_frames: Positions, among the frames of a clip, of those that `encoder` sees.
        encoder_width: Number of values that `encoder` gives for a clip, n * s * v.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        num_frames: int,
        num_cameras: int,
        chunk_steps: int,
        action_dim: int,
        width: int,
        dropout: float,
        encoder: nn.Module | None = None,
        encoder_frames: Sequence[int] = (),
        encoder_width: int = 0,
    ) -> None:
        super().__init__()
        self.chunk_steps, self.encoder_frames = chunk_steps, list(encoder_frames)
        channels = 3 * num_cameras * (2 * num_frames - 1)
        self.convolutions = nn.Sequential(*_convolutions(channels, width, halvings=_halvings(image_size)))
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, channels, *image_size)).shape[1]
        self.features = nn.Sequential(nn.Linear(flat, _HIDDEN), nn.GELU())
        self.encoder = encoder
        self.output = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(_HIDDEN + encoder_width, _HIDDEN),
            nn.GELU(),
            nn.Linear(_HIDDEN, chunk_steps * action_dim),
        )

    def forward(self, frames: Float[Tensor, "b t ..."]) -> Float[Tensor, "b h a"]:
        """Standardized actions of clips, whose frames are in about [0, 1] and end with the axes of rows and columns."""
        change = _CHANGE_SCALE * (frames[:, 1:] - frames[:, :-1])
        pictures = torch.cat([frames - 0.5, change], dim=1)
        # Convolutions of images this small are about 10 % faster on a CPU in this memory format.
        pictures = pictures.flatten(1, -3).contiguous(memory_format=torch.channels_last)
        features = self.features(self.convolutions(pictures))
        if self.encoder is not None:
            features = torch.cat([features, self.encoder(frames[:, self.encoder_frames]).flatten(1)], dim=1)
        return rearrange(self.output(features), "b (h a) -> b h a", h=self.chunk_steps)


def _halvings(image_size: tuple[int, int]) -> int:
    """Number of convolutions with stride 2 after the first one that bring a frame to about 4 x 4 pixels."""
    return max(round(math.log2(min(image_size) / _SMALLEST_SIDE)) - 1, 1)


def _convolutions(channels: int, width: int, *, halvings: int) -> list[nn.Module]:
    layers: list[nn.Module] = [*_normalized(nn.Conv2d(channels, width, 5, stride=2, padding=2), width)]
    for _ in range(halvings):
        wider = min(2 * width, 128) if width < 128 else width
        layers += _normalized(nn.Conv2d(width, wider, 3, stride=2, padding=1), wider)
        layers += _normalized(nn.Conv2d(wider, wider, 3, padding=1), wider)
        width = wider
    return [*layers, nn.Flatten()]


def _normalized(convolution: nn.Conv2d, width: int) -> list[nn.Module]:
    return [convolution, nn.GroupNorm(_GROUPS, width), nn.GELU()]
