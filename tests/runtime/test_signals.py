from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hlrp.cli.common import run_cli
from hlrp.commands.running import resume_command
from hlrp.runtime.signals import Stopped, StopRequest, signals_unwind
from hlrp.storage.files import new_directory


@pytest.fixture
def hangup_by_default() -> Iterator[None]:
    """Let SIGHUP have its default effect, also if the tests were started by `nohup`, which makes them ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_by_default")
@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
    ids=lambda value: int(value),
)
def test_a_command_that_is_stopped_clears_up_and_ends_in_one_line_and_its_own_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], signum: signal.Signals, status: int
) -> None:
    def command() -> None:
        with new_directory(tmp_path / "labels") as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signum)
            raise AssertionError("the command went on")

    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with pytest.raises(SystemExit) as exit_:
        run_cli(command, when_stopped="; nothing is lost")
    assert exit_.value.code == status
    assert capsys.readouterr().err.splitlines() == [f"stopped by {signum.name}; nothing is lost"]
    assert list(tmp_path.iterdir()) == []
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == handlers


def test_what_a_caller_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_unwind(), StopRequest().listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_request_takes_note_of_the_first_signal_and_lets_others_wait() -> None:
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # `timeout` sends it twice
        assert request.signum == signal.SIGTERM
        request.signum = signal.SIGINT
        with pytest.raises(Stopped, match="stopped by SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/x/train_laq.py", "--steps=5"], "python -m hlrp.cli.train_laq --steps=5 --resume=true"),
        (["/x/hlrp-train-laq", "--resume=false", "--a=b c"], "/x/hlrp-train-laq '--a=b c' --resume=true"),
        (["/x/hlrp-train-laq", "--resume", "false", "--a"], "/x/hlrp-train-laq --a --resume=true"),
        (["/x/pytest"], "hlrp-train-laq with the same options and --resume=true"),
    ],
)
def test_the_command_that_resumes_is_the_one_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], command: str
) -> None:
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr("sys.executable", "python")
    assert resume_command("hlrp-train-laq") == command


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_an_import_ends_the_command_at_once_in_one_line(tmp_path: Path, signum: int) -> None:
    """A library could crash, or turn the exception into another one."""
    kill = f"os.kill(os.getpid(), {signum})"
    (tmp_path / "library.py").write_text(f"import os\ntry: {kill}\nexcept BaseException: raise RecursionError")
    command = "from hlrp.cli.common import run_cli\nrun_cli(lambda: __import__('library'), when_stopped='; again')"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    found = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    name = signal.Signals(signum).name
    assert (found.returncode, found.stderr) == (128 + signum, f"stopped by {name}; again\n")


def test_an_interrupt_that_a_library_turns_into_another_error_is_still_an_interrupt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("cannot go on") from None

    with pytest.raises(SystemExit) as exit_:
        run_cli(command)
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "stopped by SIGINT\n"


def test_what_a_library_says_about_objects_that_were_interrupted_is_not_shown() -> None:
    command = """
import os, signal
from hlrp.cli.common import run_cli

class Renderer:
    def __init__(self): os.kill(os.getpid(), signal.SIGTERM)
    def __del__(self): self.never_made

run_cli(Renderer)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False, env=environment
    )
    assert (found.returncode, found.stderr) == (143, "stopped by SIGTERM\n")
