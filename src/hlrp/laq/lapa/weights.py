"""Convert LAPA's released state dict to the parameter names of `LapaQuantizer`, and infer its architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hlrp.laq.lapa.config import POOL_SHAPES, LapaConfig
from hlrp.laq.lapa.model import LapaQuantizer
from hlrp.latents import LatentSpec
from hlrp.storage.artefacts import read_state_dict

_LAYER = r"(enc_spatial|enc_temporal|dec_spatial)_transformer\.layers\.(\d+)"
_STACKS = {"enc_spatial": "encoder.space", "enc_temporal": "encoder.time", "dec_spatial": "decoder.space"}
_ATTENTION = {"1": "attention", "2": "read"}
_ATTENTION_PARTS = {
    "norm.gamma": "norm.weight",
    "norm.beta": "norm.bias",
    "context_norm.gamma": "norm_memory.weight",
    "context_norm.beta": "norm_memory.bias",
    "null_kv": "null_pairs",
    "to_q.weight": "q.weight",
    "to_kv.weight": "kv.weight",
    "q_scale": "q_scale",
    "k_scale": "k_scale",
    "to_out.weight": "out.weight",
}
_FEED_FORWARD_PARTS = {
    "0.weight": "norm.weight",
    "0.bias": "norm.bias",
    "1.weight": "wide.weight",
    "4.weight": "out.weight",
}
_LAST_NORM = {"gamma": "weight", "beta": "bias"}
_PREFIXES = {
    "to_patch_emb_first_frame.1.": "encoder.patches.0.",
    "to_patch_emb_first_frame.2.": "encoder.patches.1.",
    "to_patch_emb_first_frame.3.": "encoder.patches.2.",
    "spatial_rel_pos_bias.net.0.0.": "encoder.bias.hidden.0.",
    "spatial_rel_pos_bias.net.1.0.": "encoder.bias.hidden.1.",
    "spatial_rel_pos_bias.net.2.": "encoder.bias.to_heads.",
    "vq.project_in.": "encoder.pool.to_code.",
    "vq.cnn_encoder.0.": "encoder.pool.convolutions.0.",
    "vq.cnn_encoder.2.": "encoder.pool.convolutions.2.",
    "vq.project_out.": "decoder.from_code.",
    "to_pixels_first_frame.0.": "decoder.to_pixels.",
}
UNUSED = re.compile(_LAYER + r"\.1\.(context_norm\.(gamma|beta)|null_kv)")
"""Parameters of LAPA's checkpoints that its code never uses: memory norms and (zero) null keys of self-attention."""


_SHARED = re.compile(r"encoder\.((patches|bias)\..+)")
"""Parameters that the encoder and the decoder share."""


def load_lapa_weights(path: Path | str) -> dict[str, Tensor]:
    """Read LAPA's released state dict, such as `laq_openx.pt`, without executing code that a pickle may contain.

    Raises:
        FileNotFoundError: If `path` does not exist.
        ValueError: If the file holds anything but a state dict.
    """
    expected = "a state dict of LAPA's quantizer, such as its released laq_openx.pt"
    state = read_state_dict(path, expected=expected)
    return {name.removeprefix("module."): value.float() for name, value in state.items()}  # DDP's prefix


