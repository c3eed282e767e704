"""Pages of the documentation that show the executed notebooks of `notebooks/`; a hook of mkdocs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FOLDER = "notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every notebook, and the pictures of its outputs."""
    for path in sorted((ROOT / FOLDER).glob("*.ipynb")):
        text, pictures = page(path)
        files.append(File.generated(config, f"{FOLDER}/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"{FOLDER}/{name}", content=content))
    return files


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return the Markdown of an executed notebook, and the PNG files of its outputs by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_for_the_site(source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            parts.append(_output(output, f"{path.stem}_{len(pictures)}.png", pictures))
    parts.insert(1, f"*This page is the notebook `{FOLDER}/{path.name}` with its outputs.*")
    return "\n\n".join(part for part in parts if part) + "\n", pictures


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    """Markdown of one output; a picture is added to `pictures` under `name`."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output["data"]
    if "image/png" in data:
        pictures[name] = base64.b64decode("".join(data["image/png"]))
        return f"![Output of the cell above]({name})"
    return "".join(data.get("text/markdown", ""))


def _for_the_site(text: str) -> str:
    """Let links lead to pages of the site; a link to a file that is not part of it becomes the file's name."""
    text = re.sub(r"\]\(\.\./docs/([^)]+)\)", r"](../\1)", text)
    text = re.sub(r"\[([^]]+)\]\(\.\./((?:pretrained|README)[^)#]*)[^)]*\)", r"\1 (`\2`)", text)
    return re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)
