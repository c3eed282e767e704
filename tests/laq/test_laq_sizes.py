from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hlrp.laq.checkpoint import load_laq
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.report.saving import save_laq


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_laq(LatentActionQuantizer(debug()).eval(), tmp_path / "laq", cameras=["top"])


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (("config", "spec", "codebook_size"), 10**9, "codebook_size must be .* or less"),
        (("config", "spec", "code_seq_len"), 10**7, "code_seq_len must be .* or less"),
        (("config", "encoder_layers"), 10**6, "encoder_layers must be .* or less"),
        (("config", "encoder_layers"), 1000, "describes a model of .* weights or more"),
        (("config", "dim"), 2**16, "describes a model of .* weights or more"),
        (("config", "image_size"), [2**20, 2**20], "image_size must be .* or less"),
        (("cameras",), ["a", "b"], "cameras names 2, config.num_cameras says 1"),
    ],
)
def test_sizes_are_compared_before_memory_is_taken(folder: Path, at: tuple[str, ...], value: Any, message: str) -> None:
    path = folder / "laq.json"
    values = json.loads(path.read_text())
    inside = values
    for name in at[:-1]:
        inside = inside[name]
    inside[at[-1]] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_laq(folder)


def test_a_folder_without_its_weights_says_so(folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder / "other")
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        load_laq(folder)
