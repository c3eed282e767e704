from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hlrp.storage.safetensors_header import sort_metadata
from hlrp.storage.weight_files import weights_digest


def order_of_metadata(path: Path) -> list[str]:
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return list(json.loads(content[8 : 8 + size])["__metadata__"])


def test_equal_weights_are_equal_files_whatever_the_order_of_their_metadata(tmp_path: Path) -> None:
    weights = {"ä": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)}
    names = [f"name {number}" for number in range(8)]
    files = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in files:
        save_file(weights, path, metadata={name: "tied to ä" for name in names})
        size = path.stat().st_size
        sort_metadata(path)
        assert path.stat().st_size == size
        assert order_of_metadata(path) == names
        torch.testing.assert_close(load_file(path), weights, rtol=0, atol=0)
    assert len({weights_digest(path) for path in files}) == 1


def test_a_file_without_metadata_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    before = path.read_bytes()
    sort_metadata(path)
    assert path.read_bytes() == before
    with safe_open(path, framework="pt") as content:
        assert not content.metadata()
