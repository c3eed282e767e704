"""Execute the notebooks of `notebooks/` and keep their outputs, with small pictures: `make notebooks`."""

from __future__ import annotations

import base64
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETTINGS = "parameters"
"""Tag of the notebook cell whose variables a reader may want to change."""
_WIDTH = 760
"""Largest width of a picture, in pixels."""
_COLOURS = 128
_TIMEOUT_S = 900


def execute(path: Path, settings: Mapping[str, object] | None = None) -> NotebookNode:
    """Run a notebook from its first cell to its last, in its folder, and return it with its outputs.

    Args:
        path: The notebook, which is not changed.
        settings: Values of variables that replace those of the cell tagged `SETTINGS`.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    book = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in book.cells if SETTINGS in cell.metadata.get("tags", [])]
    source = cell.source
    cell.source = "\n".join([source, *(f"{name} = {value!r}" for name, value in (settings or {}).items())])
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(book, timeout=_TIMEOUT_S, record_timing=False, resources=resources).execute()
    cell.source = source
    return book


def shrink(book: NotebookNode) -> None:
    """Scale the pictures of the outputs to the width of a page and to few colours, in place."""
    for cell in book.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _shrunk(output.data["image/png"])


def _shrunk(encoded: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    if picture.width > _WIDTH:
        size = (_WIDTH, round(picture.height * _WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Maximum coverage keeps rare colours, such as those of small changes on a grey picture.
    picture = picture.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def machine_paths(book: NotebookNode) -> list[str]:
    """Folders of this machine that the notebook mentions: the project's, the home and the one for temporary files."""
    text = nbformat.writes(book)
    return [path for path in (str(ROOT), os.path.expanduser("~"), tempfile.gettempdir()) if path in text]


def main() -> None:
    """Execute every notebook, and replace it by the executed one."""
    for path in NOTEBOOKS:
        print(f"executing {path.relative_to(ROOT)}", flush=True)
        book = execute(path)
        shrink(book)
        if found := machine_paths(book):
            raise SystemExit(f"{path.name} names {', '.join(found)}; print no paths in it")
        scratch = path.with_suffix(".partial")
        nbformat.write(book, scratch)
        scratch.replace(path)


if __name__ == "__main__":
    main()
