from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hlrp.sim.config import NuisanceKind, require_nuisance
from hlrp.sim.light_metaworld import LightMetaworldEnv
from hlrp.sim.nuisance import nuisance_generator, nuisance_path
from hlrp.sim.scripted_episodes import RolloutOptions, ScriptedEpisode, close_environment, roll_out

TASK = "button-press-topdown-v3"
MOVING: list[NuisanceKind] = ["distractor", "camera"]
GAP = 8
"""Steps in 0.1 s, the usual gap of a latent action."""


def path(kind: NuisanceKind, seed: int = 0, task: str = TASK) -> np.ndarray:
    return nuisance_path(kind, nuisance_generator(kind, task, seed), num_frames=200, fps=80)


def episode(nuisance: NuisanceKind) -> ScriptedEpisode:
    result = roll_out(TASK, 3, RolloutOptions(nuisance=nuisance))
    assert result is not None
    return result


@pytest.fixture(scope="module")
def episodes() -> dict[str, ScriptedEpisode]:
    """One seed, without and with each nuisance."""
    result = {"none": episode("none")} | {kind: episode(kind) for kind in MOVING}
    close_environment()
    return result


@pytest.mark.parametrize("kind", MOVING)
def test_neither_the_expert_nor_the_physics_notices(episodes: dict[str, ScriptedEpisode], kind: str) -> None:
    np.testing.assert_array_equal(episodes[kind].states, episodes["none"].states)
    np.testing.assert_array_equal(episodes[kind].actions, episodes["none"].actions)


def test_only_the_pictures_with_a_nuisance_differ(episodes: dict[str, ScriptedEpisode]) -> None:
    assert episodes["none"].nuisance is None
    differs = {kind: (episodes[kind].images != episodes["none"].images).any(-1).mean() for kind in MOVING}
    assert 0.01 < differs["distractor"] < 0.1  # a ball
    assert differs["camera"] > 0.3  # everything


@pytest.mark.parametrize("kind", MOVING)
def test_the_picture_changes_more_than_the_robot_changes_it(episodes: dict[str, ScriptedEpisode], kind: str) -> None:
    change = {key: np.abs(np.diff(episodes[key].images[::GAP].astype(int), axis=0)).mean() for key in ("none", kind)}
    assert change[kind] > 1.5 * change["none"]


def test_the_ball_moves_at_least_as_far_as_the_hand(episodes: dict[str, ScriptedEpisode]) -> None:
    def displacement(positions: np.ndarray | None) -> float:
        assert positions is not None
        return np.linalg.norm(positions[GAP:, :3] - positions[:-GAP, :3], axis=1).mean()

    distractor = episodes["distractor"]
    assert displacement(distractor.nuisance) > displacement(distractor.states)


@pytest.mark.parametrize("kind", MOVING)
def test_the_seed_alone_decides_the_episode(episodes: dict[str, ScriptedEpisode], kind: NuisanceKind) -> None:
    again = episode(kind)
    close_environment()
    for field in ("images", "states", "actions", "nuisance"):
        np.testing.assert_array_equal(getattr(again, field), getattr(episodes[kind], field))


@pytest.mark.parametrize("kind", MOVING)
def test_every_seed_and_every_task_has_its_own_path(kind: NuisanceKind) -> None:
    np.testing.assert_array_equal(path(kind), path(kind))
    for other in (path(kind, seed=1), path(kind, task="drawer-open-v3")):
        assert np.abs(path(kind) - other).max() > 0.01


@pytest.mark.parametrize("kind", MOVING)
def test_paths_are_smooth_and_stay_near(kind: NuisanceKind) -> None:
    paths = np.stack([path(kind, seed) for seed in range(50)])
    extent = np.ptp(paths, axis=(0, 1))
    assert (extent > 0.1).all()
    assert (extent < 0.65).all()
    assert np.abs(np.diff(paths, axis=1)).max() < 0.05


@pytest.mark.parametrize("kind", MOVING)
def test_the_environment_says_what_its_picture_shows(kind: NuisanceKind) -> None:
    env = LightMetaworldEnv(TASK, nuisance=kind)
    assert env.nuisance_state is None
    pictures: list[np.ndarray] = []
    states: list[Any] = []
    for seed in (1, None, 1):
        pictures.append(env.reset(seed=seed)[0]["pixels"])
        states.append(env.nuisance_state)
        assert states[-1].dtype == np.float32
    env.step(np.zeros(4))
    assert (env.nuisance_state != states[0]).any()
    np.testing.assert_array_equal(states[0], states[2])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert (states[0] != states[1]).all()  # without a seed, another path

    # The recorded state and nothing else decides: the same state over the plain simulation is the same picture.
    plain = LightMetaworldEnv(TASK)
    untouched = plain.reset(seed=1)[0]["pixels"]
    assert plain.nuisance_state is None
    assert (untouched != pictures[0]).any()
    plain.nuisance, plain._nuisance_path = kind, states[0][None]
    np.testing.assert_array_equal(plain._observation()["pixels"], pictures[0])
    plain.close()
    env.close()


def test_a_camera_that_is_not_turned_takes_the_plain_picture() -> None:
    env = LightMetaworldEnv(TASK)
    untouched = env.reset(seed=1)[0]["pixels"]
    env.nuisance, env._nuisance_path = "camera", np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(env._observation()["pixels"], untouched)
    env.close()


def test_an_unknown_nuisance_is_an_error() -> None:
    with pytest.raises(ValueError, match="nuisance must be one of none, distractor, camera, got 'fog'"):
        require_nuisance("fog")
