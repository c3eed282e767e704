"""Checks of the files of pretrained models before transformers reads them: sizes, and code of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hlrp.runtime.checks import require_number
from hlrp.runtime.size_limits import LARGEST_SIDE_PX, MOST_LAYERS, MOST_VOCABULARY_ROWS, WIDEST_LAYER
from hlrp.storage.artefacts import read_json

_LIMITS = {
    "num_hidden_layers": MOST_LAYERS,
    "depth": MOST_LAYERS,
    "num_attention_heads": WIDEST_LAYER,
    "num_key_value_heads": WIDEST_LAYER,
    "num_heads": WIDEST_LAYER,
    "head_dim": WIDEST_LAYER,
    "hidden_size": WIDEST_LAYER,
    "out_hidden_size": WIDEST_LAYER,
    "intermediate_size": 16 * WIDEST_LAYER,
    "patch_size": LARGEST_SIDE_PX,
    "image_size": LARGEST_SIDE_PX,
    "num_position_embeddings": MOST_VOCABULARY_ROWS,
    "vocab_size": MOST_VOCABULARY_ROWS,
}
"""Largest value of each entry of a `config.json` of transformers by which a network grows."""


def require_sizes(values: Mapping[str, Any], *, at: str = "") -> None:
    """Raise if a size in the configuration of a model, or of one of its parts, is above its limit.

    Args:
        values: Content of a file `config.json` of transformers.
        at: Place of `values` within the file, for messages.

    Raises:
        ValueError: With the first entry that is too large.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            require_sizes(value, at=f"{at}{name}.")
        elif name in _LIMITS and not isinstance(value, str):
            require_number(f"{at}{name}", value, at_least=0, limit=_LIMITS[name])


def require_no_own_code(path: Path) -> None:
    """Raise if the JSON file at `path` names Python code that transformers would import.

    Raises:
        ValueError: If it has an entry `auto_map`.
    """
    if "auto_map" in read_json(path):
        raise ValueError(
            f"{path} names Python code to import (auto_map), and code from a checkpoint is never run; remove this "
            "entry if the model does without it, or use another checkpoint"
        )
