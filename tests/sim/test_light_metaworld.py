from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from hlrp.sim.light_metaworld import LightMetaworldEnv

TASK = "drawer-open-v3"


@pytest.fixture(scope="module")
def env() -> Iterator[LightMetaworldEnv]:
    env = LightMetaworldEnv(TASK, episode_length=90)
    yield env
    env.close()


def expert(env: LightMetaworldEnv) -> np.ndarray:
    return np.clip(env.expert_action(), -1, 1).astype(np.float32)


def test_states_rewards_and_success_are_lerobots(env: LightMetaworldEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    from lerobot.envs.metaworld import MetaworldEnv

    theirs = MetaworldEnv(TASK, obs_type="pixels_agent_pos")
    ours_seen, _ = env.reset(seed=7)
    theirs._ensure_env()
    # Their frame takes a quarter of a second, and this test is about physics.
    monkeypatch.setattr(theirs._env, "render", lambda: np.zeros((480, 480, 3), np.uint8))
    theirs_seen, _ = theirs.reset(seed=7)

    terminated = False
    for _ in range(env._max_episode_steps):
        np.testing.assert_allclose(ours_seen["agent_pos"], theirs_seen["agent_pos"], atol=1e-6)
        action = expert(env)
        ours_seen, reward, terminated, _, info = env.step(action)
        theirs_seen, their_reward, their_end, _, their_info = theirs.step(action)
        assert reward == pytest.approx(their_reward, abs=1e-6)
        assert (terminated, info["is_success"]) == (their_end, their_info["is_success"])
        if terminated:
            break
    assert terminated
    assert info["final_info"] == their_info["final_info"]
    theirs.close()


def test_with_shadows_the_picture_is_lerobots() -> None:
    from lerobot.envs.metaworld import MetaworldEnv

    theirs = MetaworldEnv(TASK, obs_type="pixels_agent_pos")
    ours = LightMetaworldEnv(TASK, observation_height=480, observation_width=480, shadows=True)
    picture = ours.reset(seed=3)[0]["pixels"].astype(float)
    expected = theirs.reset(seed=3)[0]["pixels"].astype(float)
    ours.close()
    theirs.close()
    assert np.abs(picture - expected).mean() < 1
    assert np.abs(picture[::-1] - expected).mean() > 10


def test_the_seed_decides_where_objects_are(env: LightMetaworldEnv) -> None:
    first = env.reset(seed=1)[0]["pixels"]
    other = env.reset(seed=2)[0]["pixels"]
    again = env.reset(seed=1)[0]["pixels"]
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_two_environments_in_one_process_keep_their_own_scenes(env: LightMetaworldEnv) -> None:
    other = LightMetaworldEnv("window-open-v3")
    alone = env.reset(seed=1)[0]["pixels"]
    beside = other.reset(seed=1)[0]["pixels"]
    assert np.abs(alone.astype(int) - beside).mean() > 5
    assert env.render().shape == (240, 240, 3)
    other.close()
    np.testing.assert_array_equal(env.reset(seed=1)[0]["pixels"], alone)


def test_a_video_of_the_observations_size_shows_the_observation() -> None:
    env = LightMetaworldEnv(
        TASK, observation_height=16, observation_width=16, visualization_height=16, visualization_width=16
    )
    pixels = env.reset(seed=3)[0]["pixels"]
    np.testing.assert_array_equal(env.render(), pixels)
    np.testing.assert_array_equal(env.step(np.ones(4))[0]["pixels"], env.render())
    env.close()


def test_time_runs_out_at_episode_length() -> None:
    env = LightMetaworldEnv(TASK, episode_length=2, observation_height=8, observation_width=8)
    env.reset(seed=0)
    assert env.step(np.zeros(4))[3] is False
    _, _, terminated, truncated, info = env.step(np.zeros(4))
    assert (terminated, truncated) == (False, True)
    assert info["final_info"]["is_success"] is False
    env.close()


def test_success_does_not_reset_the_environment(env: LightMetaworldEnv) -> None:
    observation, _ = env.reset(seed=7)
    start = observation["agent_pos"]
    terminated = False
    while not terminated:
        observation, _, terminated, truncated, _ = env.step(expert(env))
        assert not truncated
    after = env.step(expert(env))[0]["agent_pos"]
    assert np.linalg.norm(after - observation["agent_pos"]) < np.linalg.norm(after - start)


@pytest.mark.parametrize("action", [[0, 0, float("nan"), 0], [0, float("inf"), 0, 0], [0, 0, 0], [[0, 0, 0, 0]]])
def test_an_action_that_is_not_four_finite_numbers_is_an_error(env: LightMetaworldEnv, action: list) -> None:
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 4 finite numbers as the action"):
        env.step(np.array(action))


def test_an_unknown_camera_lists_the_known_ones() -> None:
    env = LightMetaworldEnv(TASK, camera_name="corner9")
    with pytest.raises(ValueError, match=r"one of topview, corner, .*got 'corner9'"):
        env.reset(seed=0)


@pytest.mark.parametrize("steps", [0, 501])
def test_an_episode_longer_than_meta_worlds_is_an_error(steps: int) -> None:
    with pytest.raises(ValueError, match="episode_length must be between 1 and 500"):
        LightMetaworldEnv(TASK, episode_length=steps)


def test_a_factory_survives_pickling() -> None:
    env = pickle.loads(pickle.dumps(partial(LightMetaworldEnv, TASK, observation_width=32)))()
    assert env.task_description == "Open a drawer"
    assert env.observation_space["pixels"].shape == (64, 32, 3)


def test_an_interpreter_ends_quietly_with_cameras_open() -> None:
    script = (
        "from hlrp.sim.light_metaworld import LightMetaworldEnv\n"
        f"env = LightMetaworldEnv({TASK!r}); env.reset(seed=0); env.render()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_importing_the_environment_does_not_import_mujoco() -> None:
    script = (
        "import sys, hlrp.sim.light_metaworld, hlrp.sim.scripted_episodes, hlrp.sim.tasks\n"
        "assert not {'mujoco', 'metaworld', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_image_of_a_video_is_rendered_once_for_each_state(
    env: LightMetaworldEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[tuple[int, int]] = []
    render = env._render_image

    def counted(size: tuple[int, int]) -> np.ndarray:
        rendered.append(size)
        return render(size)

    monkeypatch.setattr(env, "_render_image", counted)
    env.reset(seed=0)
    first = env.render()
    first_again = env.render()
    first_again[:] = 0  # a caller may change what it got
    np.testing.assert_array_equal(env.render(), first)
    for _ in range(8):
        env.step(np.ones(4))
    assert (env.render() != first).any()
    sizes = [(64, 64), (240, 240)]
    assert rendered == [*sizes, *[sizes[0]] * 8, sizes[1]]
