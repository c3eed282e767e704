"""The notebooks run, and those in the repository hold their outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from scripts import docs_notebooks, run_notebooks
from scripts.run_notebooks import NOTEBOOKS, execute, machine_paths

SHORT = {
    "tour": {"STEPS": 3, "TASK": "plate-slide-side-v3"},
    "reading_a_report": {"TASKS": ["plate-slide-side-v3"], "EPISODES": 2},
}
"""Settings with which a notebook takes seconds."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_executed_small_and_names_no_machine(path: Path) -> None:
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert path.stat().st_size < 1e6
    assert machine_paths(book) == []
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    book = execute(path, SHORT[path.stem])
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")


def test_settings_replace_those_of_the_notebook_and_are_not_kept(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("n = 2", metadata={"tags": [run_notebooks.SETTINGS]})
    book = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell("print(n * 21)")])
    nbformat.write(book, tmp_path / "a.ipynb")
    done = execute(tmp_path / "a.ipynb", {"n": 4})
    assert done.cells[1].outputs[0].text == "84\n"
    assert done.cells[0].source == "n = 2"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_page_of_the_site_has_every_output_and_only_links_of_the_site(path: Path) -> None:
    text, pictures = docs_notebooks.page(path)
    assert pictures
    assert set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)) == set(pictures)
    assert "```python" in text
    assert re.findall(r"\]\([^)]*(?:ipynb|pretrained|README)[^)]*\)", text) == []
