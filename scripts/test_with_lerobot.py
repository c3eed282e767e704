"""Run this project's tests with another version of LeRobot, such as its main branch, without installing it.

    python -m scripts.test_with_lerobot --lerobot_repo=../lerobot --revision=main -- -m "not slow" -n 2

LeRobot's sources come from a git clone; the branch that is checked out there does not matter. Arguments after `--` go
to pytest; without them, all tests run that are not slow. No package is installed: requirements of that version of
LeRobot that the installed packages do not meet are printed first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from scripts.run_lerobot_suite import export

ROOT = Path(__file__).resolve().parents[1]
_USUAL = ["-q", "-m", "not slow", "tests"]
_EXTRAS = ("training", "dataset", "accelerate-dep", "av-dep", "diffusers-dep", "transformers-dep", "peft-dep")
"""Extras of LeRobot whose requirements this project shares."""


def main() -> int:
    """Export LeRobot's sources, compare its requirements with what is installed, and run pytest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lerobot_repo", type=Path, required=True, help="git clone of LeRobot")
    parser.add_argument("--revision", default="HEAD", help="branch, tag or commit of the clone")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lerobot-") as folder:
        export(options.lerobot_repo, options.revision, Path(folder), "src", "pyproject.toml")
        project = tomllib.loads((Path(folder) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        print(f"LeRobot {project['version']} at {options.revision}", flush=True)
        for sentence in unmet(project):
            print(sentence, flush=True)
        paths = [str(Path(folder) / "src"), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "pytest", *(options.pytest or _USUAL)]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def unmet(project: Mapping[str, Any]) -> list[str]:
    """Sentences about requirements of LeRobot, with the extras used here, that installed packages do not meet."""
    extras = project["optional-dependencies"]
    every = [*project["dependencies"], *(line for name in _EXTRAS for line in extras.get(name, []))]
    found: list[str] = []
    for requirement in map(Requirement, every):
        if requirement.name == "lerobot" or (requirement.marker and not requirement.marker.evaluate()):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            found.append(f"it needs {requirement}, which is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            found.append(f"it needs {requirement}, and {installed} is installed")
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.exit(main())
