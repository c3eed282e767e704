"""A command's log of events is lines of JSON that a program can follow, whatever ends the command."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hlrp.runtime import event_log as module
from hlrp.runtime.event_log import appended_log, event_log, log_event
from hlrp.runtime.progress import Pace, ProgressBar, progress
from hlrp.runtime.signals import Stopped


@dataclass
class Options:
    steps: int = 3
    folder: Path = Path("x")


def events(path: Path) -> list[dict[str, Any]]:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def kinds(path: Path) -> list[str]:
    return [event["event"] for event in events(path)]


def test_a_log_has_start_facts_and_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with event_log(path, command="hlrp-x", options=Options()):
        log_event("progress", done=1, metrics={"loss": float("nan")}, folder=Path("y"))
    log_event("progress", done=2)  # outside of the block: nobody listens
    start, step, end = events(path)
    assert start["command"] == "hlrp-x"
    assert start["options"] == {"steps": 3, "folder": "x"}
    assert start["versions"].keys() >= {"python", "torch", "lerobot"}
    assert (step["event"], step["done"], step["metrics"], step["folder"]) == ("progress", 1, {"loss": "nan"}, "y")
    assert end["event"] == "end"
    assert end["seconds"] >= 0
    assert start["time"] <= step["time"] <= end["time"]


def test_a_second_run_continues_the_file_behind_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "end"}\n{"event": "prog')
    with event_log(path, command="hlrp-x", options=Options()):
        pass
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"event": "end"}', '{"event": "prog']
    assert [json.loads(line)["event"] for line in lines[2:]] == ["start", "end"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("a\n b"), {"event": "error", "kind": "ValueError", "text": "a b"}),
        (KeyboardInterrupt(), {"event": "stopped", "signal": "SIGINT"}),
        (Stopped(signal.SIGTERM), {"event": "stopped", "signal": "SIGTERM"}),
    ],
)
def test_the_last_event_says_what_ended_the_command(
    tmp_path: Path, error: BaseException, expected: dict[str, str]
) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.raises(type(error)), event_log(path, command="hlrp-x", options=Options()):
        raise error
    assert events(path)[-1].items() >= expected.items()


def test_messages_of_our_modules_and_warnings_of_all_are_events(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with event_log(path, command="hlrp-x", options=Options()):
        logging.getLogger("hlrp.data").warning("rough time stamps")
        logging.getLogger("other").warning("of another library")
        logging.getLogger("other").info("chatter")
    logging.getLogger("hlrp.data").warning("afterwards")
    assert [(event["event"], event["text"]) for event in events(path)[1:-1]] == [
        ("warning", "rough time stamps"),
        ("warning", "of another library"),
    ]


def test_a_worker_process_adds_to_the_log_without_start_and_end(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with event_log(path, command="hlrp-x", options=Options()):
        with appended_log(path, task=7):
            log_event("checkpoint", shard=1)
        with appended_log(None):
            log_event("checkpoint", shard=2)
    assert kinds(path) == ["start", "checkpoint", "checkpoint", "end"]
    assert [event.get("task") for event in events(path)] == [None, 7, None, None]


def test_without_a_log_nothing_is_written_and_further_training_processes_write_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with event_log(None, command="hlrp-x", options=Options()):
        log_event("progress", done=1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with event_log(tmp_path / "log.jsonl", command="hlrp-x", options=Options()):
        log_event("progress", done=1)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    for path, error, message in [
        (tmp_path, ValueError, "is a folder, expected the name of a file"),
        (tmp_path / "none" / "log.jsonl", FileNotFoundError, "does not exist; create it, or name another file"),
    ]:
        with pytest.raises(error, match=message), event_log(path, command="hlrp-x", options=Options()):
            pytest.fail("the work began")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_log_and_not_the_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with appended_log("/dev/full"):
        log_event("progress", done=1)
        log_event("progress", done=2)
    assert [record.message for record in caplog.records] == [
        "the log of events ends here, it cannot be written: [Errno 28] No space left on device"
    ]


def test_a_pace_tells_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("hlrp.runtime.progress.time.monotonic", lambda: now[0])
    pace = Pace("labelling", 50, unit="frame", done=10)
    assert pace.facts(10) == {
        "what": "labelling", "unit": "frame", "done": 10, "total": 50, "per_s": None, "left_s": None,
    }  # fmt: skip
    now[0] += 4
    assert pace.facts(18).items() >= {"done": 18, "per_s": 2.0, "left_s": 16.0}.items()
    assert Pace("reading", None, unit="item").facts(3)["left_s"] is None


def test_long_loops_are_events_and_short_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("hlrp.runtime.progress.time.monotonic", lambda: now[0])
    path = tmp_path / "log.jsonl"
    with appended_log(path):
        assert list(progress(range(3), "a short loop")) == [0, 1, 2]
        assert not path.exists()
        for _ in progress(iter("abcdefgh"), "a long loop"):
            now[0] += 2
        with ProgressBar("labelling", 4, unit="frame", done=2, is_shown=False) as bar:
            now[0] += 2
            bar.update(1)
            bar.update(1)
    assert [(event["what"], event["done"], event["total"]) for event in events(path)] == [
        ("a long loop", 1, None),
        ("a long loop", 4, None),
        ("a long loop", 7, None),
        ("a long loop", 8, None),
        ("labelling", 3, 4),
        ("labelling", 4, 4),
    ]


def test_only_the_innermost_command_gets_an_event(tmp_path: Path) -> None:
    with (
        event_log(tmp_path / "outer", command="hlrp-x", options=Options()),
        event_log(tmp_path / "inner", command="hlrp-y", options=Options()),
    ):
        log_event("saved", path="z")
    assert kinds(tmp_path / "inner") == ["start", "saved", "end"]
    assert kinds(tmp_path / "outer") == ["start", "end"]
    assert module._logs == []


def test_a_bar_is_turned_off_by_the_users_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "from hlrp.runtime.progress import ProgressBar\n"
        "with ProgressBar('decoding', 2, unit='frame') as bar:\n    bar.update(2)\n"
    )
    for value, is_shown in (("", True), ("1", False)):
        monkeypatch.setenv("TQDM_DISABLE", value)  # tqdm reads it when it is imported
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ("decoding" in done.stderr) == is_shown
