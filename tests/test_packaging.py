"""The distribution is named, bounded and pinned as LeRobot and a fresh machine need it."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import jaxtyping
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
NAME = "lerobot_policy_felix_bundle"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OUR_MODULES = {"hlrp", NAME}


def external(lines: list[str]) -> list[Requirement]:
    """Requirements on other projects; `all` also names this one."""
    return [Requirement(line) for line in lines if Requirement(line).name != NAME]


BASE = external(PROJECT["dependencies"])
REQUIREMENTS = BASE + [requirement for lines in EXTRAS.values() for requirement in external(lines)]


def pins() -> dict[str, Version]:
    """Versions of constraints.txt by canonical name; a line that is not `name==version` fails the test."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [re.fullmatch(r"([a-z0-9-]+)==([0-9][0-9a-z.]*)", line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {match[1]: Version(match[2]) for match in matches if match}


def test_lerobot_finds_the_plugin_by_a_distribution_name_that_equals_its_module() -> None:
    assert distribution(NAME).metadata["Name"] == NAME
    assert NAME.startswith("lerobot_policy_")
    assert (ROOT / "src" / NAME / "__init__.py").is_file()


def test_both_import_packages_belong_to_the_one_distribution() -> None:
    discovered = {path.name for path in (ROOT / "src").iterdir() if (path / "__init__.py").is_file()}
    assert discovered == OUR_MODULES


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_the_pinned_version_lies_in_the_allowed_range(requirement: Requirement) -> None:
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_pins_are_plain_versions_in_order() -> None:
    names = list(pins())
    assert names == sorted(names)
    assert "lerobot" in names
    assert canonicalize_name(NAME) not in names


def test_the_extra_all_holds_every_other_extra_but_the_one_that_brings_a_second_opencv() -> None:
    (line,) = EXTRAS["all"]
    assert Requirement(line).name == NAME
    assert Requirement(line).extras == set(EXTRAS) - {"all", "pusht"}


def test_every_package_that_src_imports_is_declared() -> None:
    imported = {module for path in (ROOT / "src").rglob("*.py") for module in imported_modules(path)}
    imported -= set(sys.stdlib_module_names) | OUR_MODULES
    owners = {**packages_distributions(), "rerun": ["rerun-sdk"]}  # a path file of rerun-sdk adds its folder
    declared = {canonicalize_name(requirement.name) for requirement in REQUIREMENTS}
    undeclared = {module for module in imported if declared.isdisjoint(map(canonicalize_name, owners.get(module, [])))}
    assert not undeclared


def imported_modules(path: Path) -> set[str]:
    """Top-level names of the absolute imports of one source file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_without_a_target_lists_every_target_on_one_line() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^ +make ([a-z-]+) +\S", listed, flags=re.MULTILINE)
    assert sorted(targets) == sorted(phony.split())


def test_the_license_is_the_full_apache_license() -> None:
    text = (ROOT / "LICENSE").read_text()
    sections = re.findall(r"^ {3}(\d)\. ", text, flags=re.MULTILINE)
    assert sections == list("123456789")
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_a_wrong_shape_fails_in_test_runs() -> None:
    from hlrp.latents import LatentActions

    codes, vectors = torch.zeros(2, 1, 4, dtype=torch.int64), torch.zeros(2, 1, 4, 3)
    LatentActions(codes=codes, vectors=vectors, valid=torch.ones(2, dtype=torch.bool))
    with pytest.raises(jaxtyping.TypeCheckError):
        LatentActions(codes=codes, vectors=vectors, valid=torch.ones(3, dtype=torch.bool))


def test_warnings_of_our_modules_are_errors_in_test_runs(pytestconfig: pytest.Config) -> None:
    filters = [line for line in pytestconfig.getini("filterwarnings") if line.startswith("error")]
    patterns = [line.rsplit(":", 1)[-1] for line in filters]
    for module in ("hlrp", "hlrp.laq.model", NAME, f"{NAME}.policies.common"):
        assert any(re.match(pattern, module) for pattern in patterns), module
    assert not any(re.match(pattern, "hlrpx.model") for pattern in patterns)
