"""The state dict of LAPA's quantizer at a tiny size, with weights from a formula instead of a file.

Names and shapes are those of the released code (LatentActionPretraining/LAPA on GitHub).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DIM, HEADS, HEAD_DIM, PATCH, CODE_DIM, CODES = 8, 2, 4, 4, 4, 8
SIDE = 8 * PATCH
_HIDDEN = int(4 * (2 / 3) * DIM)
_VALUES = 3 * PATCH**2


def shapes(kernel: tuple[int, int] = (3, 3)) -> dict[str, tuple[int, ...]]:
    """Every name with its shape, for one layer a stack."""
    found: dict[str, tuple[int, ...]] = {
        "to_patch_emb_first_frame.1.weight": (_VALUES,),
        "to_patch_emb_first_frame.1.bias": (_VALUES,),
        "to_patch_emb_first_frame.2.weight": (DIM, _VALUES),
        "to_patch_emb_first_frame.2.bias": (DIM,),
        "to_patch_emb_first_frame.3.weight": (DIM,),
        "to_patch_emb_first_frame.3.bias": (DIM,),
        "spatial_rel_pos_bias.net.0.0.weight": (DIM, 2),
        "spatial_rel_pos_bias.net.0.0.bias": (DIM,),
        "spatial_rel_pos_bias.net.1.0.weight": (DIM, DIM),
        "spatial_rel_pos_bias.net.1.0.bias": (DIM,),
        "spatial_rel_pos_bias.net.2.weight": (HEADS, DIM),
        "spatial_rel_pos_bias.net.2.bias": (HEADS,),
        "vq.codebooks": (CODES, CODE_DIM),
        "vq.project_in.weight": (CODE_DIM, DIM),
        "vq.project_in.bias": (CODE_DIM,),
        "vq.project_out.weight": (DIM, CODE_DIM),
        "vq.project_out.bias": (DIM,),
        "vq.cnn_encoder.0.weight": (CODE_DIM, CODE_DIM, 3, 3),
        "vq.cnn_encoder.0.bias": (CODE_DIM,),
        "vq.cnn_encoder.2.weight": (CODE_DIM, CODE_DIM, *kernel),
        "vq.cnn_encoder.2.bias": (CODE_DIM,),
        "to_pixels_first_frame.0.weight": (_VALUES, DIM),
        "to_pixels_first_frame.0.bias": (_VALUES,),
    }
    for stack in ("enc_spatial", "enc_temporal", "dec_spatial"):
        layer = f"{stack}_transformer.layers.0"
        found |= {f"{layer}.0.dsconv.weight": (DIM, 1, 3, 3, 3), f"{layer}.0.dsconv.bias": (DIM,)}
        found |= {f"{layer}.1.{name}": shape for name, shape in _attention(nulls=0).items()}
        if stack == "dec_spatial":
            found |= {f"{layer}.2.{name}": shape for name, shape in _attention(nulls=4).items()}
        found |= {
            f"{layer}.3.0.weight": (DIM,),
            f"{layer}.3.0.bias": (DIM,),
            f"{layer}.3.1.weight": (2 * _HIDDEN, DIM),
            f"{layer}.3.4.weight": (DIM, _HIDDEN),
            f"{stack}_transformer.norm_out.gamma": (DIM,),
            f"{stack}_transformer.norm_out.beta": (DIM,),
        }
    return found


def lapa_state(kernel: tuple[int, int] = (3, 3)) -> dict[str, Tensor]:
    """Weights from sines, about as large as trained ones."""
    return {name: _sines(shape, name, number) for number, (name, shape) in enumerate(sorted(shapes(kernel).items()))}


def lapa_clips(count: int) -> Tensor:
    """Clips of two frames in [0, 1], float32 (count, 2, 1, 3, 32, 32)."""
    place = torch.arange(count * 2 * 3 * SIDE * SIDE, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(place.square() * 1e-5 + place)).float().reshape(count, 2, 1, 3, SIDE, SIDE)


def _attention(nulls: int) -> dict[str, tuple[int, ...]]:
    inner = HEADS * HEAD_DIM
    return {
        "norm.gamma": (DIM,),
        "norm.beta": (DIM,),
        "context_norm.gamma": (DIM,),
        "context_norm.beta": (DIM,),
        "null_kv": (HEADS, nulls, HEAD_DIM),
        "to_q.weight": (inner, DIM),
        "to_kv.weight": (2 * inner, DIM),
        "q_scale": (HEAD_DIM,),
        "k_scale": (HEAD_DIM,),
        "to_out.weight": (DIM, inner),
    }


def _sines(shape: tuple[int, ...], name: str, number: int) -> Tensor:
    sines = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 1.7 + number).float().reshape(shape)
    is_scale = len(shape) == 1 and name.endswith(("gamma", "scale", "1.weight", "3.weight", "0.weight"))
    return 1 + 0.3 * sines if is_scale else 0.5 * sines
