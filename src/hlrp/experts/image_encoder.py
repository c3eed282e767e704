"""The image encoder of an action expert: a ResNet whose features are summed up as points in the picture.

As in diffusion policy (arXiv:2303.04137): group instead of batch norm, and LeRobot's SpatialSoftmax on top. Of pictures
under 128 pixels the last two stages would leave so few places that points say little, so they are left out there.

Shapes: b batch, h w pixels, q features.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from lerobot.policies.diffusion.modeling_diffusion import SpatialSoftmax
from torch import Tensor, nn
from torchvision.models import get_model

_SMALL = 128
"""Pixels of the shorter side below which a picture is small."""


class Eyes(nn.Module):
    """Where things are in a picture.

    Args:
        backbone: A ResNet of torchvision; trained from scratch.
        image_size: Height and width of the pictures, in pixels.
        keypoints: Points that are reported, two features each.

    Raises:
        ValueError: If there is no such ResNet, or pictures are too small to have places.
    """

    def __init__(self, backbone: str, image_size: tuple[int, int], *, keypoints: int) -> None:
        super().__init__()
        if not backbone.startswith("resnet"):
            raise ValueError(f"vision_backbone must be a ResNet of torchvision, such as resnet18, got {backbone!r}")
        network = get_model(backbone, weights=None, norm_layer=lambda width: nn.GroupNorm(width // 16, width))
        stages = list(network.children())[: -4 if min(image_size) < _SMALL else -2]  # without pooling and classifier
        self.backbone = nn.Sequential(*stages)
        with torch.no_grad():
            places = self.backbone(torch.zeros(1, 3, *image_size)).shape[1:]
        if places[1] * places[2] < 16:
            raise ValueError(f"expert_image_size must be at least 32 x 32, got {image_size[0]} x {image_size[1]}")
        self.pool = SpatialSoftmax(tuple(places), num_kp=keypoints)
        self.feature_dim = 2 * keypoints
        self.out = nn.Linear(self.feature_dim, self.feature_dim)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b q"]:
        """Features of pictures given as float32 in [0, 1]."""
        points = self.pool(self.backbone(2 * images - 1))
        return self.out(points.flatten(1)).relu()
