from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from hlrp.cli.collect_demos import main
from hlrp.sim.gl_backend import choose_gl_backend


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", ["hlrp-collect-demos", *flags])
    main()


def test_the_command_records_and_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("metaworld") is None:
        pytest.skip("Meta-World is not installed")
    try:
        choose_gl_backend()
    except FileNotFoundError as error:
        pytest.skip(str(error))

    run(
        monkeypatch,
        f"--output_dir={tmp_path / 'demos'}",
        "--tasks=[button-press-topdown-v3]",
        "--episodes_per_task=1",
        "--image_size=16",
        "--num_workers=0",
        "--nuisance=camera",
    )
    header, row, total = capsys.readouterr().out.splitlines()[-3:]
    assert header.split() == ["task", "kept", "dropped", "mean", "length"]
    assert row.split()[:3] == ["button-press-topdown-v3", "1", "0"]
    assert "frames/s" in total
    info = json.loads((tmp_path / "demos" / "meta" / "info.json").read_text())
    assert info["features"]["nuisance"]["names"] == ["tilt", "pan", "roll"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tasks=[drawer-opn-v3]"], "did you mean drawer-open-v3"),
        (["--action_noise=-1"], "action_noise must be 0 or more"),
        (["--max_steps=600"], "max_steps must be at least 1"),
        (["--num_workers=-1"], "num_workers must be 0 or more"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, f"--output_dir={tmp_path / 'demos'}", *flags)
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SystemExit) as exit_:
        run(monkeypatch, f"--output_dir={tmp_path}")
    assert exit_.value.code == 2
    assert "already exists; remove it or choose another folder" in capsys.readouterr().err
