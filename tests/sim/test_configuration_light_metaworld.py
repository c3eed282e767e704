from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import draccus
import numpy as np
import pytest
from lerobot.envs.configs import EnvConfig, MetaworldEnv
from lerobot.envs.factory import make_env
from lerobot.envs.utils import NEW_ROLLOUT_OPTION, env_to_policy_features, preprocess_observation

from hlrp.sim.configuration_light_metaworld import LightMetaworldConfig

TASKS = "drawer-open-v3,window-open-v3"


def test_the_policy_sees_lerobots_features_at_another_size() -> None:
    theirs, ours = MetaworldEnv(), LightMetaworldConfig(observation_height=480, observation_width=480)
    assert ours.features == theirs.features
    assert env_to_policy_features(ours) == env_to_policy_features(theirs)
    small = env_to_policy_features(LightMetaworldConfig())
    assert small.keys() == {"observation.image", "observation.state", "action"}
    assert small["observation.image"].shape == (3, 64, 64)


def test_the_type_is_registered_and_parses(tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    file.write_text('{"type": "hlrp_metaworld", "task": "easy", "observation_height": 32}')
    config = draccus.parse(EnvConfig, config_path=file, args=[])
    assert isinstance(config, LightMetaworldConfig)
    assert config.type == "hlrp_metaworld"
    assert config.features["pixels/top"].shape == (32, 64, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"fps": 30}, "fps must be 80"), ({"observation_width": 2}, "observation_width must be 4 or more, got 2")],
)
def test_impossible_settings_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LightMetaworldConfig(**fields)


def test_an_unknown_task_is_an_error_before_any_simulation() -> None:
    with pytest.raises(ValueError, match="did you mean drawer-open-v3"):
        make_env(LightMetaworldConfig(task="drawer-opne-v3"))


def test_every_task_is_a_group_of_its_own_and_frozen_after_its_end() -> None:
    envs = make_env(LightMetaworldConfig(task=TASKS, episode_length=2), n_envs=2)
    assert list(envs) == TASKS.split(",")
    vector = envs["window-open-v3"][0]
    observation, _ = vector.reset(seed=[5, 6], options={NEW_ROLLOUT_OPTION: True})
    batch = preprocess_observation(observation)
    assert batch["observation.image"].shape == (2, 3, 64, 64)
    assert batch["observation.state"].shape == (2, 4)
    assert vector.call("task_description") == ("Push and open a window",) * 2
    assert vector.call("_max_episode_steps") == (2, 2)
    assert (observation["pixels"][0] != observation["pixels"][1]).any()

    for _ in range(2):
        last, _, _, truncated, _ = vector.step(np.full((2, 4), 0.5, np.float32))
    assert truncated.all()
    frozen, reward, *_ = vector.step(np.full((2, 4), 0.5, np.float32))  # gymnasium's automatic reset
    np.testing.assert_array_equal(frozen["pixels"], last["pixels"])
    assert not reward.any()
    again, _ = vector.reset(seed=[5, 6], options={NEW_ROLLOUT_OPTION: True})
    np.testing.assert_array_equal(again["pixels"], observation["pixels"])
    for groups in envs.values():
        groups[0].close()


def test_the_nuisance_reaches_the_environments() -> None:
    config = draccus.parse(LightMetaworldConfig, args=["--task=drawer-open-v3", "--nuisance=camera"])
    vector = make_env(config, n_envs=2)["drawer-open-v3"][0]
    vector.reset(seed=[5, 6], options={NEW_ROLLOUT_OPTION: True})
    first, second = vector.get_attr("nuisance_state")
    assert (first != second).all()
    vector.close()


@pytest.mark.slow
def test_worker_processes_see_what_this_process_sees() -> None:
    config = LightMetaworldConfig(task="drawer-open-v3", observation_height=16, observation_width=16)
    seen = []
    for use_async_envs in (False, True):
        vector = make_env(config, n_envs=2, use_async_envs=use_async_envs)["drawer-open-v3"][0]
        observation, _ = vector.reset(seed=[1, 2], options={NEW_ROLLOUT_OPTION: True})
        seen.append((observation, vector.step(np.full((2, 4), 0.3, np.float32))[0]))
        vector.close()
    for key in ("pixels", "agent_pos"):
        np.testing.assert_array_equal(seen[0][0][key], seen[1][0][key])
        np.testing.assert_array_equal(seen[0][1][key], seen[1][1][key])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, worker processes import everything themselves")
def test_worker_processes_start_with_their_modules_imported() -> None:
    script = """
import multiprocessing
from hlrp.sim.configuration_light_metaworld import LightMetaworldConfig
if __name__ == "__main__":
    LightMetaworldConfig(task="drawer-open-v3").create_envs(2, use_async_envs=True)
    with multiprocessing.get_context("forkserver").Pool(1) as workers:
        print(workers.apply(eval, ("sorted(__import__('sys').modules)",)))
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for module in ("lerobot.scripts.lerobot_eval", "lerobot.envs.utils", "hlrp.sim.light_metaworld"):
        assert f"'{module}'" in loaded


def test_the_configuration_survives_pickling() -> None:
    config = LightMetaworldConfig(task=TASKS)
    assert pickle.loads(pickle.dumps(config)) == config
