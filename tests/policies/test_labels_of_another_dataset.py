"""A policy learns from labels of the frames it sees, also where it goes on from another dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.policies.factory import get_policy_class

from hlrp.data.labels import LABELS_DIR, LatentLabels, save_labels
from policies.lerobot_commands import policy_flags, pretrained, run_train, train_flags
from policy_workshop import SMALL, Workshop, make_labels
from tiny_datasets import LENGTHS, create_dataset


@pytest.fixture(scope="module")
def other(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LatentLabels]:
    """Another dataset with episodes of the same lengths, and the labels that lie beside it; read only."""
    root = tmp_path_factory.mktemp("other") / "dataset"
    create_dataset(root, seed=1)
    labels = make_labels(root, workshop.laq)
    save_labels(labels, root / LABELS_DIR)
    return root, labels


def saved(workshop: Workshop, folder: Path) -> Path:
    """A policy trained on the workshop's labels, which were named by their path."""
    policy = workshop.policy(latent_labels_path=str(workshop.dataset_root / LABELS_DIR))
    policy.save_pretrained(folder)
    assert policy.config.latent_labels_path == str(workshop.dataset_root / LABELS_DIR)
    return folder


def fine_tuned(folder: Path, root: Path, *flags: str) -> Any:
    """The policy that `lerobot-train --policy.path` builds for another dataset."""
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=list(flags))
    config.device = "cpu"
    meta = LeRobotDatasetMetadata("local/x", root=root)
    return get_policy_class(config.type).from_pretrained(folder, config=config, dataset_meta=meta)


def codes_of(policy: Any) -> torch.Tensor:
    return policy.labels.label({"index": torch.arange(sum(LENGTHS))}).codes


def test_fine_tuning_takes_the_labels_of_the_new_dataset(
    workshop: Workshop, other: tuple[Path, LatentLabels], tmp_path: Path
) -> None:
    root, labels = other
    assert not torch.equal(labels.codes, workshop.labels.codes)
    folder = saved(workshop, tmp_path / "policy")
    assert json.loads((folder / "config.json").read_text())["latent_labels_path"] is None
    assert torch.equal(codes_of(fine_tuned(folder, root)), labels.codes)


def test_a_path_saved_by_an_earlier_version_gives_way_to_the_datasets_own_labels(
    workshop: Workshop, other: tuple[Path, LatentLabels], tmp_path: Path
) -> None:
    root, labels = other
    folder = saved(workshop, tmp_path / "policy")
    config = json.loads((folder / "config.json").read_text())
    config["latent_labels_path"] = str(workshop.dataset_root / LABELS_DIR)
    (folder / "config.json").write_text(json.dumps(config))
    policy = fine_tuned(folder, root)
    assert torch.equal(codes_of(policy), labels.codes)
    assert policy.config.latent_labels_path is None

    bare = Path(shutil.copytree(root, tmp_path / "bare", ignore=shutil.ignore_patterns(LABELS_DIR)))
    with pytest.raises(ValueError, match="were made from other frames than those of the dataset"):
        fine_tuned(folder, bare)


def test_labels_named_for_this_run_must_be_of_its_frames(
    workshop: Workshop, other: tuple[Path, LatentLabels], tmp_path: Path
) -> None:
    root, labels = other
    folder = saved(workshop, tmp_path / "policy")
    with pytest.raises(ValueError, match="were made from other frames than those of the dataset"):
        fine_tuned(folder, root, f"--latent_labels_path={workshop.dataset_root / LABELS_DIR}")
    moved = shutil.copytree(root / LABELS_DIR, tmp_path / "moved")
    assert torch.equal(codes_of(fine_tuned(folder, root, f"--latent_labels_path={moved}")), labels.codes)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_labels_it_was_started_with(workshop: Workshop, tmp_path: Path) -> None:
    root = Path(shutil.copytree(workshop.dataset_root, tmp_path / "data"))
    labels = (root / LABELS_DIR).rename(tmp_path / "labels")
    settings = {"vla_checkpoint_path": workshop.foundation, "chunk_size": 4, "n_action_steps": 2}
    run_train(
        "--policy.type=hlrp_vla_direct",
        *policy_flags(latent_labels_path=labels, **settings, **SMALL["hlrp_vla_direct"]),
        *train_flags(root, tmp_path / "run", steps=2),
        "--save_freq=1",
    )
    first = pretrained(tmp_path / "run", "000001")
    run_train(f"--config_path={first / 'train_config.json'}", "--resume=true", "--steps=3")
    last = json.loads((pretrained(tmp_path / "run") / "train_config.json").read_text())
    assert last["policy"]["latent_labels_path"] == str(labels)


def test_a_dataset_whose_index_is_not_the_frames_place_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    root = Path(shutil.copytree(workshop.dataset_root, tmp_path / "data"))
    path = root / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(path)
    index = table["index"].to_numpy().copy()
    index[20:] += 3
    pq.write_table(table.set_column(table.schema.get_field_index("index"), "index", pa.array(index)), path)
    broken = Workshop(root, workshop.foundation, workshop.labels, workshop.laq)
    with pytest.raises(ValueError, match=r"the column `index` of .* does not count the frames"):
        broken.policy()
