"""Colours of codes, and codes over time as a picture with one pixel for each code.

Codes are names without an order, so neighbouring numbers get colours that differ.

Shapes: q codes of a frame.
"""

from __future__ import annotations

import colorsys
from io import BytesIO

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageColor
from torch import Tensor

from hlrp.latents import NO_LABEL
from hlrp.report.plots.style import PALETTE

_GOLDEN_ANGLE = 0.381966
"""Turn of the hue from a code to the next one, which keeps all hues apart whatever their number."""


def code_colours(codebook_size: int) -> list[str]:
    """Colour of every code, as #rrggbb."""
    if codebook_size <= len(PALETTE):
        return list(PALETTE[:codebook_size])
    turns = [(code * _GOLDEN_ANGLE % 1, (0.42, 0.6, 0.75)[code % 3]) for code in range(codebook_size)]
    parts = [colorsys.hls_to_rgb(hue, lightness, 0.65) for hue, lightness in turns]
    return [f"#{round(255 * r):02X}{round(255 * g):02X}{round(255 * b):02X}" for r, g, b in parts]


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on `colour`."""
    red, green, blue = (channel / 255 for channel in ImageColor.getrgb(colour)[:3])
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#FFFFFF"


def timeline_png(codes: Int[Tensor, "f q"], colours: list[str]) -> bytes:
    """Draw a column of pixels for each frame and a row for each code slot; frames without a label are transparent."""
    table = np.array([[*ImageColor.getrgb(colour)[:3], 255] for colour in colours] + [[0, 0, 0, 0]], dtype=np.uint8)
    place = np.where(codes.T.numpy() == NO_LABEL, len(colours), codes.T.numpy())
    buffer = BytesIO()
    Image.fromarray(table[place]).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
