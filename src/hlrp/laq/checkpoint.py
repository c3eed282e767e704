"""A trained quantizer as one folder that loads offline.

laq.json             configuration, camera, fingerprint, and what it was trained on
model.safetensors    every weight
quality.json         the quality card
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from hlrp.files import new_directory, write_json
from hlrp.laq.model import LatentActionQuantizer, config_from_description, description
from hlrp.laq.quality import LAQQuality

DESCRIPTION_FILE = "laq.json"
WEIGHTS_FILE = "model.safetensors"
QUALITY_FILE = "quality.json"


@dataclass(frozen=True)
class LoadedLAQ:
    """A quantizer in evaluation mode, with what its folder says about it."""

    model: LatentActionQuantizer
    camera: str
    """Dataset key of the camera it was trained on."""
    fingerprint: str
    extra: dict[str, Any]


def save_laq(
    model: LatentActionQuantizer,
    directory: Path | str,
    *,
    camera: str,
    quality: LAQQuality,
    extra: Mapping[str, object],
    replace: bool = False,
) -> Path:
    """Write `model` to `directory`, completely or not at all; `replace` allows for an earlier quantizer there.

    Raises:
        FileExistsError: If `directory` exists and may not be replaced.
    """
    with new_directory(directory, replace_if_holds=DESCRIPTION_FILE if replace else None) as folder:
        save_model(model, str(folder / WEIGHTS_FILE))
        write_json(folder / QUALITY_FILE, quality.to_dict())
        write_json(
            folder / DESCRIPTION_FILE,
            {
                "fingerprint": model.fingerprint(),
                "config": description(model.config),
                "camera": camera,
                "extra": dict(extra),
            },
        )
    return Path(directory)


def load_laq(directory: Path | str, device: torch.device | str = "cpu") -> LoadedLAQ:
    """Load a quantizer strictly and without a network, in evaluation mode.

    Raises:
        FileNotFoundError: If `directory` is not the folder of a quantizer.
        ValueError: If the weights are not those that the folder describes.
    """
    directory = Path(directory)
    if not (directory / DESCRIPTION_FILE).is_file() or not (directory / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(
            f"{directory} is not a LAQ checkpoint (expected {DESCRIPTION_FILE} and {WEIGHTS_FILE}); train one with "
            "hlrp-train-laq"
        )
    values = json.loads((directory / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    model = LatentActionQuantizer(config_from_description(values["config"]))
    mismatch = f"the weights in {directory} do not match its {DESCRIPTION_FILE}; copy the whole folder again"
    try:
        load_model(model, str(directory / WEIGHTS_FILE), strict=True)
    except (SafetensorError, RuntimeError) as error:  # a file cut short, or weights of another size
        raise ValueError(mismatch) from error
    if model.fingerprint() != values["fingerprint"]:
        raise ValueError(mismatch)
    model.to(device).eval()
    return LoadedLAQ(model, values["camera"], values["fingerprint"], values["extra"])
