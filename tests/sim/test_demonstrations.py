from __future__ import annotations

import errno
import gc
import json
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from hlrp.sim.demonstrations import METADATA_FILE, NUISANCE, DemonstrationConfig, episode_seed, record_demonstrations
from hlrp.sim.scripted_episodes import RolloutOptions, close_environment, roll_out

TASKS = ("drawer-open-v3", "button-press-topdown-v3")
ROLLOUT = RolloutOptions(image_size=16, tail_steps=3)
CONFIG = DemonstrationConfig(tasks=TASKS, episodes_per_task=2, rollout=ROLLOUT)


def record(root: Path, config: DemonstrationConfig = CONFIG, num_workers: int = 0) -> LeRobotDataset:
    record_demonstrations(config, root, repo_id="local/demos", num_workers=num_workers, show_progress=False)
    return LeRobotDataset("local/demos", root=root)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    return record(tmp_path_factory.mktemp("demos") / "dataset")


def test_the_dataset_is_plain_lerobot(dataset: LeRobotDataset) -> None:
    assert dataset.fps == 80
    assert dataset.num_episodes == 4
    assert dataset[0]["observation.image"].shape == (3, 16, 16)
    assert dataset[0]["observation.state"].dtype == torch.float32
    assert [dataset[int(start)]["task"] for start in dataset.meta.episodes["dataset_from_index"]] == [
        "Open a drawer",
        "Open a drawer",
        "Press a button from the top",
        "Press a button from the top",
    ]


def test_a_row_holds_what_was_seen_before_its_action(dataset: LeRobotDataset) -> None:
    from hlrp.sim.light_metaworld import LightMetaworldEnv

    env = LightMetaworldEnv(TASKS[0], observation_height=16, observation_width=16)
    seen, _ = env.reset(seed=episode_seed(0, 0))
    successes = []
    for index in range(int(dataset.meta.episodes["length"][0])):
        row = dataset[index]
        image = (row["observation.image"] * 255).round().to(torch.uint8).permute(1, 2, 0)
        np.testing.assert_array_equal(image, seen["pixels"])
        np.testing.assert_allclose(row["observation.state"], seen["agent_pos"], atol=1e-6)
        assert row["action"].abs().max() <= 1
        seen, *_, info = env.step(row["action"].numpy())
        successes.append(info["is_success"])
    env.close()
    assert successes.index(True) == len(successes) - 1 - ROLLOUT.tail_steps


def test_without_a_nuisance_there_is_no_column_for_it(dataset: LeRobotDataset) -> None:
    assert NUISANCE not in dataset.features


def test_a_nuisance_is_recorded_beside_the_picture_that_shows_it(dataset: LeRobotDataset, tmp_path: Path) -> None:
    from hlrp.sim.light_metaworld import LightMetaworldEnv

    rollout = replace(ROLLOUT, nuisance="distractor")
    other = record(tmp_path / "dataset", replace(CONFIG, tasks=TASKS[:1], rollout=rollout))
    assert other.features[NUISANCE]["names"] == ["x", "y", "z"]
    env = LightMetaworldEnv(TASKS[0], observation_height=16, observation_width=16, nuisance="distractor")
    seen, _ = env.reset(seed=episode_seed(0, 0))
    for index in range(10):
        row = other[index]
        image = (row["observation.image"] * 255).round().to(torch.uint8).permute(1, 2, 0)
        np.testing.assert_array_equal(image, seen["pixels"])
        np.testing.assert_array_equal(row[NUISANCE], env.nuisance_state)
        torch.testing.assert_close(row["action"], dataset[index]["action"], rtol=0, atol=0)
        seen, *_ = env.step(row["action"].numpy())
    env.close()


def test_the_number_of_workers_changes_nothing(dataset: LeRobotDataset, tmp_path: Path) -> None:
    other = record(tmp_path / "dataset", num_workers=2)
    assert len(other) == len(dataset)
    for key in ("observation.image", "observation.state", "action", "task_index"):
        ours = torch.stack(list(dataset.hf_dataset[key]))
        torch.testing.assert_close(torch.stack(list(other.hf_dataset[key])), ours, rtol=0, atol=0)


def test_the_recording_describes_itself(dataset: LeRobotDataset) -> None:
    description = json.loads((dataset.root / METADATA_FILE).read_text())
    assert description["options"]["rollout"]["action_noise"] == 0.1
    assert [count["task"] for count in description["counts"]] == list(TASKS)
    assert sum(count["frames"] for count in description["counts"]) == len(dataset)
    card = (dataset.root / "README.md").read_text(encoding="utf-8")
    first = description["counts"][0]
    assert f"| {TASKS[0]} | {first['kept']} | {first['frames']} | {first['dropped']} |" in card
    assert "Gaussian noise of the standard deviation 0.1" in card
    assert "| action | float32 (4): dx, dy, dz, gripper | displacement of the hand" in card


