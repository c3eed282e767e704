"""Labels of whole runs: interrupted, of damaged datasets, of films, of a foundation model, by several processes."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, NoReturn

import pytest
import torch

from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.data.label_file import LabelRows, LabelWriter, row_groups
from hlrp.data.labels import LatentLabels, find_labels, load_labels
from hlrp.labelling import cluster, engine, work_folder
from hlrp.labelling.config import TaskResources
from hlrp.labelling.engine import Labelled
from hlrp.laq.checkpoint import load_laq
from hlrp.latents import NO_LABEL
from policy_workshop import make_foundation, make_laq
from tiny_datasets import CAMERA, LENGTHS, create_dataset, moving_square, rename_tasks
from tiny_videos import write_pictures


@pytest.fixture
def config(laq_path: Path, video_dataset_root: Path, tmp_path: Path) -> PrecomputeConfig:
    """Label videos in three shards on the CPU."""
    return PrecomputeConfig(
        laq_path=str(laq_path),
        dataset_root=str(video_dataset_root),
        output_dir=str(tmp_path / "labels"),
        batch_size=8,
        shard_frames=35,
        device="cpu",
    )


def files(folder: Path | str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def run(config: PrecomputeConfig) -> Labelled:
    labelled = precompute_latent_codes(config)
    assert labelled is not None
    return labelled


def labels_of(config: PrecomputeConfig) -> LatentLabels:
    run(config)
    return load_labels(config.output_dir or "", with_vectors=True)


def stop(*args: object, **kwargs: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_an_interrupted_run_continues_with_its_finished_shards_to_the_same_bytes(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    whole = replace(config, output_dir=str(tmp_path / "whole"))
    run(whole)
    written: list[int] = []
    label = engine._label_shard

    def counted(job, work, fingerprint, batches, bar) -> None:  # type: ignore[no-untyped-def]
        if len(written) == finished:
            stop()
        label(job, work, fingerprint, batches, bar)
        written.append(1)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_label_shard", counted)
        patch.setattr(engine, "_add_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    shards = tmp_path / ".labels.shards"
    assert len(list(shards.glob("shard-*"))) == finished
    assert not (tmp_path / "labels").exists()
    written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_label_shard", lambda *args: (label(*args), written.append(1)))
        run(config)
    assert len(written) == 3 - finished
    assert files(tmp_path / "labels") == files(tmp_path / "whole")
    assert not shards.exists()


@pytest.mark.parametrize("before", ["note_finished", "remove"])
def test_a_run_that_was_killed_after_it_had_written_the_labels_is_found_finished(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(work_folder.WorkFolder, before, stop)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    written = files(tmp_path / "labels")
    labelled = run(config)
    assert (labelled.frames, labelled.labelled) == (sum(LENGTHS), sum(LENGTHS) - len(LENGTHS))
    assert files(tmp_path / "labels") == written
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_labels_that_an_interrupted_run_was_to_replace_are_not_taken_for_its_result(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config)
    whole = files(tmp_path / "labels")
    table = tmp_path / "labels" / "labels.parquet"
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    again = replace(config, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_add_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run(again)
    run(again)
    assert files(tmp_path / "labels") == whole


@pytest.mark.parametrize("change", ["batch_size", "shard_frames", "laq_path", "dataset_root"])
def test_shards_of_another_job_are_not_used(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_add_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    if change == "laq_path":
        value: object = str(make_laq(tmp_path / "laq", seed=3))
    elif change == "dataset_root":
        create_dataset(tmp_path / "data", video=True, seed=1)
        value = str(tmp_path / "data")
    else:
        value = getattr(config, change) // 2
    other = replace(config, **{change: value})
    whole = replace(other, output_dir=str(tmp_path / "whole"))
    run(whole)
    run(other)
    assert files(tmp_path / "labels") == files(tmp_path / "whole")


def test_a_damaged_shard_is_labelled_again(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(replace(config, output_dir=str(tmp_path / "whole")))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_add_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    path = next((tmp_path / ".labels.shards").glob("shard-*"))
    path.write_bytes(path.read_bytes()[:100])
    run(config)
    assert files(tmp_path / "labels") == files(tmp_path / "whole")


def test_a_table_does_not_depend_on_the_pieces_in_which_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hlrp.data.label_file.ROWS_OF_A_GROUP", 10)

    def rows(first: int, end: int) -> LabelRows:
        index = torch.arange(first, end)
        vectors = index[:, None].float().expand(-1, 6)
        return LabelRows(
            index=index, episode_index=index, frame_index=index, codes=index[:, None], vectors=vectors, valid=index > 3
        )

    for name, edges in {"one": [0, 33], "many": [0, 1, 9, 10, 25, 33]}.items():
        with LabelWriter(tmp_path / name, num_codes=1, width=6) as writer:
            for first, end in itertools.pairwise(edges):
                writer.add(rows(first, end))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
    assert [len(table) for table in row_groups(tmp_path / "one")] == [10, 10, 10, 3]


# ---- Episodes that cannot be read ----


@pytest.fixture
def damaged(image_dataset_root: Path, tmp_path: Path) -> Path:
    """A dataset whose picture of frame 3 of episode 1 is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = Path(shutil.copytree(image_dataset_root, tmp_path / "damaged"))
    (path,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(path)
    pictures = table.column(CAMERA).to_pylist()
    pictures[LENGTHS[0] + 3]["bytes"] = pictures[LENGTHS[0] + 3]["bytes"][:60]
    column = pa.array(pictures, type=table.schema.field(CAMERA).type)
    pq.write_table(table.set_column(table.column_names.index(CAMERA), table.schema.field(CAMERA), column), path)
    return root


def test_a_damaged_picture_ends_the_command_in_one_sentence(config: PrecomputeConfig, damaged: Path) -> None:
    with pytest.raises(ValueError, match=r"a picture of .* among the frames .* cannot be read"):
        run(replace(config, dataset_root=str(damaged)))


def test_bad_episodes_are_skipped_on_request_and_recorded(
    config: PrecomputeConfig, damaged: Path, image_dataset_root: Path, tmp_path: Path
) -> None:
    labelled = run(replace(config, dataset_root=str(damaged), skip_bad_episodes=True))
    assert list(labelled.skipped) == ["1"]
    assert "left out: episode 1, a picture of" in labelled.report()
    assert "cut by their episode's end, or are of an episode that was left out):" in labelled.report()
    labels = load_labels(tmp_path / "labels", with_vectors=True)
    assert labels.metadata.skipped_episodes == labelled.skipped
    assert str(tmp_path) not in (tmp_path / "labels" / "labels.json").read_text()
    whole = labels_of(replace(config, dataset_root=str(image_dataset_root), output_dir=str(tmp_path / "whole")))
    is_bad = whole.episode_index == 1
    assert not labels.valid[is_bad].any()
    assert (labels.codes[is_bad] == NO_LABEL).all()
    assert torch.equal(labels.codes[~is_bad], whole.codes[~is_bad])
    assert torch.equal(labels.valid[~is_bad], whole.valid[~is_bad])


# ---- Films, foundation models, copies of a dataset ----


def test_a_folder_of_films_is_labelled_like_a_dataset(config: PrecomputeConfig, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    first, second = (moving_square(15, seed=seed)[0] for seed in (0, 1))
    write_pictures(films / "a.mp4", list(first))
    write_pictures(films / "b.mp4", [*first, *(255 - second)])  # a scene cut after 15 frames
    job = replace(config, dataset_root=None, video_dir=str(films), output_dir=None)
    assert "(the rest are cut by their episode's end or by a scene cut):" in run(job).report()
    labels = load_labels(films / "latents")
    assert labels.metadata.episode_names == ["a.mp4", "b.mp4"]
    assert torch.bincount(labels.episode_index).tolist() == [15, 30]
    assert (~labels.valid).nonzero()[:, 0].tolist() == [14, 29, 44]
    assert (
        "(the rest are cut by their episode's end):"
        in run(replace(job, find_scene_cuts=False, overwrite=True)).report()
    )
    assert (~load_labels(films / "latents").valid).nonzero()[:, 0].tolist() == [14, 44]


def test_films_labelled_again_with_other_options_replace_the_labels_although_interrupted(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    pictures = moving_square(15, seed=0)[0]
    write_pictures(films / "one.mp4", [*pictures, *(255 - pictures)])  # a scene cut after 15 frames
    job = replace(config, dataset_root=None, video_dir=str(films))
    assert (~labels_of(job).valid).nonzero()[:, 0].tolist() == [14, 29]
    again = replace(job, find_scene_cuts=False, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_add_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run(again)
    assert (~labels_of(again).valid).nonzero()[:, 0].tolist() == [29]


def test_labels_of_a_foundation_model_say_so(config: PrecomputeConfig, tmp_path: Path) -> None:
    config = replace(config, laq_path=str(make_laq(tmp_path / "laq")))
    laq_labels = labels_of(config)
    vla = make_foundation(tmp_path / "vla", fingerprint=laq_labels.metadata.laq_fingerprint)
    predicted = labels_of(replace(config, vla_checkpoint=str(vla), output_dir=str(tmp_path / "predicted")))
    assert predicted.metadata.vla_fingerprint
    assert predicted.metadata.laq_fingerprint == laq_labels.metadata.laq_fingerprint
    assert predicted.metadata.mark != laq_labels.metadata.mark
    assert torch.equal(predicted.valid, laq_labels.valid)
    assert not torch.equal(predicted.codes, laq_labels.codes)
    assert predicted.vectors is not None
    assert predicted.vectors[predicted.valid].abs().sum(1).min() > 0


@pytest.mark.parametrize(("has_vla", "labelled_anew"), [(True, 3), (False, 0)])
def test_shards_of_a_foundation_model_are_used_under_the_same_instructions_only(
    config: PrecomputeConfig,
    video_dataset_root: Path,
    laq_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_vla: bool,
    labelled_anew: int,
) -> None:
    root = Path(shutil.copytree(video_dataset_root, tmp_path / "data"))
    if has_vla:
        laq = load_laq(laq_path)
        vla = make_foundation(tmp_path / "vla", fingerprint=laq.fingerprint, spec=laq.model.spec)
        config = replace(config, vla_checkpoint=str(vla))
    config = replace(config, dataset_root=str(root))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_add_all", stop)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    rename_tasks(root, ["Lift the square", "Lower the square"])
    label, written = engine._label_shard, []
    monkeypatch.setattr(engine, "_label_shard", lambda *args: (label(*args), written.append(1)))
    run(config)
    assert len(written) == labelled_anew


def test_a_foundation_model_of_another_laq_is_refused(config: PrecomputeConfig, tmp_path: Path) -> None:
    vla = make_foundation(tmp_path / "vla", fingerprint="0" * 16)
    with pytest.raises(ValueError, match=r"has codes of LAQ 0000000000000000.*name the LAQ whose codes"):
        run(replace(config, vla_checkpoint=str(vla)))


def test_videos_of_a_labelled_copy_are_linked(
    config: PrecomputeConfig, video_dataset_root: Path, tmp_path: Path
) -> None:
    run(replace(config, output_dir=None, output_dataset=str(tmp_path / "copy")))
    (video,), (same,) = ((root / "videos").rglob("*.mp4") for root in (tmp_path / "copy", video_dataset_root))
    assert os.path.samefile(video, same)
    assert find_labels(tmp_path / "copy").are_columns


def test_other_names_of_options(laq_path: Path, video_dataset_root: Path) -> None:
    named = PrecomputeConfig(dataset=str(video_dataset_root), laq_checkpoint=str(laq_path))
    assert named == PrecomputeConfig(dataset_root=str(video_dataset_root), laq_path=str(laq_path))
    assert PrecomputeConfig(dataset="lerobot/x") == PrecomputeConfig(dataset_repo_id="lerobot/x")
    with pytest.raises(ValueError, match="another name of laq_path"):
        PrecomputeConfig(laq_path="a", laq_checkpoint="b")
    with pytest.raises(ValueError, match="exclude each other"):
        PrecomputeConfig(video_dir="films", dataset="lerobot/x")


def test_finished_shards_and_the_result_are_events(config: PrecomputeConfig, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    run(replace(config, log_json=str(log), shard_frames=1))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    # Left out: progress on a busy machine, and warnings.
    kinds = ("start", "checkpoint", "saved", "end")
    start, *shards, saved, end = [event for event in events if event["event"] in kinds]
    assert (start["command"], start["options"]["shard_frames"]) == ("hlrp-precompute-latent-codes", 1)
    assert [(event["event"], event["shard"], event["frames"]) for event in shards] == [
        ("checkpoint", number, frames) for number, frames in enumerate(LENGTHS)
    ]
    assert (saved["event"], saved["frames"], end["event"]) == ("saved", sum(LENGTHS), "end")


# ---- Executors ----


class QuietExecutor:
    """Runs its tasks one after the other, and raises no error if one fails, like datatrove's executor of Ray."""

    def __init__(self, *, pipeline, tasks: int, logging_dir: str, depends: QuietExecutor | None = None) -> None:  # type: ignore[no-untyped-def]
        self.pipeline, self.tasks, self.depends = pipeline, tasks, depends

    def run(self) -> None:
        if self.depends is not None:
            self.depends.run()
        for rank in range(self.tasks):
            with suppress(Exception):
                self.pipeline[0](None, rank, self.tasks)


@pytest.fixture
def quiet(config: PrecomputeConfig, monkeypatch: pytest.MonkeyPatch) -> PrecomputeConfig:
    """Label with a `QuietExecutor` in place of datatrove's executors."""
    makers = dict.fromkeys(["local", "ray", "slurm"], lambda config: QuietExecutor)
    monkeypatch.setattr(cluster, "_executors", lambda: makers)
    monkeypatch.setattr(cluster, "require_packages", lambda *names, needed_for: None)
    return replace(config, executor="ray")


def test_a_merge_that_fails_after_tasks_of_a_cluster_is_an_error_and_keeps_the_shards(
    quiet: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_add_all", full)
        with pytest.raises(OSError, match="No space left"):
            precompute_latent_codes(quiet)
    assert len(list((tmp_path / ".labels.shards").glob("shard-*"))) == 3
    assert not (tmp_path / "labels").exists()
    assert run(quiet).frames == sum(LENGTHS)
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_a_task_that_fails_on_a_cluster_is_an_error_and_keeps_the_shards_of_the_others(
    quiet: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = cluster.label_shards

    def of_the_first_two(job, work, shards, **options) -> None:  # type: ignore[no-untyped-def]
        if shards[0].number == 2:
            raise OSError(errno.EIO, "Input/output error")
        label(job, work, shards, **options)

    monkeypatch.setattr(cluster, "label_shards", of_the_first_two)
    with pytest.raises(ValueError, match=r"1 of 3 shards have no labels, since their tasks failed; see .*logs, then"):
        precompute_latent_codes(quiet)
    assert len(list((tmp_path / ".labels.shards").glob("shard-*"))) == 2


def test_the_last_of_the_submitted_tasks_writes_the_labels(quiet: PrecomputeConfig, tmp_path: Path) -> None:
    submitted = replace(quiet, executor="slurm", resources=TaskResources(partition="cpu"))
    assert precompute_latent_codes(submitted) is None
    assert len(load_labels(tmp_path / "labels").codes) == sum(LENGTHS)


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_the_result_is_an_event_with_an_executor_too(
    quiet: PrecomputeConfig, tmp_path: Path, executor: Literal["local", "ray"]
) -> None:
    log = tmp_path / "log.jsonl"
    run(replace(quiet, executor=executor, log_json=str(log)))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (saved,) = (event for event in events if event["event"] == "saved")
    assert (saved["path"], saved["frames"]) == (str(tmp_path / "labels"), sum(LENGTHS))
    assert "task" not in saved


# ---- Processes ----


def command(config: PrecomputeConfig, *flags: str) -> list[str]:
    given = ("laq_path", "dataset_root", "output_dir", "batch_size", "shard_frames", "device")
    options = [f"--{name}={getattr(config, name)}" for name in given]
    return [sys.executable, "-m", "hlrp.cli.precompute_latent_codes", *options, *flags]


@pytest.mark.slow
def test_two_workers_of_datatrove_write_the_same_bytes(config: PrecomputeConfig, tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    run(replace(config, output_dir=str(tmp_path / "whole")))
    log = tmp_path / "log.jsonl"
    flags = ["--executor=local", "--tasks=2", "--workers=2", f"--log_json={log}"]
    done = subprocess.run(command(config, *flags), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "with a label" in done.stdout
    assert files(tmp_path / "labels") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "log.jsonl", "whole"]
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("start", "end")
    shards = sorted(event["shard"] for event in events if event["event"] == "checkpoint")
    assert shards == list(range(len(shards))), "the worker processes add to the same file"
    assert [event["frames"] for event in events if event["event"] == "saved"] == [sum(LENGTHS)]


def slurm_partition() -> str | None:
    """Default partition of the Slurm cluster of this machine; None where there is no cluster that answers."""
    if shutil.which("sinfo") is None:
        return None
    found = subprocess.run(["sinfo", "--noheader", "--format=%P"], capture_output=True, text=True, check=False)
    names = found.stdout.split()
    return next((name.rstrip("*") for name in names if name.endswith("*")), None)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["ray", "slurm"])
def test_tasks_on_a_cluster_write_the_same_bytes(config: PrecomputeConfig, tmp_path: Path, executor: str) -> None:
    resources = "cpus_per_task: 1"
    if executor == "ray":
        pytest.importorskip("ray")
    else:
        partition = slurm_partition()
        if partition is None:
            pytest.skip("needs a Slurm cluster whose nodes see this machine's files")
        resources += f", partition: {partition}, time: '00:10:00'"
    run(replace(config, output_dir=str(tmp_path / "whole")))
    flags = [f"--executor={executor}", "--tasks=2", f"--resources={{{resources}}}"]
    done = subprocess.run(command(config, *flags), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    deadline = time.monotonic() + 300
    while not (tmp_path / "labels").exists() and time.monotonic() < deadline:
        time.sleep(1)  # with Slurm, the command ends when the tasks are submitted
    assert files(tmp_path / "labels") == files(tmp_path / "whole")


@pytest.mark.slow
def test_a_task_that_fails_on_ray_ends_the_command_in_one_sentence(
    config: PrecomputeConfig, damaged: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    bad = replace(config, dataset_root=str(damaged), shard_frames=1)  # a shard an episode
    flags = ["--executor=ray", "--tasks=2", "--resources={cpus_per_task: 1}"]
    done = subprocess.run(command(bad, *flags), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert "shards have no labels, since their tasks failed; see" in done.stderr.splitlines()[-1]
    assert (tmp_path / ".labels.shards" / "shard-00000000.parquet").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_continues_to_the_same_bytes(config: PrecomputeConfig, tmp_path: Path, signum: int) -> None:
    small = replace(config, shard_frames=1, batch_size=2)  # a shard an episode
    run(replace(small, output_dir=str(tmp_path / "whole")))
    process = subprocess.Popen(command(small), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / ".labels.shards").glob("shard-*1.parquet")):
        time.sleep(0.001)
    process.send_signal(signum)
    process.wait(60)
    again = subprocess.run(command(small), capture_output=True, text=True, check=False, timeout=300)
    # The signal may have come when all was done, as the process ended.
    assert again.returncode == 0 or "labels already exists" in again.stderr, again.stderr[-2000:]
    assert files(tmp_path / "labels") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "whole"]


@pytest.mark.slow
def test_datatrove_is_not_imported_without_an_executor() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import sys, hlrp.labelling.cluster; print('datatrove' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert found.stdout.strip() == "False"


def test_labels_json_of_an_earlier_version_still_loads(config: PrecomputeConfig, tmp_path: Path) -> None:
    run(config)
    path = tmp_path / "labels" / "labels.json"
    values = json.loads(path.read_text())
    for name in ("vla_fingerprint", "skipped_episodes", "episode_names"):
        del values[name]
    path.write_text(json.dumps(values))
    assert load_labels(tmp_path / "labels").metadata.vla_fingerprint is None
