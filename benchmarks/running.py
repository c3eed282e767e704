"""Run the project's commands in subprocesses, and measure their CPU time and wall time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hlrp.cli.common import read_options, run_cli
from hlrp.storage.files import write_json
from hlrp.training.settings import require_same


@dataclass(frozen=True)
class Cost:
    """Time that a command took."""

    cpu_minutes: float
    """CPU time of the command and its child processes, summed over all cores."""
    wall_minutes: float
    """Time by the clock."""
    peak_gib: float = 0.0
    """Largest memory of the command, without its child processes, in GiB."""


def run_command(module: str, *flags: str, log: Path, append: bool = False, threads: int | None = 1) -> Cost:
    """Run `python -m module flags`; its output goes to `log`, or with `append` to its end.

    Args:
        module: Module to run.
        *flags: Options of its command line.
        log: File of its output.
        append: Whether the output goes to the end of an existing log.
        threads: Number of threads for computation; None for as many as without this benchmark.

    Raises:
        RuntimeError: If the command fails; the message holds the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_MININTERVAL": "10"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    start = time.perf_counter()
    with log.open("a" if append else "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *flags], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise command_failed(module, process.returncode, log)
    wall = (time.perf_counter() - start) / 60
    return Cost((usage.ru_utime + usage.ru_stime) / 60, wall, usage.ru_maxrss / 2**20)


def command_failed(module: str, status: int, log: Path) -> RuntimeError:
    """The error of a command that failed, with the end of its log."""
    end = " / ".join(log.read_text(encoding="utf-8").replace("\r", "\n").splitlines()[-4:])
    return RuntimeError(f"{module} failed with status {status}: {end} (all of it: {log})")


def train_laq(output: Path, *flags: str) -> None:
    """Train a LAQ with `hlrp-train-laq` into `output`, unless it exists; an interrupted training goes on."""
    if output.exists():
        return
    resume = ["--resume=true"] if output.with_name(f"{output.name}.training").joinpath("last.ckpt").is_file() else []
    cost = run_command("hlrp.cli.train_laq", f"--output_dir={output}", *flags, *resume, log=output.with_suffix(".log"))
    write_json(output / "cost.json", {**vars(cost), "resumed": bool(resume)})


def run_sections[C](
    names: Sequence[str],
    sections: Mapping[str, Callable[[C], Any]],
    config: C,
    output: Path,
    *,
    keys: Mapping[str, str],
    quick: bool,
    copies: Mapping[str, Path] | None = None,
) -> None:
    """Run sections one after the other; each writes its part of `output` when it is done, and the others are kept.

    Args:
        names: Sections to run.
        sections: Function of each section, by name.
        config: Argument of these functions.
        output: JSON file of the results.
        keys: Keys in the file of sections whose key is not their name.
        quick: Whether the results are rough; noted in the file.
        copies: Another JSON file that also gets the results of a section, by the section's key; its other keys are
            kept.
    """
    for name in names:
        print(f"── {name}", flush=True)
        results = sections[name](config)
        key = keys.get(name, name)
        merge_json(output, {key: results, "quick": quick})
        if copies is not None and key in copies:
            merge_json(copies[key], {key: results})
    print(f"results: {output}")


def merge_json(path: Path, values: Mapping[str, Any]) -> None:
    """Set keys of a JSON file, which need not exist; its other keys are kept."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, {**before, **values})


def require_same_settings(folder: Path, now: Mapping[str, Any]) -> None:
    """Raise if earlier results in `folder` were made with other settings: they would be mixed unnoticed.

    Raises:
        ValueError: With the option that differs.
    """
    path = folder / "settings.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        require_same(before, now, prefix="--", remedy="name another --output, or remove the earlier results")
    write_json(path, dict(now))


def run_benchmark[C](config_class: type[C], main: Callable[[C], None]) -> None:
    """Entry point of a benchmark: parse the options, where `--quick` needs no value, and call `main`."""
    arguments = ["--quick=true" if argument == "--quick" else argument for argument in sys.argv[1:]]
    run_cli(lambda: main(read_options(config_class, args=arguments)))


def require_known(name: str, chosen: Iterable[str], known: Iterable[str]) -> None:
    """Raise unless every name of the option `name` is among the `known` ones.

    Raises:
        ValueError: If a name is unknown.
    """
    if unknown := set(chosen) - set(known):
        raise ValueError(f"{name} must be some of {', '.join(known)}, got {', '.join(sorted(unknown))}")


def side_by_side[T](jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run `jobs`, as many at a time as there are cores, and return their results in order.

    The jobs run commands on one thread each, so that their CPU times can be compared.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(lambda job: job(), jobs))
