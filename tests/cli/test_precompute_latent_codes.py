from __future__ import annotations

import errno
import fcntl
import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.cli.precompute_latent_codes import PrecomputeConfig, main, precompute_latent_codes
from hlrp.cli.train_foundation import TrainFoundationConfig, train_foundation
from hlrp.commands import precompute_latent_codes as command
from hlrp.data import label_file, rewritten_dataset
from hlrp.data.dataset import episode_bounds, episode_of_frame, open_dataset
from hlrp.data.frames import open_frames
from hlrp.data.labels import (
    CODES,
    VALID,
    VECTORS,
    LatentLabels,
    find_labels,
    load_label_columns,
    load_labels,
    require_labels_of,
)
from hlrp.labelling import engine
from hlrp.laq.checkpoint import load_laq
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import NO_LABEL
from hlrp.report.saving import save_laq
from lerobot_policy_felix_bundle.policies.common.label_table import LabelTable
from tiny_datasets import CAMERA, LENGTHS


@pytest.fixture
def root(image_dataset_root: Path, tmp_path: Path) -> Path:
    """A copy of the recorded images that a test may write into."""
    return Path(shutil.copytree(image_dataset_root, tmp_path / "data"))


@pytest.fixture
def config(laq_path: Path, root: Path) -> PrecomputeConfig:
    """Label that copy on the CPU."""
    return PrecomputeConfig(laq_path=str(laq_path), dataset_root=str(root), batch_size=32, device="cpu")


def label(config: PrecomputeConfig, folder: Path | str | None = None) -> LatentLabels:
    """Run the command and read the labels with their vectors, by default from the dataset's folder."""
    precompute_latent_codes(config)
    return load_labels(folder or config.output_dir or Path(config.dataset_root or "") / "latents", with_vectors=True)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_labels_beside_the_data_touch_nothing_of_it(config: PrecomputeConfig, root: Path) -> None:
    before = digests(root)
    precompute_latent_codes(config)
    after = digests(root)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"latents/labels.parquet", "latents/labels.json"}


def test_every_label_is_what_the_quantizer_says_about_the_clip_that_starts_there(
    config: PrecomputeConfig, root: Path, laq_path: Path
) -> None:
    precompute_latent_codes(config)
    labels = load_labels(root / "latents", with_vectors=True)
    laq, dataset = load_laq(laq_path), open_dataset("local/x", root)
    frames = open_frames(dataset, CAMERA, laq.model.config.image_size, cache_gib=0)
    for start in (0, 5, 12, 30, 90):
        actions = laq.model.encode(frames.read(torch.tensor([[start, start + 1]])))
        assert torch.equal(labels.codes[start], actions.require_codes().flatten())
        assert labels.vectors is not None
        torch.testing.assert_close(labels.vectors[start], actions.require_vectors().flatten())
    assert labels.metadata.laq_fingerprint == laq.fingerprint
    assert labels.metadata.spec == laq.model.spec
    assert (labels.metadata.camera, labels.metadata.fps) == (CAMERA, 10.0)
    torch.testing.assert_close(labels.codebook, laq.model.codebook())


def test_a_clip_cut_by_the_end_of_its_episode_has_no_label(config: PrecomputeConfig) -> None:
    labels = label(config)
    last = torch.tensor(LENGTHS).cumsum(0) - 1
    assert torch.equal((~labels.valid).nonzero()[:, 0], last)
    assert (labels.codes[last] == NO_LABEL).all()
    assert (labels.codes[labels.valid] >= 0).all()
    assert labels.vectors is not None
    assert labels.vectors[last].count_nonzero() == 0


def test_labels_as_columns_agree_with_labels_beside_the_data_frame_by_frame(
    config: PrecomputeConfig, root: Path, tmp_path: Path
) -> None:
    beside = label(config)
    config.output_dataset = str(tmp_path / "labelled")
    before = digests(root)
    precompute_latent_codes(config)
    assert digests(root) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "labelled"]

    columns = load_label_columns(tmp_path / "labelled")
    assert columns.metadata == replace(beside.metadata, frames=None) == find_labels(tmp_path / "labelled").metadata
    for name in ("codes", "valid", "episode_index", "frame_index"):
        assert torch.equal(getattr(columns, name), getattr(beside, name)), name

    assert beside.vectors is not None
    labelled, plain = (LeRobotDataset("local/x", root=path) for path in (tmp_path / "labelled", root))
    assert len(labelled) == len(plain)
    for i in range(0, len(plain), 7):
        item, same = labelled[i], plain[i]
        assert torch.equal(item[CODES], beside.codes[i])
        assert torch.equal(item[VECTORS], beside.vectors[i])
        assert bool(item[VALID]) == bool(beside.valid[i])
        assert torch.equal(item[CAMERA], same[CAMERA])
        assert torch.equal(item["action"], same["action"])
        assert item["task"] == same["task"]


