from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from damaged_files import damaged
from hlrp.demo.config import DemoConfig
from hlrp.demo.pipeline import act_stages, main_stages
from hlrp.demo.stages import Progress, Stage, StageFailed, run_stages


def python(code: str, name: str = "one", **options: object) -> Stage:
    return Stage(name=name, title=name, command=(sys.executable, "-c", code), **options)  # pyright: ignore[reportArgumentType]


def progress(folder: Path) -> Progress:
    return Progress(folder / "progress.json")


def test_a_done_stage_is_not_run_again(tmp_path: Path) -> None:
    stage = python(f"open({str(tmp_path / 'count')!r}, 'a').write('x')")
    for _ in range(2):
        run_stages([stage], progress(tmp_path), tmp_path / "logs")
    assert (tmp_path / "count").read_text() == "x"
    record = json.loads((tmp_path / "progress.json").read_text())["one"]
    assert record["done"]
    assert record["seconds"] > 0


def test_a_failed_stage_stops_the_pipeline_and_is_the_first_of_the_next_call(tmp_path: Path) -> None:
    flag = tmp_path / "mended"
    first = python("print('first')", name="first")
    second = python(f"import pathlib, sys; sys.exit(not pathlib.Path({str(flag)!r}).exists())", name="second")
    with pytest.raises(StageFailed, match="the stage 'second' failed"):
        run_stages([first, second], progress(tmp_path), tmp_path / "logs")
    flag.touch()
    again = progress(tmp_path)
    assert again.is_done(first)
    assert not again.is_done(second)
    run_stages([first, second], again, tmp_path / "logs")
    assert again.is_done(second)


def test_an_interrupted_stage_continues_with_its_own_command(tmp_path: Path) -> None:
    out = tmp_path / "out"
    stage = python(
        "import sys; sys.exit(1)",
        resume=lambda: (sys.executable, "-c", f"open({str(out)!r}, 'w').write('continued')"),
    )
    run_stages([stage], progress(tmp_path), tmp_path / "logs")
    assert out.read_text() == "continued"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    run_stages([python("pass")], progress(tmp_path), tmp_path / "logs")
    for how in damaged(tmp_path / "progress.json"):
        if how == "other":  # no stage has been run: a record as good as any
            continue
        with pytest.raises(ValueError, match=r"progress\.json is damaged .* remove the folder and start the demo anew"):
            progress(tmp_path)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    run_stages([python("pass")], progress(tmp_path), tmp_path / "logs")
    with pytest.raises(ValueError, match="made with other settings for the stage 'one'"):
        run_stages([python("pass # changed")], progress(tmp_path), tmp_path / "logs")


def test_a_time_limit_ends_a_stage_well(tmp_path: Path) -> None:
    slow = python("import time; time.sleep(60)", time_limit_s=1.0)
    done = progress(tmp_path)
    run_stages([slow], done, tmp_path / "logs")
    assert done.is_done(slow)
    assert 1 <= done.stages["one"]["seconds"] < 30


def test_a_stopped_stage_clears_up_after_itself(tmp_path: Path) -> None:
    half = tmp_path / "half"
    code = f"""
import pathlib, time
half = pathlib.Path({str(half)!r})
try:
    half.touch()
    time.sleep(60)
finally:
    half.unlink()
"""
    run_stages([python(code, time_limit_s=4.0)], progress(tmp_path), tmp_path / "logs")
    assert not half.exists()


def test_a_module_that_is_needed_next_is_imported_while_the_stage_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needed_next.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    monkeypatch.syspath_prepend(str(tmp_path))
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'imported')!r}).exists(): time.sleep(0.01)"
    stages = [
        python(wait, name="first", imports_meanwhile="needed_next", time_limit_s=60),
        python("pass", name="second", imports_meanwhile="no_such_module"),
    ]
    done = progress(tmp_path)
    run_stages(stages, done, tmp_path / "logs")
    assert done.stages["first"]["seconds"] < 60
    assert done.is_done(stages[1])


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    run_stages([python("print('hello from the stage')")], progress(tmp_path), tmp_path / "logs")
    assert "hello from the stage" in (tmp_path / "logs" / "one.log").read_text()


def test_memory_is_measured(tmp_path: Path) -> None:
    done = progress(tmp_path)
    stage = python("import time; block = b'x' * (300 * 2**20); time.sleep(2)")
    run_stages([stage], done, tmp_path / "logs")
    assert 0.29 < done.stages["one"]["peak_gib"] < 0.6


def test_the_pipeline_has_every_stage_once_and_in_order(tmp_path: Path) -> None:
    stages = main_stages(DemoConfig(output_dir=tmp_path))
    assert [stage.name for stage in stages] == [
        "demonstrations",
        "laq",
        "labels",
        "foundation",
        "hlrp_vla_direct",
        "eval_hlrp_vla_direct",
    ]
    assert [stage.name for stage in act_stages(DemoConfig(output_dir=tmp_path), seconds=9)] == ["act", "eval_act"]


def test_what_an_interruption_left_half_made_is_cleared_or_continued(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in main_stages(DemoConfig(output_dir=tmp_path))}
    (tmp_path / "dataset").mkdir()
    assert stages["demonstrations"].resume() is None
    assert not (tmp_path / "dataset").exists()
    (tmp_path / "laq.training").mkdir()
    (tmp_path / "laq.training" / "last.ckpt").touch()
    assert (stages["laq"].resume() or ())[-1] == "--resume=true"
    last = tmp_path / "hlrp_vla_direct" / "checkpoints" / "last" / "pretrained_model"
    last.mkdir(parents=True)
    (last / "train_config.json").touch()
    assert "--resume=true" in (stages["hlrp_vla_direct"].resume() or ())


def policy_stage(output_dir: Path) -> Stage:
    return next(stage for stage in main_stages(DemoConfig(output_dir=output_dir)) if stage.name == "hlrp_vla_direct")


def checkpoint(output_dir: Path, step: str) -> Path:
    """Make a checkpoint as lerobot-train has it when everything but the link `last` is written."""
    folder = output_dir / "hlrp_vla_direct" / "checkpoints" / step
    (folder / "pretrained_model").mkdir(parents=True)
    (folder / "pretrained_model" / "train_config.json").touch()
    return folder


def test_a_policy_killed_while_the_link_to_its_last_checkpoint_was_replaced_continues(tmp_path: Path) -> None:
    for step in ("000140", "000280"):
        folder = checkpoint(tmp_path, step)
    assert "--resume=true" in (policy_stage(tmp_path).resume() or ())
    assert (folder.parent / "last").readlink() == Path("000280")


def test_a_half_written_checkpoint_is_not_continued(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "000140")
    assert policy_stage(tmp_path).resume() is None  # the first one has no link yet
    assert not folder.exists()
    last = checkpoint(tmp_path, "000140").with_name("last")
    last.symlink_to("000140")
    checkpoint(tmp_path, "000280")
    assert "--resume=true" in (policy_stage(tmp_path).resume() or ())
    assert last.readlink() == Path("000140")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"baseline": "pi0"}, "baseline must be 'act'"),
        ({"tasks": []}, "at least one"),
        ({"laq_steps": 19}, "laq_steps must be 20 or more, got 19"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DemoConfig(**settings)  # pyright: ignore[reportArgumentType]
