"""Build wheel and source distribution, install the wheel into an empty environment beside LeRobot, and try it there.

`python scripts/check_package.py` needs a package index, or a cache of it. Everything is tried outside the source tree,
so that a file that is missing from the wheel is noticed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
POLICIES = ("hlrp_vla_direct", "hlrp_action_expert_latent", "hlrp_action_expert_direct", "hlrp_vla", "hlrp_diffusion")
EXTRAS = "hlrp_action_expert_latent,hlrp_diffusion"


def main() -> None:
    """Build and check; ends with the first error."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", str(dist), str(ROOT))
    wheel = next(dist.glob("*.whl"))
    built = (str(wheel), str(next(dist.glob("*.tar.gz"))))
    run(sys.executable, "-m", "uv", "tool", "run", "--quiet", "twine", "check", "--strict", *built)
    with tempfile.TemporaryDirectory() as scratch:
        check_installed(wheel, Path(scratch))
    print(f"{wheel.name} works in an empty environment: {len(PROJECT['scripts'])} commands, {len(POLICIES)} policies")


def check_installed(wheel: Path, scratch: Path) -> None:
    """Install `wheel` with its dependencies into a new environment in `scratch`, and try commands and policies."""
    environment = scratch / "environment"
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "venv", str(environment))
    uv = (sys.executable, "-m", "uv", "pip")
    target = f"{wheel}[{EXTRAS}]"
    run(*uv, "install", "--quiet", "--python", str(python), "-c", str(ROOT / "constraints.txt"), target, cwd=scratch)
    run(*uv, "check", "--python", str(python), cwd=scratch)
    listed = run(str(environment / "bin" / "lerobot-train"), "--help", cwd=scratch)
    missing = [name for name in POLICIES if name not in listed]
    if missing:
        raise SystemExit(f"lerobot-train --help lists no {', '.join(missing)}: LeRobot does not find the plugin")
    for command in PROJECT["scripts"]:
        run(str(environment / "bin" / command), "--help", cwd=scratch)


def run(*command: str, cwd: Path = ROOT) -> str:
    """Output of a command; ends the program if the command fails."""
    print("$", *command, flush=True)
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{result.stdout}{result.stderr}\nfailed with status {result.returncode}")
    return result.stdout + result.stderr


if __name__ == "__main__":
    main()
