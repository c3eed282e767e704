"""Batches of a run with few labelled frames: each holds its share of them, as true frames of the dataset."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import get_policy_class, make_policy, make_pre_post_processors
from lerobot.scripts import lerobot_train
from lerobot.utils.constants import ACTION, OBS_STATE
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, default_collate

from lerobot_policy_felix_bundle.policies.common.labelled_batches import IdleSteps, LabelledBatches
from policies.lerobot_commands import policy_flags, pretrained, run_train, train_flags
from policy_workshop import SMALL, Workshop
from tiny_datasets import CAMERA, LENGTHS

LABELLED = 2
FIRST = sum(LENGTHS[:LABELLED])
EPISODE = range(FIRST, FIRST + LENGTHS[LABELLED])
WITH_CODES = EPISODE[:-4]
"""Frames of the labelled episode whose clip of four frames does not leave it."""
DIRECT = "hlrp_action_expert_direct"


def built(workshop: Workshop, kind: str = "hlrp_vla_direct", *, dataset: Any = None, **changes: Any) -> tuple[Any, Any]:
    """A dataset and the policy that lerobot-train would build for it."""
    dataset = dataset or workshop.dataset
    config = workshop.config(kind, **{"labelled_episodes": [LABELLED], **changes})
    return dataset, make_policy(config, ds_meta=dataset.meta)


def loader(dataset: Any, batch_size: int = 8) -> DataLoader[Any]:
    shuffled = RandomSampler(dataset, generator=torch.Generator().manual_seed(0))
    return DataLoader(dataset, batch_size=batch_size, sampler=shuffled)


def labelled_counts(dataset: Any, frames: range, batch_size: int = 8) -> list[tuple[int, int]]:
    """Labelled rows and all rows of every batch of an epoch."""
    batches = [batch["index"].tolist() for batch in loader(dataset, batch_size)]
    return [(sum(index in frames for index in batch), len(batch)) for batch in batches]


@pytest.mark.parametrize(
    ("kind", "settings", "frames", "share"),
    [
        ("hlrp_vla_direct", {}, WITH_CODES, 0.5),
        ("hlrp_vla_direct", {"freeze_vla": True}, WITH_CODES, 1.0),
        ("hlrp_vla_direct", {"latent_loss_weight": 0.0}, WITH_CODES, 1.0),
        ("hlrp_vla_direct", {"labelled_share": 0.3}, WITH_CODES, 0.3),
        (DIRECT, {"latent_loss_weight": 1.0}, EPISODE, 0.5),
        (DIRECT, {"latent_loss_weight": 0.0}, EPISODE, 1.0),
    ],
)
def test_every_batch_holds_the_share(
    workshop: Workshop, kind: str, settings: dict[str, Any], frames: range, share: float
) -> None:
    dataset, policy = built(workshop, kind, **settings)
    before, _ = make_pre_post_processors(policy.config, dataset_stats=dataset.meta.stats)
    assert all(count >= share * size for count, size in labelled_counts(dataset, frames))
    with torch.no_grad():
        assert policy(before(next(iter(loader(dataset)))))[1]["action_share"] >= share
    assert min(count for count, _ in labelled_counts(dataset, frames, batch_size=40)) >= share * 12  # the last is small


@pytest.mark.parametrize("settings", [{"labelled_share": 0.0}, {"labelled_episodes": []}, {"action_loss_weight": 0.0}])
def test_batches_stay_as_they_were_drawn(workshop: Workshop, settings: dict[str, Any]) -> None:
    dataset = workshop.dataset
    expected = [batch["index"].tolist() for batch in loader(dataset)]
    built(workshop, dataset=dataset)
    assert [batch["index"].tolist() for batch in loader(dataset)] != expected
    built(workshop, dataset=dataset, **settings)  # another policy of this process
    assert [batch["index"].tolist() for batch in loader(dataset)] == expected


def test_filled_batches_hold_true_items_of_the_dataset(workshop: Workshop) -> None:
    dataset = workshop.windows(4)
    built(workshop, dataset=dataset, labelled_share=0.8)
    plain = workshop.windows(4)
    keys = [CAMERA, OBS_STATE, ACTION, f"{ACTION}_is_pad", f"{CAMERA}_is_pad", "timestamp", "episode_index"]
    batch = next(iter(loader(dataset)))
    expected = default_collate([plain[int(index)] for index in batch["index"]])
    assert all(torch.equal(batch[key], expected[key]) for key in keys)
    assert batch["task"] == expected["task"]
    assert batch.keys() == expected.keys()


def test_a_pickled_dataset_fills_its_batches(workshop: Workshop) -> None:
    """A worker process that is spawned gets a pickled copy of the dataset."""
    dataset, _ = built(workshop)
    copy = pickle.loads(pickle.dumps(dataset))
    assert labelled_counts(copy, WITH_CODES) == labelled_counts(dataset, WITH_CODES)


def test_rows_of_a_choice_of_episodes_are_replaced_by_its_own(workshop: Workshop) -> None:
    dataset = LeRobotDataset(
        "local/moving_square",
        root=workshop.dataset_root,
        episodes=[1, LABELLED, 5],
        delta_timestamps={ACTION: [i / 10 for i in range(4)]},
    )
    built(workshop, dataset=dataset)
    assert all(2 * count >= size for count, size in labelled_counts(dataset, WITH_CODES))
    assert {int(e) for batch in loader(dataset) for e in batch["episode_index"]} == {1, LABELLED, 5}


def test_valid_frames_of_a_column_are_repeated_where_they_are_few(workshop: Workshop) -> None:
    labelled = torch.zeros(sum(LENGTHS), dtype=torch.bool)
    labelled[[3, 50]] = True
    rows = LabelledBatches(workshop.dataset, labelled, share=1.0).rows(range(20, 31))
    assert set(rows) == {3, 50}
    assert abs(rows.count(3) - rows.count(50)) == 1


def test_replacements_depend_on_the_drawn_frames_alone(workshop: Workshop) -> None:
    dataset, _ = built(workshop)
    fill: LabelledBatches = dataset.__getitems__
    first = fill.rows(range(20))
    torch.manual_seed(7)
    assert fill.rows(list(range(20))) == first  # whatever the random state
    assert fill.rows(range(60, 80)) != fill.rows(range(61, 81))
    assert len({tuple(fill.rows(torch.randperm(8).tolist())) for _ in range(20)}) > 15


def test_two_processes_get_different_replacements(workshop: Workshop) -> None:
    dataset, _ = built(workshop, freeze_vla=True)
    batches = BatchSampler(RandomSampler(dataset, generator=torch.Generator().manual_seed(0)), 8, drop_last=False)
    ranks = [[dataset.__getitems__.rows(rows) for rows in BatchSamplerShard(batches, 2, rank)] for rank in (0, 1)]
    assert all(first != second for first, second in zip(*ranks, strict=True))


def test_actions_are_normalized_by_the_labelled_frames(workshop: Workshop) -> None:
    dataset = workshop.dataset
    states = dataset.meta.stats[OBS_STATE]["mean"].tolist()
    built(workshop, dataset=dataset)
    actions = torch.stack([dataset[index][ACTION][0] for index in EPISODE])
    np.testing.assert_allclose(dataset.meta.stats[ACTION]["mean"], actions.mean(0), atol=1e-6)
    np.testing.assert_allclose(dataset.meta.stats[ACTION]["std"], actions.std(0, correction=0), atol=1e-6)
    assert dataset.meta.stats[OBS_STATE]["mean"].tolist() == states  # the state is known everywhere


# ---- The options and the log ----


def test_the_log_names_labelled_episodes_and_the_share(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    built(workshop, labelled_episodes=[0, 1, 2, 4])
    expected = sum(max(LENGTHS[e] - 4, 0) for e in (0, 1, 2, 4))
    assert f"{expected} of the {sum(LENGTHS)} frames of this run have an action to learn from" in caplog.text
    assert "in 4 (0-2, 4) of its 6 episodes; at least 50% of every batch are such frames" in caplog.text
    built(workshop, labelled_share=0.0)
    assert "batches hold as many of them as LeRobot draws" in caplog.text


def test_a_dataset_that_cannot_be_filled_is_warned_of(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    workshop.policy(labelled_episodes=[LABELLED])  # its dataset is gone when the policy is built
    assert "labelled_share=0.5 has no effect on a dataset that is streamed" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labelled_share": 1.5}, r"labelled_share must be in \[0, 1\], got 1.5"),
        (
            {"labelled_share": 0.5, "labelled_episodes": [], "labelled_fraction": 0.0},
            "labelled_share=0.5 has no effect",
        ),
        ({"labelled_share": 0.5, "freeze_decoder": True}, "labelled_share=0.5 has no effect"),
    ],
)
def test_a_wrong_share_is_refused(workshop: Workshop, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built(workshop, **settings)


def test_the_first_step_that_learns_nothing_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    steps = IdleSteps()
    for learned in (True, False, True, False):
        steps.count(learned=learned)
    assert caplog.text.count("learns nothing") == 1
    assert "step 2 of this command" in caplog.text


def test_a_policy_counts_steps_without_action_and_code(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    dataset, policy = built(workshop, labelled_share=0.0)
    policy(default_collate([dataset[0], dataset[1]]))  # codes, but no action
    assert "learns nothing" not in caplog.text
    nothing = default_collate([dataset[LENGTHS[0] - 1], dataset[LENGTHS[0] - 2]])  # at the end of an episode
    with torch.no_grad():
        policy(nothing)  # a loss that is only measured
    assert "learns nothing" not in caplog.text
    policy(nothing)
    assert "step 2 of this command learns nothing" in caplog.text


# ---- Through LeRobot's own commands ----


@pytest.fixture
def batches() -> Iterator[list[list[int]]]:
    """Frame numbers of every batch that lerobot-train trains on in a test."""
    trained: list[list[int]] = []

    def recorded(metrics: Any, policy: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        trained.append(batch["index"].tolist())
        return update_policy(metrics, policy, batch, *args, **kwargs)

    update_policy = lerobot_train.update_policy
    with patch.object(lerobot_train, "update_policy", recorded):
        yield trained


def test_a_resumed_run_trains_on_the_same_batches_and_its_policy_needs_no_dataset(
    workshop: Workshop, tmp_path: Path, batches: list[list[int]]
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    root = Path(shutil.copytree(workshop.dataset_root, tmp_path / "dataset"))
    settings = {"chunk_size": 4, "n_action_steps": 2, "labelled_episodes": [LABELLED], **SMALL["hlrp_vla_direct"]}
    run_train(
        "--policy.type=hlrp_vla_direct",
        *policy_flags(vla_checkpoint_path=workshop.foundation, **settings),
        *train_flags(root, whole, steps=4),
        "--save_freq=2",
    )
    assert all(2 * sum(index in WITH_CODES for index in batch) >= len(batch) for batch in batches)
    shutil.copytree(whole, resumed, symlinks=True)
    shutil.rmtree(resumed / "checkpoints" / "000004")
    (resumed / "checkpoints" / "last").unlink()
    config = pretrained(resumed, "000002") / "train_config.json"
    run_train(f"--config_path={config}", "--resume=true", f"--output_dir={resumed}")
    assert len(batches) == 6
    assert batches[4:] == batches[2:4]

    shutil.rmtree(root)
    folder = pretrained(whole)
    steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    assert [step["registry_name"] for step in steps][-1] == "normalizer_processor"
    policy = get_policy_class("hlrp_vla_direct").from_pretrained(folder)
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    seen = {key: workshop.dataset[3][key] for key in (CAMERA, OBS_STATE, "task")}
    assert after(policy.predict_action_chunk(before(seen))).isfinite().all()


def test_a_run_of_an_earlier_version_resumes_with_the_batches_it_had(
    workshop: Workshop, tmp_path: Path, batches: list[list[int]]
) -> None:
    settings = {"chunk_size": 4, "n_action_steps": 2, "labelled_episodes": [LABELLED], **SMALL["hlrp_vla_direct"]}
    flags = [
        "--policy.type=hlrp_vla_direct",
        *policy_flags(vla_checkpoint_path=workshop.foundation, labelled_share=0.0, **settings),
        *train_flags(workshop.dataset_root, tmp_path / "run", steps=2),
        "--save_freq=1",
    ]
    run_train(*flags)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "000002")
    (tmp_path / "run" / "checkpoints" / "last").unlink()
    folder = pretrained(tmp_path / "run", "000001")
    for file in (folder / "config.json", folder / "train_config.json"):
        saved = json.loads(file.read_text())
        del saved.get("policy", saved)["labelled_share"], saved.get("policy", saved)["optimizer_lr_action"]
        file.write_text(json.dumps(saved))
    run_train(f"--config_path={folder / 'train_config.json'}", "--resume=true", f"--output_dir={tmp_path / 'run'}")
    assert batches[2] == batches[1]
