"""Ways to change a file of an artefact: damage, other entries of JSON files, rows of tables, tensors, and pickles."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.scale_mutations_artefacts import RAN

type Change = Callable[[Path], Any]
"""Changes the artefact in a folder, in place."""


def damage(name: str) -> dict[str, Change]:
    """Damage that copying or storing can do to the file `name`: changes by name."""

    def rewrite(change: Callable[[bytes], bytes]) -> Change:
        return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))

    def to_folder(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return {
        "cut": rewrite(lambda content: content[: len(content) // 2]),
        "empty": rewrite(lambda content: b""),
        "noise": rewrite(lambda content: b"\xff\x00\xfe" * 40),
        "flipped": rewrite(_flipped),
        "missing": lambda folder: (folder / name).unlink(),
        "renamed": lambda folder: (folder / name).rename(folder / f"{name}.old"),
        "folder": to_folder,
    }


def _flipped(content: bytes) -> bytes:
    """Every bit of one byte flipped, three quarters into the file, where weights and tables hold numbers."""
    place = len(content) * 3 // 4
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def entry(file: str, at: str, value: Any) -> Change:
    """Set the entry `at` (such as "config.spec.code_dim") of a JSON file; a value of `...` removes it."""

    def change(folder: Path) -> None:
        values = json.loads((folder / file).read_text(encoding="utf-8"))
        *outer, last = at.split("/")
        inside = values
        for name in outer:
            inside = inside[int(name) if isinstance(inside, list) else name]
        if value is ...:
            del inside[last]
        else:
            inside[int(last) if isinstance(inside, list) else last] = value
        (folder / file).write_text(json.dumps(values), encoding="utf-8")

    return change


def table(pattern: str, change: Callable[[pa.Table], pa.Table]) -> Change:
    """Rewrite the parquet file that matches `pattern`."""

    def rewrite(folder: Path) -> None:
        (file,) = folder.glob(pattern)
        pq.write_table(change(pq.read_table(file)), file)

    return rewrite


def column(pattern: str, name: str, change: Callable[[list[Any]], list[Any]]) -> Change:
    """Change the values of one column of the parquet file that matches `pattern`; its type stays."""

    def replaced(rows: pa.Table) -> pa.Table:
        kind, place = rows.schema.field(name), rows.schema.get_field_index(name)
        values = pa.array(change(rows.column(name).to_pylist()), type=kind.type)
        return rows.set_column(place, kind, values)

    return table(pattern, replaced)


def rows(pattern: str, order: Callable[[int], list[int]]) -> Change:
    """Take the rows of a parquet file in another order, given their number; rows may be repeated or left out."""
    return table(pattern, lambda found: found.take(pa.array(order(len(found)), type=pa.int64())))


def tensors(file: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Change the dictionary of tensors in a safetensors file, in place."""

    def rewrite(folder: Path) -> None:
        with safe_open(folder / file, "pt") as content:
            found = {name: content.get_tensor(name).clone() for name in content.keys()}  # noqa: SIM118
            facts = content.metadata()
        change(found)
        save_file(found, folder / file, metadata=facts)

    return rewrite


def filled(value: float, name: str | None = None) -> Callable[[dict[str, torch.Tensor]], None]:
    """Set one number of the first float tensor, or of `name`, to `value`."""

    def change(found: dict[str, torch.Tensor]) -> None:
        chosen = name or next(key for key, tensor in found.items() if tensor.is_floating_point())
        found[chosen].view(-1)[0] = value

    return change


class Hostile:
    """Object whose pickle runs code when it is read: it creates the file `RAN` beside the artefact."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


def hostile(file: str, kind: str) -> Change:
    """Write a file that runs code if it is unpickled, in one of four formats that libraries read as weights."""

    def write(folder: Path) -> None:
        target = folder / file
        target.unlink(missing_ok=True)
        content = {"state_dict": {"backend.weight": Hostile(folder.parent / RAN)}}
        if kind == "zip":
            torch.save(content, target)
        elif kind == "legacy":
            torch.save(content, target, _use_new_zipfile_serialization=False)
        elif kind == "pickle":
            target.write_bytes(pickle.dumps(content))
        else:  # a zip archive without the entries that torch expects
            with zipfile.ZipFile(target, "w") as archive:
                archive.writestr("archive/data.pkl", pickle.dumps(content))

    return write
