"""Order in the header of a safetensors file."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def sort_metadata(path: Path | str) -> None:
    """Sort the metadata of a safetensors file by name, in place, so that equal weights are equal files.

    safetensors writes entries of the metadata in random order. There are several if tensors share memory, such as the
    tied embeddings of a language model.
    """
    with Path(path).open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        metadata = header.get("__metadata__", {})
        if list(metadata) == sorted(metadata):
            return
        header["__metadata__"] = dict(sorted(metadata.items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size  # the same entries; the rest of the header is filled with blanks
        file.seek(8)
        file.write(text.ljust(size))
