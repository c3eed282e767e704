"""Look up known vulnerabilities of the pinned packages with pip-audit. Usage: python scripts/audit.py [REQUIREMENTS]

pip-audit itself also succeeds if it could look up no package at all. For this script that is an error: the exit status
is 0 only if every package was looked up and has no known vulnerability.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OPTIONS = ("--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json")
NEEDED = "the audit asks the Python Package Index itself; a mirror of it does not answer"


def main() -> None:
    """Print what was found; the exit status is 0 only if no package has a known vulnerability, else 1."""
    requirements = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "constraints.txt")
    command = [sys.executable, "-m", "uv", "tool", "run", "--quiet", "pip-audit", "--requirement", requirements]
    done = subprocess.run([*command, *OPTIONS], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except json.JSONDecodeError:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        sys.exit(f"error: pip-audit ended without an answer ({said}); {NEEDED}")
    text, is_sound = verdict(packages)
    print(text, file=sys.stdout if is_sound else sys.stderr)
    sys.exit(not is_sound)


def verdict(packages: list[dict[str, Any]]) -> tuple[str, bool]:
    """Text to print about the packages in pip-audit's JSON, and whether all are free of known vulnerabilities."""
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", [])
    ]
    if skipped:
        found.append(
            f"error: {len(skipped)} of {len(packages)} packages were not looked up ({skipped[0]}, …); {NEEDED}"
        )
    return "\n".join(found) or f"{len(packages)} packages have no known vulnerability", not found


if __name__ == "__main__":
    main()
