"""Kill each command while it works, run it again, and compare the result with that of an uninterrupted run.

    python -m benchmarks.scale_kills --labels=50 --laq=10 --foundation=10 --recorder=10 --pseudo_label=10 --policy=10

Each command is a process of its own, forked from this one after the libraries were imported, so that a kill always hits
the command's work and never the seconds in which Python imports torch. The signals KILL, TERM and INT take turns, and
so do three kinds of moments: any time; just before a file operation, such as the rename that puts a result in place;
and while a half-written file grows, such as the state of a training.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.scale_kills_commands import Command, PolicyTraining
from hlrp.cli.common import read_options, run_cli
from hlrp.storage.files import write_json

logger = logging.getLogger("hlrp.benchmarks")

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_KINDS = ("time", "operation", "growth")
_OPERATIONS = {
    **dict.fromkeys(("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"), 0),
    **dict.fromkeys(("shutil.rmtree", "shutil.move"), 0),
    "os.symlink": 1,
}
"""Audit events of Python that stand for file operations, each with the number of the argument that is a path."""
_POLL_S = 0.0002
"""Time between two looks at files that may grow."""
_LONGEST_S = 600
"""Time after which a command counts as hanging."""


@dataclass
class KillsConfig:
    """Number of kills of each command."""

    work_dir: Path = Path("outputs/benchmarks/kills")
    """Folder for all runs; it is emptied at the start."""
    labels: int = 50
    """Kills of hlrp-precompute-latent-codes, which replaces older labels."""
    laq: int = 10
    """Kills of hlrp-train-laq."""
    foundation: int = 10
    """Kills of hlrp-train-foundation."""
    recorder: int = 10
    """Kills of hlrp-collect-demos, with videos."""
    recorder_workers: int = 0
    """Worker processes of hlrp-collect-demos. Each worker imports the libraries anew, which takes most of a run."""
    pseudo_label: int = 10
    """Kills of hlrp-pseudo-label."""
    policy: int = 10
    """Kills of lerobot-train with the policy hlrp_action_expert_latent, which learns from noise."""
    seed: int = 0
    """Seed of the moments."""


@dataclass(frozen=True)
class Moment:
    """Signal that a run gets, and when."""

    signum: signal.Signals
    kind: str
    share: float
    """Place within the uninterrupted run, in [0, 1): of its time or of its file operations."""


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run."""

    output: Path
    """Folder of its result."""
    operations: int
    """Number of its file operations in the folder around `output`."""
    seconds: float
    """Time that it took."""


def kills(config: KillsConfig) -> dict[str, list[int]]:
    """Kill every command as often as `config` says.

    Returns:
        `[identical, all]` by command: kills after which the repeated run ended with the identical result and left no
        other files, and an older result had been whole until then; and all kills.
    """
    work = config.work_dir.resolve()
    shutil.rmtree(work, ignore_errors=True)
    commands = _commands(config, work)
    _prepare_this_process(commands)
    whole = {name: _run_whole(command, work / name / "whole" / "result") for name, command in commands.items()}
    _write_older_labels(commands, work)
    order = ("labels", "laq", "foundation", "pseudo_label", "recorder", "policy")
    return {name: _kill_often(name, commands[name], whole[name], config, work) for name in order}


