"""Commands of benchmarks in forked processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import forked
from benchmarks.forked import run_forked


@pytest.fixture(autouse=True)
def import_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_IMPORTED", ())
    monkeypatch.setattr(forked, "_ENVIRONMENT", {})


def test_a_forked_command_writes_its_output_to_the_log_and_reports_its_cost(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"a": 1}', encoding="utf-8")
    log = tmp_path / "folder" / "command.log"
    flags = ("--compact", str(tmp_path / "in.json"))
    cost = run_forked("json.tool", *flags, log=log)
    run_forked("json.tool", *flags, log=log, append=True)
    assert log.read_text(encoding="utf-8") == '{"a":1}\n' * 2
    run_forked("json.tool", *flags, log=log)
    assert log.read_text(encoding="utf-8") == '{"a":1}\n'
    assert cost.wall_minutes > cost.cpu_minutes > 0
    assert cost.peak_gib > 0


def test_a_forked_command_that_fails_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"json.tool failed with status [12]: .*No such file"):
        run_forked("json.tool", str(tmp_path / "absent.json"), log=tmp_path / "command.log")
    with pytest.raises(RuntimeError, match=r"absent_module failed with status 1: .*No module named absent_module"):
        run_forked("absent_module", log=tmp_path / "command.log")
