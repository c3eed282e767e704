"""Damaged and hostile files: how the real loaders respond to 200 mutations of datasets, labels and checkpoints.

    python -m benchmarks.scale_mutations                      # all of them, about six minutes on one core
    python -m benchmarks.scale_mutations --only=labels.json   # those whose name contains this text

Small artefacts are made once in a temporary folder: datasets with videos and with images, labels, a LAQ, a foundation
model and a policy. A mutation changes one copy of an artefact, and a child process with a limit on memory and time
loads the copy as the commands do. Classes of the results:

clear     one sentence that names the artefact, and an exit status that is not 0
unharmed  exit status 0, and the same result as from the artefact without the mutation
trace     a stack trace, or a message that does not say which artefact is wrong
silent    exit status 0 with another result than before, or code from the artefact was run
hang      no end within the time limit
killed    ended by a signal, or out of memory
"""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.running import run_benchmark
from benchmarks.scale_mutations_artefacts import ENTRIES, RAN, make_artefacts
from benchmarks.scale_mutations_cases import Mutation, all_mutations
from hlrp.cli.common import run_cli

CLASSES = ("clear", "unharmed", "trace", "silent", "hang", "killed")
HANDLED = ("clear", "unharmed")
_OUT_OF_MEMORY, _TRACE = 77, 78
"""Exit statuses of a child, beside those of `run_cli`."""
_LONGEST_SENTENCE = 1000


@dataclass
class MutationConfig:
    """Load damaged and hostile artefacts, and count what happens."""

    only: str = ""
    """Run only the mutations whose name contains this text."""
    time_limit_s: float = 60.0
    """Time after which a loader counts as hanging, in seconds."""
    memory_gib: float = 2.0
    """Memory that a loader may take beyond that of the process it starts in, in GiB."""
    quick: bool = False
    """Run only every tenth mutation."""
    show: bool = False
    """Print the message of every mutation, not only of those that were not handled."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one mutation."""

    kind: str
    """One of `CLASSES`."""
    said: str
    """End of what the child printed."""


def mutations(config: MutationConfig) -> dict[str, int]:
    """Run the mutations; print those that were not handled, and return the number of mutations in each class."""
    torch.set_num_threads(1)
    chosen = [case for case in all_mutations() if config.only in case.name][:: 10 if config.quick else 1]
    counts: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_artefacts(root / "whole")
        expected = {name: _reference(name, root) for name in sorted({case.entry for case in chosen})}
        start = time.monotonic()
        for case in chosen:
            found = _try(case, expected[case.entry], root, config)
            counts[found.kind] += 1
            if config.show or found.kind not in HANDLED:
                print(f"{found.kind:9}{case.name}\n         {found.said}", flush=True)
        print(f"{dict(counts)} of {len(chosen)} mutations, {time.monotonic() - start:.0f} s")
    return dict(counts)


def _reference(entry: str, root: Path) -> Any:
    """Result of an entry on the artefact as it was made."""
    status, said, result = _in_child(entry, root / "whole", root / "whole", time_limit_s=300, memory_gib=8)
    if status != 0:
        raise RuntimeError(f"{entry} fails on an artefact without mutation: {said[-2000:]}")
    return result


def _try(case: Mutation, expected: Any, root: Path, config: MutationConfig) -> Outcome:
    changed = root / "changed"
    shutil.rmtree(changed, ignore_errors=True)
    changed.mkdir()
    artefact = ENTRIES[case.entry].artefact
    shutil.copytree(root / "whole" / artefact, changed / artefact)
    case.change(changed / artefact)
    start = time.monotonic()
    status, said, result = _in_child(
        case.entry, changed, root / "whole", time_limit_s=config.time_limit_s, memory_gib=config.memory_gib
    )
    kind = _kind(status, said, result, expected, changed)
    last = said.strip().splitlines()[-1:] or [""]
    return Outcome(kind, f"[{status}, {time.monotonic() - start:.1f} s] {last[0][:_LONGEST_SENTENCE]}")


def _kind(status: int | None, said: str, result: Any, expected: Any, changed: Path) -> str:
    if (changed / RAN).exists():
        return "silent"
    if status is None:
        return "hang"
    if status < 0 or status == _OUT_OF_MEMORY:
        return "killed"
    if status == 0:
        return "unharmed" if _same(result, expected) else "silent"
    sentence = next((line for line in said.splitlines() if line.startswith("error: ")), "")
    names = {path.name for path in changed.rglob("*")}
    names_artefact = "flags.txt" in names or str(changed) in sentence or any(name in sentence for name in names)
    is_clear = names_artefact and len(sentence) <= _LONGEST_SENTENCE and "Traceback" not in said
    return "clear" if is_clear else "trace"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    return bool(one == other)


def _in_child(
    entry: str, changed: Path, whole: Path, *, time_limit_s: float, memory_gib: float
) -> tuple[int | None, str, Any]:
    """Run an entry in a child process; returns its exit status (None after the time limit), its output and result."""
    output, answer = changed / "output.txt", changed / "answer.pickle"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_child(lambda: ENTRIES[entry].load(changed, whole), output, answer, memory_gib)
    status = _wait(pid, time_limit_s)
    said = output.read_text(errors="replace") if output.is_file() else ""
    result = pickle.loads(answer.read_bytes()) if status == 0 else None  # written by our own child
    return status, said, result


def _be_child(load: Callable[[], Any], output: Path, answer: Path, memory_gib: float) -> None:
    """Load with limited memory, write the result to `answer`, and end this process."""
    os.setsid()
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    status = 0
    try:
        run_cli(lambda: answer.write_bytes(pickle.dumps(load())))
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 2
    except BaseException as error:
        traceback.print_exc()
        is_memory = isinstance(error, MemoryError) or "allocate memory" in str(error)
        status = _OUT_OF_MEMORY if is_memory else _TRACE
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _wait(pid: int, time_limit_s: float) -> int | None:
    """Exit status of a child, negative for a signal; None if it had to be ended after the time limit."""
    end = time.monotonic() + time_limit_s
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main(config: MutationConfig) -> None:
    """Run the mutations; the exit status is 1 if one of them was not handled."""
    counts = mutations(config)
    if unhandled := [name for name in CLASSES if name not in HANDLED and counts[name]]:
        raise RuntimeError(f"not all mutations were handled: {', '.join(f'{counts[n]} {n}' for n in unhandled)}")


if __name__ == "__main__":
    run_benchmark(MutationConfig, main)
