"""From camera images to the normalized input of a vision tower, with tensor operations on the images' device."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hlrp.foundation.augment import random_shift
from hlrp.pixels import resize
from hlrp.training.row_draws import RowDraws


def vlm_images(
    images: Float[Tensor, "b m c h w"], size: tuple[int, int], *, max_shift: int = 0, draws: RowDraws | None = None
) -> Float[Tensor, "b*m c height width"]:
    """Images of all cameras at the VLM's input size.

    They are resized by `hlrp.pixels.resize`, as the dataset's frames are for stage 2, and shifted afterwards, so that a
    frame gives the same pixels and the same augmentation at any camera resolution.

    Args:
        images: RGB, float in [0, 1], any size.
        size: Height and width of the VLM's input, in pixels.
        max_shift: Largest random shift along each axis, in pixels; 0 outside training.
        draws: Random numbers of the rows of the batch, for the shift.
    """
    resized = resize(rearrange(images, "b m c h w -> (b m) c h w"), size)
    return resized if draws is None else random_shift(resized, max_shift, draws=draws)


def normalize(
    images: Float[Tensor, "b c h w"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "b c h w"]:
    """Subtract the colour mean and divide by the standard deviation of each channel; images are float in [0, 1]."""
    shift, scale = images.new_tensor([mean, std])[:, :, None, None]
    return (images - shift) / scale
