"""The structure that docs/architecture.md draws, held against the code: rooms, directions of imports, explanations."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
ROOMS = (
    "hlrp.runtime",
    "hlrp.latent_spec",
    "hlrp.latents",
    "hlrp.pixels",
    "hlrp.flow_matching",
    "hlrp.storage",
    "hlrp.training",
    "hlrp.laq",
    "hlrp.foundation",
    "hlrp.experts",
    "hlrp.data",
    "hlrp.labelling",
    "hlrp.inverse_dynamics",
    "hlrp.measure",
    "hlrp.report",
    "hlrp.sim",
    "hlrp.demo",
    "hlrp.options",
    "hlrp.commands",
    "hlrp.cli",
    "hlrp",  # the public face re-exports from the rooms, and none of them imports it
    "lerobot_policy_felix_bundle",
)
"""From the lowest to the highest; a room imports from itself and from those before it."""
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_MOST_FUNCTIONS = 30
"""95 % of all functions have at most so many lines, docstrings included."""


@cache
def modules() -> dict[str, Path]:
    """Every module of src/ by its dotted name."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of ours that `module` imports anywhere: at its top, inside a function or for type checkers alone."""
    names: set[str] = set()
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(modules()[module])):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names.update(f"{base}.{a.name}" if f"{base}.{a.name}" in modules() else base for a in node.names)
    return frozenset(names & modules().keys() - {module})


def room(module: str) -> int:
    """Number of the room that holds `module`: the longest prefix among `ROOMS`."""
    fitting = [name for name in ROOMS if module == name or (name != "hlrp" and module.startswith(f"{name}."))]
    assert fitting, f"{module} is in no room of {ROOMS}"
    return ROOMS.index(max(fitting, key=len))


def test_no_import_runs_up() -> None:
    upward = [(m, other) for m in modules() for other in sorted(imported(m)) if room(other) > room(m)]
    assert upward == []


def test_no_circle_of_imports() -> None:
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle of imports: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for other in sorted(imported(module)):
                walk(other, (*path, module))
            done.add(module)

    for module in modules():
        walk(module, ())


def test_what_is_public_is_explained() -> None:
    public, silent = 0, []
    for path in modules().values():
        for node in ast.walk(tree(path)):
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_"):
                public += 1
                if not ast.get_docstring(node):
                    silent.append(f"{path.relative_to(SRC)}:{node.lineno} {node.name}")
    assert len(silent) <= 0.1 * public, silent


def test_the_public_face_is_small() -> None:
    import hlrp

    assert 5 <= len(hlrp.__all__) <= 15
    assert all(getattr(hlrp, name) is not None for name in hlrp.__all__)


def test_files_and_functions_are_short() -> None:
    long_files = {}
    for path in modules().values():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES_OF_A_FILE:
            long_files[str(path.relative_to(SRC))] = lines
    assert long_files == {}

    lengths = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in modules().values()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert lengths[int(0.95 * len(lengths))] <= MOST_LINES_OF_MOST_FUNCTIONS
