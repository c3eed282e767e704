"""Image encoder of an action expert: a ResNet whose feature maps are reduced to keypoint coordinates.

As in diffusion policy (arXiv:2303.04137), group norm replaces batch norm, and LeRobot's SpatialSoftmax follows. For
images under 128 pixels, the last two ResNet stages are left out, because their feature maps have too few positions for
keypoints.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from lerobot.policies.diffusion.modeling_diffusion import SpatialSoftmax
from torch import Tensor, nn
from torchvision.models import get_model

_SMALL = 128
"""Shorter side in pixels below which the last two ResNet stages are left out."""


class ImageEncoder(nn.Module):
    """ResNet image encoder with spatial softmax.

    Args:
        backbone: Name of a ResNet of torchvision; trained from scratch.
        image_size: Height and width of the images, in pixels.
        keypoints: Number of keypoints; each has two coordinates, so d = 2 * keypoints.

    Raises:
        ValueError: If there is no such ResNet, or its feature map has fewer than 16 positions at this image size.
    """

    def __init__(self, backbone: str, image_size: tuple[int, int], *, keypoints: int) -> None:
        super().__init__()
        if not backbone.startswith("resnet"):
            raise ValueError(f"vision_backbone must be a ResNet of torchvision, such as resnet18, got {backbone!r}")
        network = get_model(backbone, weights=None, norm_layer=lambda width: nn.GroupNorm(width // 16, width))
        # The last two children are pooling and classifier.
        stages = list(network.children())[: -4 if min(image_size) < _SMALL else -2]
        self.backbone = nn.Sequential(*stages)
        with torch.no_grad():
            positions = self.backbone(torch.zeros(1, 3, *image_size)).shape[1:]
        if positions[1] * positions[2] < 16:
            raise ValueError(f"expert_image_size must be at least 32 x 32, got {image_size[0]} x {image_size[1]}")
        self.pool = SpatialSoftmax(tuple(positions), num_kp=keypoints)
        self.feature_dim = 2 * keypoints
        self.out = nn.Linear(self.feature_dim, self.feature_dim)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Features of RGB images, float32 in [0, 1]."""
        # Convolutions of images this small are about 10 % faster on a CPU in this memory format.
        images = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        points = self.pool(self.backbone(images))
        return self.out(points.flatten(1)).relu()
