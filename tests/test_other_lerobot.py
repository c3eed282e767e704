"""The script that runs the tests with another version of LeRobot: what it takes from a clone, and what it says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.run_lerobot_suite import export
from scripts.test_with_lerobot import unmet


def test_files_of_a_revision_are_exported_and_a_missing_one_is_named(tmp_path: Path) -> None:
    repo, folder = tmp_path / "repo", tmp_path / "out"
    git = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    (repo / "src").mkdir()
    (repo / "src" / "a.py").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], check=True)
    (repo / "src" / "a.py").write_text("2")
    export(repo, "HEAD", folder, "src")
    assert (folder / "src" / "a.py").read_text() == "1"
    with pytest.raises(SystemExit, match="with the revision v9"):
        export(repo, "v9", folder, "src")


def test_requirements_that_are_not_met_are_told() -> None:
    project = {
        "dependencies": ["numpy>=1", "torch>=99", "torch>=99; python_version < '3'"],
        "optional-dependencies": {"training": ["lerobot[dataset]", "no-such-package>=1"], "other": ["numpy>=99"]},
    }
    first, second = unmet(project)
    assert first.startswith("it needs torch>=99, and ")
    assert second == "it needs no-such-package>=1, which is not installed"
