"""A full disk ends a command with one sentence and status 1; earlier results and nothing else are left."""

from __future__ import annotations

import errno
import gc
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from hlrp.cli.combine_datasets import main as combine_datasets
from hlrp.cli.inspect_latents import main as inspect_latents
from hlrp.cli.pseudo_label import main as pseudo_label
from hlrp.data import combined_writer, rewritten_dataset
from hlrp.storage import files
from tiny_videos import write_video

TINY = ["--model.members=1", "--model.steps=2", "--model.batch_size=8", "--model.width=8", "--model.folds=2"]
SCRATCH = ["--start=scratch", "--image_size=32", "--labelled_episodes=[0,1]", "--device=cpu", *TINY]
END = "No space left on device; earlier results are unchanged: free some space, and run the command again"


def full(*args: object, **kwargs: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Folder with an earlier result, into which the command writes, too."""
    (tmp_path / "out" / "earlier").mkdir(parents=True)
    (tmp_path / "out" / "earlier" / "report.html").write_text("earlier", encoding="utf-8")
    return tmp_path / "out"


@pytest.fixture
def films(tmp_path: Path) -> str:
    """Option that adds a folder with a film."""
    (tmp_path / "films").mkdir()
    write_video(tmp_path / "films" / "a.mp4", 14, noise=2.0)
    return f"--sources=[{{video_dir: {tmp_path / 'films'}, instruction: Open the door}}]"


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file, and of every folder by its name alone."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def fails_in_one_sentence(
    main: Callable[[], None],
    flags: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run `main`, whose disk is full, and check that all files below `folder` are as before."""
    before = digests(folder)
    monkeypatch.setattr(sys, "argv", ["command", *flags])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    [sentence] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert sentence.endswith(END)
    end.value.__context__ = None  # frees what the command has opened
    gc.collect()
    assert digests(folder) == before


@pytest.mark.parametrize("place", [(files, "_flush"), (Path, "write_text")], ids=["flush", "write"])
def test_a_report_of_latents(
    laq_path: Path,
    image_dataset_root: Path,
    earlier: Path,
    place: tuple[object, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [f"--laq_path={laq_path}", f"--dataset_root={image_dataset_root}", "--device=cpu"]
    monkeypatch.setattr(*place, full)
    fails_in_one_sentence(inspect_latents, [*flags, f"--output_dir={earlier / 'new'}"], earlier, capsys, monkeypatch)


@pytest.mark.parametrize(
    "place",
    [
        (rewritten_dataset.pq.ParquetWriter, "write_table"),
        (rewritten_dataset, "link_or_copy"),
        (rewritten_dataset, "write_stats"),
        (files, "_flush"),
    ],
    ids=["rows", "videos", "statistics", "flush"],
)
def test_predicted_actions(
    video_dataset_root: Path,
    earlier: Path,
    place: tuple[object, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*place, full)
    flags = [f"--dataset_root={video_dataset_root}", *SCRATCH, f"--output_dir={earlier / 'new'}"]
    fails_in_one_sentence(pseudo_label, flags, earlier, capsys, monkeypatch)


@pytest.mark.parametrize(
    "place",
    [
        (LeRobotDatasetMetadata, "_close_writer"),
        (combined_writer.pq.ParquetWriter, "write_table"),
        (combined_writer, "link_or_copy"),
        (combined_writer, "encode_video"),
        (combined_writer, "write_stats"),
        (files, "_flush"),
    ],
    ids=["episodes", "rows", "videos", "films", "statistics", "flush"],
)
@pytest.mark.parametrize("command", [combine_datasets, pseudo_label])
def test_combined_sources(
    video_dataset_root: Path,
    films: str,
    earlier: Path,
    command: Callable[[], None],
    place: tuple[object, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Episodes that LeRobot still holds in memory must not reach the disk after the new folder was removed."""
    monkeypatch.setattr(*place, full)
    flags = [f"--dataset_root={video_dataset_root}", films, *(SCRATCH if command is pseudo_label else [])]
    fails_in_one_sentence(command, [*flags, f"--output_dir={earlier / 'new'}"], earlier, capsys, monkeypatch)