def test_a_labelled_video_dataset_keeps_its_videos(
    config: PrecomputeConfig, video_dataset_root: Path, tmp_path: Path
) -> None:
    config.dataset_root = str(video_dataset_root)
    labels = label(config, video_dataset_root / "latents")
    shutil.rmtree(video_dataset_root / "latents")
    config.output_dataset = str(tmp_path / "labelled")
    before = digests(video_dataset_root)
    precompute_latent_codes(config)
    assert digests(video_dataset_root) == before
    labelled, plain = (LeRobotDataset("local/x", root=path) for path in (tmp_path / "labelled", video_dataset_root))
    assert torch.equal(labelled[40][CAMERA], plain[40][CAMERA])
    assert torch.equal(labelled[40][CODES], labels.codes[40])


@pytest.mark.parametrize(("code_seq_len", "num_frames", "frame_offset_s"), [(1, 2, 0.1), (1, 3, 0.3), (4, 3, 0.1)])
def test_labels_of_any_geometry_agree_both_ways(
    config: PrecomputeConfig,
    root: Path,
    tmp_path: Path,
    laq_path: Path,
    code_seq_len: int,
    num_frames: int,
    frame_offset_s: float,
) -> None:
    spec = replace(debug().spec, code_seq_len=code_seq_len, num_frames=num_frames, frame_offset_s=frame_offset_s)
    model = LatentActionQuantizer(replace(debug(), spec=spec)).eval()
    save_laq(model, tmp_path / "laq", cameras=[CAMERA], quality=None, extra={})
    config.laq_path = str(tmp_path / "laq")
    labels = label(config)
    config.output_dataset = str(tmp_path / "labelled")
    precompute_latent_codes(config)
    columns = load_label_columns(tmp_path / "labelled")
    assert torch.equal(columns.codes, labels.codes)
    assert torch.equal(columns.valid, labels.valid)
    span = spec.frame_deltas(10.0)[-1]
    assert int((~labels.valid).sum()) == span * len(LENGTHS)
    assert (
        LeRobotDataset("local/x", root=tmp_path / "labelled")[0][CODES].reshape(-1).tolist() == labels.codes[0].tolist()
    )


def test_a_continuous_quantizer_labels_with_vectors_and_no_codes(
    config: PrecomputeConfig, root: Path, tmp_path: Path
) -> None:
    model = LatentActionQuantizer(replace(debug(), quantizer="continuous")).eval()
    save_laq(model, tmp_path / "laq", cameras=[CAMERA], quality=None, extra={})
    config.laq_path = str(tmp_path / "laq")
    labels = label(config)
    assert (labels.codes == NO_LABEL).all()
    assert labels.valid.any()
    assert labels.vectors is not None
    assert (labels.vectors[labels.valid].abs().amax(1) > 0).all()
    assert labels.metadata.codebook == []
    dataset = open_dataset("local/x", root)
    with pytest.raises(ValueError, match="hold vectors but no codes"):
        LabelTable.of_dataset(dataset.meta, None, with_vectors=False)
    with pytest.raises(ValueError, match="hold vectors but no codes"):
        train_foundation(TrainFoundationConfig(dataset_root=str(root), output_dir=str(tmp_path / "vla")))


def test_labels_do_not_depend_on_the_size_of_a_batch_or_of_a_shard(config: PrecomputeConfig, tmp_path: Path) -> None:
    one = label(config)
    config.batch_size, config.shard_frames, config.output_dir = 5, 20, str(tmp_path / "other")
    assert torch.equal(label(config).codes, one.codes)