def infer_config(
    state: Mapping[str, Tensor], *, code_seq_len: int | None, num_frames: int, frame_offset_s: float
) -> LapaConfig:
    """Infer the architecture of LAPA's quantizer from the shapes of its weights.

    Args:
        state: State dict under LAPA's names.
        code_seq_len: Number of code slots; None to infer it. From the shapes, 4 and 16 cannot be distinguished (4 is
            taken, as in the released weights), nor 64 and 256 (64 is taken).
        num_frames: Frames of a clip.
        frame_offset_s: Seconds between consecutive frames of a clip.

    Raises:
        ValueError: If a tensor is missing or has other axes, or the convolutions do not fit `code_seq_len`.
    """
    try:
        dim, patch_values = state["to_patch_emb_first_frame.2.weight"].shape
        codebook_size, code_dim = state["vq.codebooks"].shape
        heads = state["spatial_rel_pos_bias.net.2.weight"].shape[0]
        head_dim = state["enc_spatial_transformer.layers.0.1.q_scale"].shape[0]
    except KeyError as error:
        raise ValueError(f"the weights lack {error}; expected a state dict of LAPA's quantizer") from error
    except (IndexError, ValueError) as error:  # a tensor with fewer or more axes
        raise ValueError(
            f"a weight has other axes than in LAPA's quantizer ({error}); expected its state dict, such as laq_openx.pt"
        ) from error
    pool = state.get("vq.cnn_encoder.2.weight")
    kernel = None if pool is None else tuple(pool.shape[2:])
    possible = [slots for slots, shape in POOL_SHAPES.items() if shape.kernel == kernel]
    if not possible or (code_seq_len or possible[0]) not in possible:
        raise ValueError(
            f"the convolutions of these weights pool to {' or '.join(map(str, possible)) or 'no known number of'} code "
            f"slots, not to code_seq_len={code_seq_len}"
        )
    return LapaConfig(
        spec=LatentSpec(
            codebook_size=codebook_size,
            code_seq_len=code_seq_len or possible[0],
            num_frames=num_frames,
            frame_offset_s=frame_offset_s,
            code_dim=code_dim,
        ),
        patch_size=math.isqrt(patch_values // 3),
        dim=dim,
        heads=heads,
        head_dim=head_dim,
        spatial_layers=_count_layers(state, "enc_spatial"),
        temporal_layers=_count_layers(state, "enc_temporal"),
    )


def convert(state: Mapping[str, Tensor], config: LapaConfig) -> LapaQuantizer:
    """Build a quantizer with the weights of `state`; all of them are used, except those that match `UNUSED`.

    Raises:
        ValueError: If a weight is unknown, missing, or has a wrong shape.
    """
    names = {key: our_name(key) for key in state if not UNUSED.fullmatch(key)}
    if unknown := [key for key, name in names.items() if name is None]:
        raise ValueError(f"{len(unknown)} weights are none of LAPA's quantizer, the first is {unknown[0]}")
    ours = {name: state[key] for key, name in names.items() if name is not None}
    ours |= {f"decoder.{found[1]}": value for name, value in ours.items() if (found := _SHARED.fullmatch(name))}
    model = LapaQuantizer(config)
    try:
        model.load_state_dict(ours, strict=True)
    except RuntimeError as error:
        raise ValueError(f"the weights are not those of one LAPA quantizer: {error}") from error
    return model.eval()


def our_name(key: str) -> str | None:
    """Name in `LapaQuantizer` of LAPA's parameter `key`; None if `key` is unknown."""
    if key == "vq.codebooks":
        return "quantizer.entries"
    for lapa_prefix, our_prefix in _PREFIXES.items():
        if key.startswith(lapa_prefix):
            return our_prefix + key.removeprefix(lapa_prefix)
    if found := re.fullmatch(r"(enc_spatial|enc_temporal|dec_spatial)_transformer\.norm_out\.(gamma|beta)", key):
        return f"{_STACKS[found[1]]}.norm.{_LAST_NORM[found[2]]}"
    if not (found := re.fullmatch(_LAYER + r"\.([0-3])\.(.+)", key)):
        return None
    stack, layer, part, rest = found.groups()
    if part == "0" and rest.startswith("dsconv."):
        ours = "position." + rest.removeprefix("dsconv.")
    elif part == "3" and rest in _FEED_FORWARD_PARTS:
        ours = "feed_forward." + _FEED_FORWARD_PARTS[rest]
    elif part in _ATTENTION and rest in _ATTENTION_PARTS:
        ours = f"{_ATTENTION[part]}.{_ATTENTION_PARTS[rest]}"
    else:
        return None
    return f"{_STACKS[stack]}.layers.{layer}.{ours}"


def _count_layers(state: Mapping[str, Tensor], stack: str) -> int:
    found = {match[2] for key in state if (match := re.match(_LAYER, key)) and match[1] == stack}
    return len(found)