def _kill_often(name: str, command: Command, whole: Whole, config: KillsConfig, work: Path) -> list[int]:
    """Kill one command as often as `config` says; returns the number of identical results, and of kills."""
    draw = random.Random(f"{config.seed} {name}")
    count, identical = getattr(config, name), 0
    for number in range(count):
        moment = Moment(_SIGNALS[number % 3], _KINDS[number // 3 % 3], draw.random())
        faults = _kill_and_repeat(command, whole, moment, work / name / str(number))
        identical += not faults
        outcome = "; ".join(faults) or "identical"
        logger.info(f"{name} {number + 1} of {count}, {moment.signum.name} by {moment.kind}: {outcome}")
    return [identical, count]


def _commands(config: KillsConfig, work: Path) -> dict[str, Command]:
    """Small runs of all commands; each works on the uninterrupted results of those before it."""
    whole = {name: work / name / "whole" / "result" for name in ("recorder", "laq", "labels", "foundation")}
    data, cpu = f"--dataset_root={whole['recorder']}", "--device=cpu"
    record = ("--tasks=[button-press-topdown-v3]", "--episodes_per_task=3", "--image_size=32", "--video=true")
    train = ("--batch_size=8", "--save_every=2", "--seed=1")
    debug = ("--backend.embedded_size=debug", "--backend.image_size=[32,32]")
    models = ("--model.members=1", "--model.steps=20", "--model.batch_size=8", "--model.width=8", "--model.folds=2")
    laq = f"--laq_path={whole['laq']}"
    return {
        "recorder": Command("collect_demos", (*record, f"--num_workers={config.recorder_workers}")),
        "laq": Command("train_laq", (data, cpu, "--preset=debug", "--steps=12", *train)),
        "labels": Command(
            "precompute_latent_codes", (data, cpu, laq, "--overwrite=true"), old=work / "other_labels" / "result"
        ),
        "foundation": Command(
            "train_foundation", (data, cpu, f"--labels_path={whole['labels']}", *debug, "--steps=10", *train)
        ),
        "pseudo_label": Command("pseudo_label", (data, cpu, laq, "--labelled_episodes=[0,1]", *models)),
        "policy": PolicyTraining("lerobot_train", _policy_flags(whole)),
    }


def _policy_flags(whole: dict[str, Path]) -> tuple[str, ...]:
    """Options of a short lerobot-train on the results of the other commands, which are in the folders `whole`."""
    return (
        "--policy.type=hlrp_action_expert_latent",
        f"--policy.vla_checkpoint_path={whole['foundation']}",
        f"--policy.latent_labels_path={whole['labels']}",
        "--policy.push_to_hub=false",
        "--policy.device=cpu",
        "--dataset.repo_id=local/demos",
        f"--dataset.root={whole['recorder']}",
        "--num_workers=0",
        "--batch_size=8",
        "--steps=6",
        "--save_freq=2",
        "--log_freq=1",
        "--seed=1",
    )


def _write_older_labels(commands: dict[str, Command], work: Path) -> None:
    """Write labels of another LAQ, which the labels of the killed runs replace."""
    laq = work / "other_laq" / "result"
    _run_whole(replace(commands["laq"], flags=(*commands["laq"].flags, "--seed=2")), laq)
    old = commands["labels"].old
    assert old is not None
    _run_whole(replace(commands["labels"], flags=(*commands["labels"].flags, f"--laq_path={laq}")), old)


def _prepare_this_process(commands: dict[str, Command]) -> None:
    """Import what the commands need; a fork then starts within milliseconds."""
    import torch

    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for command in commands.values():
        command.load()


def _run_whole(command: Command, output: Path) -> Whole:
    """Run `command` without an interruption into the folder `output`."""
    start = time.perf_counter()
    run = _Run(command, output)
    status = run.wait()
    if status:
        raise RuntimeError(f"the uninterrupted run of {command.module} failed with status {status}: {run.log_text()}")
    return Whole(output, run.operations, time.perf_counter() - start)


def _kill_and_repeat(command: Command, whole: Whole, moment: Moment, folder: Path) -> list[str]:
    """Kill one run and repeat it; returns what is wrong, nothing if the result is identical to that of `whole`."""
    output, share = folder / "result", moment.share
    while True:  # until a run is killed before it ends by itself
        if command.old is not None:
            shutil.copytree(command.old, output)
        killed = _Run(
            command, output, moment.signum, at=int(share * whole.operations) if moment.kind == "operation" else -1
        )
        if moment.kind != "operation":
            killed.kill(share * whole.seconds, when_growing=moment.kind == "growth")
        if (status := killed.wait()) != 0:
            break
        shutil.rmtree(folder)
        share *= 0.7
    faults = [f"status {status} after the signal"] if status != command.status(moment.signum) else []
    if "Traceback" in killed.log_text() and not command.may_print_trace:
        faults.append("a traceback after the signal")
    if command.old is not None:
        older = (command.content(command.old), command.content(whole.output))
        if command.content(output) not in older:
            faults.append("the older result was not whole")
    expected_status = command.status_of_repeated(output)
    again = _Run(command, output)
    if again.wait() != expected_status or "Traceback" in again.log_text():
        faults.append(f"the repeated run failed: {again.log_text().splitlines()[-1:]}")
    left = sorted(path.name for path in folder.iterdir() if path.suffix != ".log")
    if left != [output.name]:
        faults.append(f"left behind: {left}")
    ours, expected = command.content(output), command.content(whole.output)
    faults += [f"{name} differs" for name in sorted({*ours, *expected}) if ours.get(name) != expected.get(name)]
    if not faults:
        shutil.rmtree(folder)
    return faults


class _Run:
    """A command that runs in a forked process.

    Args:
        command: The command to run.
        output: Folder of its result; its log is beside it.
        signum: Signal that the process sends to itself before the file operation number `at`.
        at: Number of the operation, from 0; -1 for no signal.
    """

    def __init__(self, command: Command, output: Path, signum: int = 0, *, at: int = -1) -> None:
        self._command, self._folder, self._signum = command, output.parent, signum
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = self._folder / f"run{len(list(self._folder.glob('*.log')))}.log"
        fork: Any = multiprocessing.get_context("fork")
        self._operations = fork.RawValue("i", 0)  # without a lock, which a killed process could hold
        arguments = (command, output, self._log, self._operations, signum, at)
        self._process = fork.Process(target=_run_in_child, args=arguments)
        self._process.start()

    @property
    def operations(self) -> int:
        """Number of file operations in the folder of the result."""
        return self._operations.value

    def kill(self, after_s: float, *, when_growing: bool) -> None:
        """Send the signal after so many seconds, or then as soon as a half-written file has grown."""
        self._process.join(after_s)
        before = self._command.half_written(self._folder)
        while when_growing and self._process.is_alive() and not self._command.half_written(self._folder) - before:
            time.sleep(_POLL_S)
        if self._process.is_alive():
            os.kill(self._process.pid, self._signum)

    def wait(self) -> int:
        """Wait until the process has ended; returns its exit status, or the negative number of the signal."""
        self._process.join(_LONGEST_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            return 124  # as `timeout` ends
        return self._process.exitcode

    def log_text(self) -> str:
        """Return what the command printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")


def _run_in_child(command: Command, output: Path, log: Path, operations: Any, signum: int, at: int) -> None:
    """Run `command` in this forked process, and count its file operations in the folder of `output`."""
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets background processes ignore it
    sys.addaudithook(_counter(str(output.parent), operations, signum, at))
    sys.argv = [command.program, *command.arguments(output)]
    command.main()


def _counter(folder: str, operations: Any, signum: int, at: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that counts file operations below `folder`, and signals this process before number `at`."""
    process = os.getpid()

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        place = _OPERATIONS.get(event)
        if place is None or os.getpid() != process or len(arguments) <= place:
            return
        path = arguments[place]
        if isinstance(path, (str, os.PathLike)) and os.path.abspath(os.fspath(path)).startswith(f"{folder}{os.sep}"):
            number = operations.value
            operations.value += 1
            if number == at:
                os.kill(process, signum)

    return count


def _main(config: KillsConfig) -> None:
    found = kills(config)
    write_json(config.work_dir / "kills.json", found)
    for name, (identical, tried) in found.items():
        print(f"{name}: {identical} of {tried} identical")


if __name__ == "__main__":
    run_cli(lambda: _main(read_options(KillsConfig)))
