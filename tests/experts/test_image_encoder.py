from __future__ import annotations

import pytest
import torch

from hlrp.experts.image_encoder import ImageEncoder


@pytest.mark.parametrize("size", [32, 64])
def test_a_thing_that_moves_changes_the_features(size: int) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder("resnet18", (size, size), keypoints=8).eval()
    image = torch.zeros(1, 3, size, size)
    image[..., : size // 4, : size // 4] = 1
    features = encoder(image)
    assert features.shape == (1, 16)
    assert not torch.allclose(features, encoder(image.flip(-1)), atol=1e-5)


def test_pictures_without_places_and_unknown_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 x 32, got 16 x 16"):
        ImageEncoder("resnet18", (16, 16), keypoints=8)
    with pytest.raises(ValueError, match="must be a ResNet of torchvision"):
        ImageEncoder("vit_b_16", (64, 64), keypoints=8)
