"""The commands that `scale_kills` kills, and what counts as the result of each.

Our own commands write one folder, which is complete or does not exist, and they handle SIGTERM and SIGINT.
lerobot-train writes a folder for every checkpoint, then the link `last` to the newest; it handles no signal.
"""

from __future__ import annotations

import hashlib
import importlib
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hlrp.demo.pipeline import resume_flags

_POLICIES = "lerobot_policy_felix_bundle.policies"
_OF_THE_RUN = ("train_config.json", "config.json", "rng_state.safetensors")
"""Files of a LeRobot checkpoint in which an uninterrupted and a resumed run differ: the first two name the folder of
the run and the checkpoint from which it was resumed; the data loader of a resumed run draws once more from the random
state."""


@dataclass(frozen=True)
class Command:
    """A command of `hlrp.cli` whose result is the folder `--output_dir`."""

    may_print_trace: ClassVar[bool] = False
    """Whether the command may print a stack trace when a signal ends it."""
    module: str
    """Name of the module that holds the command."""
    flags: tuple[str, ...]
    old: Path | None = None
    """Folder that is at the place of the result before each run; None for no folder."""

    @property
    def program(self) -> str:
        """Name under which a shell starts the command."""
        return f"hlrp-{self.module.replace('_', '-')}"

    def load(self) -> None:
        """Import what the command needs; a fork then starts within milliseconds."""
        importlib.import_module(f"hlrp.commands.{self.module}")

    def main(self) -> None:
        """Run the command with the arguments in `sys.argv`."""
        importlib.import_module(f"hlrp.cli.{self.module}").main()

    def arguments(self, output: Path) -> list[str]:
        """Return the flags of a run into the folder `output`, which continues a training whose state is there."""
        state = output.with_name(f"{output.name}.training") / "last.ckpt"
        return [*self.flags, f"--output_dir={output}", *(["--resume=true"] if state.is_file() else [])]

    def status(self, signum: int) -> int:
        """Return the exit status that is right after a signal; negative, as in `multiprocessing`, for a signal that
        the command did not handle."""
        handled: dict[int, int] = {signal.SIGTERM: 143, signal.SIGINT: 130}
        return handled.get(signum, -signum)

    def status_of_repeated(self, output: Path) -> int:
        """Return the exit status that is right for the repeated run, given what the killed run left in `output`."""
        was_complete = self.old is None and output.exists()
        return 2 if was_complete else 0  # a result is never replaced, unless an option asks for it

    def half_written(self, folder: Path) -> set[tuple[Path, int]]:
        """Files below `folder` that are not in place yet, with their sizes."""
        return _sizes(path for path in folder.rglob("*") if ".partial" in str(path))

    def content(self, output: Path) -> dict[str, str]:
        """Digest of every file by its path within `output`; of a file of weights, the digest of each tensor."""
        from safetensors.torch import load_file

        found: dict[str, str] = {}
        for path in sorted(path for path in output.rglob("*") if path.is_file()):
            name = str(path.relative_to(output))
            if path.suffix == ".safetensors":
                for key, value in load_file(path).items():
                    found[f"{name}: {key}"] = _digest(value.contiguous().numpy().tobytes())
            else:
                found[name] = _digest(path.read_bytes())
        return found


@dataclass(frozen=True)
class PolicyTraining(Command):
    """lerobot-train, which goes on from its newest complete checkpoint; the result is all checkpoints of the run."""

    may_print_trace: ClassVar[bool] = True
    """LeRobot handles no signal, so that Python prints a stack trace after SIGINT."""

    @property
    def program(self) -> str:
        """Name under which a shell starts the command."""
        return self.module.replace("_", "-")

    def load(self) -> None:
        """Import what the command needs, also the policy, which LeRobot imports when it is built."""
        importlib.import_module(f"lerobot.scripts.{self.module}")
        importlib.import_module(f"{_POLICIES}.hlrp_action_expert_latent.modeling_hlrp_action_expert_latent")

    def main(self) -> None:
        """Run the command with the arguments in `sys.argv`."""
        importlib.import_module(f"lerobot.scripts.{self.module}").main()

    def arguments(self, output: Path) -> list[str]:
        """Return the flags that continue the run in `output`, or those of a new run if it has no whole checkpoint."""
        return list(resume_flags(output) or (*self.flags, f"--output_dir={output}"))

    def status(self, signum: int) -> int:
        """Return the exit status after a signal; 1 after SIGINT, which `multiprocessing` treats as any exception."""
        return 1 if signum == signal.SIGINT else -signum

    def status_of_repeated(self, output: Path) -> int:
        """Return 0: a complete run is resumed for no further step."""
        return 0

    def half_written(self, folder: Path) -> set[tuple[Path, int]]:
        """Files of all checkpoints, with their sizes: one that is new or has grown is being written."""
        return _sizes(path for path in folder.rglob("*") if "checkpoints" in path.parts)

    def content(self, output: Path) -> dict[str, str]:
        """Digest of every file of every checkpoint, and the name of the checkpoint to which `last` points."""
        checkpoints = output / "checkpoints"
        last = checkpoints / "last"
        found = {"last": str(last.readlink()) if last.is_symlink() else "missing"}
        for path in sorted(path for path in checkpoints.rglob("*") if path.is_file() and path.name not in _OF_THE_RUN):
            found[str(path.relative_to(output))] = _digest(path.read_bytes())
        return found


def _sizes(paths: Iterable[Path]) -> set[tuple[Path, int]]:
    found = set()
    for path in paths:
        try:
            if path.is_file():
                found.add((path, path.stat().st_size))
        except FileNotFoundError:
            continue
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