def test_labels_fit_their_own_dataset_and_not_one_without_its_first_episode(
    labelled_dataset_root: Path, image_dataset_root: Path
) -> None:
    labels = find_labels(labelled_dataset_root)
    bounds = episode_bounds(open_dataset("local/x", image_dataset_root).meta)
    episode = episode_of_frame(bounds)
    frame = torch.arange(len(episode)) - bounds[episode, 0]
    require_labels_of(labels, episode_index=episode, frame_index=frame)
    with pytest.raises(ValueError, match="of another version of this dataset"):
        require_labels_of(labels, episode_index=episode[12:] - 1, frame_index=frame[12:])


def test_labels_are_written_again_only_on_request(config: PrecomputeConfig, root: Path) -> None:
    before = {path.name for path in root.iterdir()}
    precompute_latent_codes(config)
    with pytest.raises(FileExistsError, match="latents already exists"):
        precompute_latent_codes(config)
    config.overwrite = True
    precompute_latent_codes(config)
    assert {path.name for path in root.iterdir()} == {*before, "latents"}


def test_a_second_labeller_is_told_before_it_works(
    config: PrecomputeConfig, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.overwrite = True
    first = label(config)
    monkeypatch.setattr(command, "label_shards", lambda *args, **kwargs: pytest.fail("it began to work"))
    with (root / ".latents.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process holds it
        with pytest.raises(FileExistsError, match=r"is writing .*latents; wait until it has ended"):
            precompute_latent_codes(config)
    assert torch.equal(load_labels(root / "latents").codes, first.codes)


def test_a_dataset_is_never_overwritten(config: PrecomputeConfig, root: Path) -> None:
    config.overwrite = True
    before = digests(root)
    for name in ("output_dataset", "output_dir"):
        with pytest.raises(FileExistsError):
            precompute_latent_codes(PrecomputeConfig(**{**vars(config), name: str(root)}))
    assert digests(root) == before


def test_an_empty_folder_may_become_the_labelled_dataset(config: PrecomputeConfig, tmp_path: Path) -> None:
    (tmp_path / "labelled").mkdir()
    config.output_dataset = str(tmp_path / "labelled")
    precompute_latent_codes(config)
    assert (tmp_path / "labelled" / "meta" / "info.json").is_file()


def test_labels_go_to_one_place_only(config: PrecomputeConfig) -> None:
    with pytest.raises(ValueError, match="output_dir or output_dataset, not both"):
        PrecomputeConfig(**{**vars(config), "output_dir": "a", "output_dataset": "b"})


@pytest.mark.parametrize("columns", [False, True])
def test_a_disk_that_fills_up_keeps_the_finished_shards_and_nothing_half_written(
    config: PrecomputeConfig, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: bool
) -> None:
    def full(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = label(config, root / "latents")
    shutil.rmtree(root / "latents")
    config.output_dataset = str(tmp_path / "labelled") if columns else None
    before = digests(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(*((rewritten_dataset, "write_stats") if columns else (engine, "_add_all")), full)
        with pytest.raises(OSError, match="No space left"):
            precompute_latent_codes(config)
    shards = tmp_path / (".labelled.shards" if columns else "data/.latents.shards")
    assert {name: digest for name, digest in digests(tmp_path).items() if shards.name not in name} == before
    precompute_latent_codes(config)
    assert not shards.exists()
    found = load_label_columns(tmp_path / "labelled") if columns else load_labels(root / "latents")
    assert torch.equal(found.codes, expected.codes)


def test_a_disk_that_is_full_from_the_start_leaves_nothing(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(label_file.pq.ParquetWriter, "write_table", full)
    before = digests(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        precompute_latent_codes(config)
    assert digests(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--laq_path=nowhere"], "nowhere is not a LAQ checkpoint"),
        (["--dataset_root=nowhere"], "nowhere is not a LeRobotDataset"),
        (["--camera=wrist"], f"has no camera 'wrist'; it has {CAMERA}"),
        (["--output_dir=data"], "data already exists"),
        (["--batch_size=0"], "batch_size must be 1 or more, got 0"),
    ],
)
def test_a_mistake_ends_in_one_line_status_2_and_nothing_left_behind(
    config: PrecomputeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = digests(tmp_path)
    given = [f"--laq_path={config.laq_path}", f"--dataset_root={config.dataset_root}", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", ["hlrp-precompute-latent-codes", *given, *flags])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert digests(tmp_path) == before


def test_codes_of_the_moving_square_differ(config: PrecomputeConfig) -> None:
    labels = label(config)
    used = [len(np.unique(labels.codes[labels.valid, slot])) for slot in range(labels.codes.shape[1])]
    assert min(used) > 1
