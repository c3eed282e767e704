from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
from itertools import count
from pathlib import Path

import pytest

from hlrp.storage import files as module
from hlrp.storage.files import (
    discard,
    new_directory,
    new_file,
    refuse_existing,
    scratch_directory,
    sole_writer,
    write_json,
)


def test_a_new_folder_appears_with_its_parents_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with new_directory(target) as folder:
        (folder / "file").write_text("1")
        assert not target.exists()
    assert (target / "file").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_an_error_on_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    def fill() -> None:
        with new_directory(tmp_path / "new") as folder:
            (folder / "half").write_text("…")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "thesis.tex").write_text("years of work")
    worked = False

    def fill() -> None:
        nonlocal worked
        with new_directory(tmp_path / "old", replaces=("laq.json", "old", "new")):
            worked = True

    with pytest.raises(
        FileExistsError, match=r"already exists and has no laq\.json, .*; remove it or choose another folder"
    ):
        fill()
    assert not worked
    assert (tmp_path / "old" / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_directory(tmp_path / "empty") as folder:
        (folder / "file").touch()
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["file"]


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        refuse_existing(tmp_path / "file", replaces=("file",))


def test_a_replaced_folder_keeps_nothing_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "laq"
    for text in ("old", "new"):
        with new_directory(target, replaces=("laq.json", "old", "new")) as folder:
            (folder / "laq.json").write_text(text)
            (folder / text).touch()
    assert sorted(path.name for path in target.iterdir()) == ["laq.json", "new"]
    assert (target / "laq.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_replacement_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "laq"
    with new_directory(target) as folder:
        (folder / "laq.json").write_text("old")

    def fill() -> None:
        with new_directory(target, replaces=("laq.json", "old", "new")):
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fill()
    assert (target / "laq.json").read_text() == "old"


def test_json_is_replaced_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "values.json"
    write_json(path, {"b": [1, 2], "a": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [1, 2], "a": "é"}
    with pytest.raises(TypeError):
        write_json(path, {"unspeakable": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": [1, 2], "a": "é"}
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_when_the_new_one_is_complete_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    os.link(path, tmp_path / "link")

    def write(fails: bool) -> None:
        with new_file(path) as scratch:
            scratch.write_text("new")
            assert path.read_text() == "old"
            if fails:
                raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write(fails=True)
    assert path.read_text() == "old"
    write(fails=False)
    assert (path.read_text(), (tmp_path / "link").read_text()) == ("new", "old")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "state"]


def test_a_second_writer_is_told_before_any_work(tmp_path: Path) -> None:
    with (tmp_path / ".labels.lock").open("w+") as lock:
        lock.write("process 7 on another machine")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process would hold it
        told = pytest.raises(FileExistsError, match=r"process 7 on another machine is writing .*labels; wait")
        with told, new_directory(tmp_path / "labels"):
            raise AssertionError("the work began")
    with sole_writer(tmp_path / "labels"):  # its owner has ended, and left the file
        with new_directory(tmp_path / "labels") as folder:
            (folder / "file").touch()
        with pytest.raises(FileExistsError, match="this process is writing"), sole_writer(tmp_path / "labels"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_a_claim_that_comes_to_nothing_leaves_no_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such dataset"), sole_writer(tmp_path / "a" / "b" / "laq"):
        raise ValueError("no such dataset")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".laq.partial" / "new").mkdir(parents=True)
    (tmp_path / ".laq.partial" / "new" / "half").touch()
    (tmp_path / ".laq-2.partial" / "new").mkdir(parents=True)  # of another run
    with new_directory(tmp_path / "laq") as folder:
        assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [".laq-2.partial", "laq"]


def test_a_replacement_that_was_killed_between_its_two_renames_loses_neither_folder(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / ".laq.partial" / name).mkdir(parents=True)
        (tmp_path / ".laq.partial" / name / "laq.json").write_text(name)
    with pytest.raises(FileExistsError, match="laq already exists"), new_directory(tmp_path / "laq"):
        pass
    assert (tmp_path / "laq" / "laq.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["laq"]


def test_a_writer_may_create_the_new_folder_itself(tmp_path: Path) -> None:
    with new_directory(tmp_path / "dataset", create=False) as folder:
        folder.mkdir()
        (folder / "file").touch()
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["file"]


def test_a_folder_below_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for below in (tmp_path / "file" / "new", tmp_path / "file" / "deep" / "new"):
        with pytest.raises(NotADirectoryError, match=f"{below} cannot be made, since {tmp_path / 'file'} is a file"):
            refuse_existing(below)


def test_files_of_others_in_a_folder_to_replace_are_refused_before_any_work(tmp_path: Path) -> None:
    for name in ("labels.json", "labels.parquet", "thesis.tex"):
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=r"also holds thesis\.tex, which would be deleted .*; move that away"):
        refuse_existing(tmp_path, replaces=("labels.json", "*.parquet"))
    (tmp_path / "thesis.tex").unlink()
    refuse_existing(tmp_path, replaces=("labels.json", "*.parquet"))


def test_a_link_or_a_mount_point_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name, target in (("link", "elsewhere"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        with pytest.raises(FileExistsError, match=f"{name} is a link; name the folder .*{target}"):
            refuse_existing(tmp_path / name)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "elsewhere")
    with pytest.raises(FileExistsError, match="elsewhere is a mount point, which cannot be replaced; choose a folder"):
        refuse_existing(tmp_path / "elsewhere")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders in one step")
def test_the_old_folder_is_in_place_until_the_new_one_is(tmp_path: Path) -> None:
    target = tmp_path / "laq"
    target.mkdir()
    (target / "laq.json").write_text("old")
    seen = set()
    is_watching = True

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if is_watching and str(tmp_path) in str(arguments[:1]):
            seen.add((target / "laq.json").is_file())

    sys.addaudithook(look)  # between any two file operations
    with new_directory(target, replaces=("laq.json",)) as folder:
        (folder / "laq.json").write_text("new")
    is_watching = False  # a hook cannot be removed
    assert seen == {True}
    assert (target / "laq.json").read_text() == "new"


def test_where_folders_cannot_be_exchanged_a_failure_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "laq"
    target.mkdir()
    (target / "laq.json").write_text("old")
    monkeypatch.setattr(module, "_exchange", lambda *_: False)
    rename = Path.rename

    def fails(self: Path, to: Path) -> Path:
        if self.name == "new":
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(self, to)

    def replace() -> None:
        with new_directory(target, replaces=("laq.json",)) as folder:
            (folder / "laq.json").write_text("new")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        with pytest.raises(OSError, match="busy"):
            replace()
    assert (target / "laq.json").read_text() == "old"
    replace()
    assert (target / "laq.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_lock_clears_what_a_killed_process_left(tmp_path: Path) -> None:
    for name in (".laq.partial/new", ".laq.scratch/half", ".other.scratch"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run").mkdir()
    with sole_writer(tmp_path / "laq"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".laq.lock", ".other.scratch", "run"]
        with scratch_directory(tmp_path / "laq") as scratch:
            (scratch / "file").touch()
        discard(tmp_path / "run", of=tmp_path / "laq")
    assert [path.name for path in tmp_path.iterdir()] == [".other.scratch"]


def test_a_process_that_is_killed_at_any_file_operation_leaves_the_old_or_the_new_folder(tmp_path: Path) -> None:
    """Fork a writer that kills itself before its first file operation, another before its second, and so on."""
    target = tmp_path / "laq"
    for number in count():
        write_laq(target, f"old {number}")
        child = os.fork()
        if child == 0:
            try:
                kill_at(number, tmp_path)
                write_laq(target, f"new {number}")
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert (target / "laq.json").read_text() in (f"old {number}", f"new {number}")
        if status == 0:  # there was no such operation
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        with sole_writer(target):
            assert sorted(path.name for path in tmp_path.iterdir()) == [".laq.lock", "laq"]
    assert number > 10


def write_laq(target: Path, text: str) -> None:
    with new_directory(target, replaces=("laq.json",)) as folder:
        (folder / "laq.json").write_text(text)


def kill_at(number: int, folder: Path) -> None:
    """Let this process kill itself before the file operation `number`, from 0, in `folder`."""
    numbers = count()

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if str(folder) in str(arguments[:1]) and next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