def test_noise_is_in_the_recorded_action() -> None:
    noisy = roll_out(TASKS[1], 5, ROLLOUT)
    clean = roll_out(TASKS[1], 5, RolloutOptions(image_size=16, action_noise=0.0))
    assert noisy is not None
    assert clean is not None
    np.testing.assert_array_equal(noisy.states[0], clean.states[0])
    steps = min(len(noisy.actions), len(clean.actions))
    noise = np.abs(noisy.actions[:steps] - clean.actions[:steps])
    assert (noise[:, :3] > 0).any(axis=0).all()
    assert (noise[:, 3] == 0).all()  # the gripper's effort is left alone
    close_environment()


def test_a_failed_episode_is_replaced_by_the_next_seed(tmp_path: Path) -> None:
    seed = 1  # in this recording, the first episode is slower than the second
    slow, quick = (roll_out(TASKS[1], episode_seed(seed, attempt), ROLLOUT) for attempt in (0, 1))
    assert slow is not None
    assert quick is not None
    assert len(slow.actions) > len(quick.actions)
    rollout = replace(ROLLOUT, max_steps=len(quick.actions) - ROLLOUT.tail_steps)
    config = DemonstrationConfig(tasks=TASKS[1:], episodes_per_task=1, seed=seed, rollout=rollout)
    (count,) = record_demonstrations(
        config, tmp_path / "dataset", repo_id="local/demos", num_workers=0, show_progress=False
    )
    assert (count.kept, count.dropped, count.attempted) == (1, 1, 2)
    dataset = LeRobotDataset("local/demos", root=tmp_path / "dataset")
    np.testing.assert_array_equal(np.stack(list(dataset.hf_dataset["action"])), quick.actions)


def test_an_expert_that_never_succeeds_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    config = DemonstrationConfig(
        tasks=TASKS[1:], episodes_per_task=1, rollout=RolloutOptions(image_size=16, max_steps=2)
    )
    with pytest.raises(ValueError, match="succeeded in only 0 of 12 episodes within 2 steps; raise max_steps"):
        record(tmp_path / "dataset", config)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="already exists; remove it or choose another folder"):
        record(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_videos_have_one_frame_per_row(tmp_path: Path) -> None:
    config = DemonstrationConfig(
        tasks=TASKS[1:],
        episodes_per_task=1,
        video=True,
        rollout=RolloutOptions(image_size=64, tail_steps=3),
    )
    dataset = record(tmp_path / "dataset", config)
    episode = roll_out(TASKS[1], episode_seed(0, 0), config.rollout)
    close_environment()
    assert episode is not None
    assert len(dataset) == len(episode.actions)
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        shown = dataset[index]["observation.image"].permute(1, 2, 0).numpy() * 255
        distances = [np.abs(shown - image).mean() for image in episode.images]
        assert distances[index] < 3
        assert distances[index] <= min(distances) + 0.5


def test_a_video_that_cannot_be_written_ends_in_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    config = DemonstrationConfig(
        tasks=TASKS[1:], episodes_per_task=2, video=True, rollout=RolloutOptions(image_size=32, tail_steps=3)
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # writing more fails as it does on a full disk
    try:
        with pytest.raises(OSError, match=r"Encoder thread .* failed: .*File too large") as caught:
            record(tmp_path / "dataset", config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    del caught  # with the dataset, which LeRobot finalizes when it is freed
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_demonstrations_and_evaluations_share_no_seed() -> None:
    first = {episode_seed(0, attempt) for attempt in range(10_000)}
    second = {episode_seed(1, attempt) for attempt in range(10_000)}
    assert not first & second
    assert min(first) >= 100_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"episodes_per_task": 0}, "episodes_per_task must be 1 or more, got 0"),
        ({"episodes_per_task": 5000}, "at most 4995"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_impossible_recordings_are_errors(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DemonstrationConfig(tasks=TASKS, **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"action_noise": float("nan")}, "action_noise must be finite and 0 or more"),
        ({"tail_steps": -1}, "tail_steps must be 0 or more"),
        ({"max_steps": 495}, "at most 500"),
        ({"image_size": 1}, "image_size must be 4 or more"),
    ],
)
def test_impossible_rollouts_are_errors(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RolloutOptions(**fields)  # pyright: ignore[reportArgumentType]
