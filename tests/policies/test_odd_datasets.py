"""Datasets unlike the tidy one: actions that are not finite, integers, one value, depth maps, and a choice of episodes.

Each works in every policy, or is refused in one sentence before training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import NormalizationMode
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_STATE
from PIL import Image
from torch.utils.data import default_collate

from hlrp.data.dataset import ACTION_VALID
from hlrp.data.frames import open_frames
from policy_workshop import SMALL, Workshop
from tiny_datasets import CAMERA, SIZE

DEPTH = "observation.images.depth"
CODES = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])

Frame = Callable[[int, int], dict[str, Any]]


@pytest.fixture(params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def vector(dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "names": None}


def camera(channels: int = 3, **more: Any) -> dict[str, Any]:
    return {"dtype": "image", "shape": (SIZE, SIZE, channels), "names": ["height", "width", "channels"], **more}


def picture(channels: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, channels)).astype(dtype)


def image(mode: str) -> Image.Image:
    """What LeRobot's writer stores as it is; it takes no array of one or four channels."""
    return Image.fromarray(picture()).convert(mode)


def record(root: Path, features: dict[str, Any], frame: Frame, lengths: Sequence[int] = (6, 6)) -> Path:
    """A colour camera, a state and an action of two values, but for what `features` and `frame` change."""
    features = {CAMERA: camera(), OBS_STATE: vector(), ACTION: vector(), **features}
    dataset = LeRobotDataset.create("local/odd", fps=10, features=features, root=root, use_videos=False)
    for episode, length in enumerate(lengths):
        for i in range(length):
            row = {CAMERA: picture(), OBS_STATE: np.float32([i, -i]), ACTION: np.float32([i, 2 * i])}
            dataset.add_frame({**row, **frame(episode, i), "task": "Go"})
        with warnings.catch_warnings(action="ignore"):  # of the statistics of what is not finite
            dataset.save_episode()
    dataset.finalize()
    return root


def opened(root: Path, episodes: list[int] | None = None) -> Any:
    chunk = {ACTION: [i / 10 for i in range(4)]}
    return LeRobotDataset("local/odd", root=root, episodes=episodes, delta_timestamps=chunk)


class Run:
    """A policy and its pipelines for a dataset, made as lerobot-train makes them."""

    def __init__(self, workshop: Workshop, dataset: Any, kind: str = "hlrp_vla_direct", **changes: Any) -> None:
        config = workshop.config(kind, input_features={}, output_features={}, **changes)
        self.dataset = dataset
        self.policy = make_policy(config, ds_meta=dataset.meta)
        self.before, self.after = make_pre_post_processors(config, dataset_stats=dataset.meta.stats)

    def loss(self, *rows: int) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of two samples that carry codes."""
        batch = self.before(default_collate([self.dataset[row] for row in rows]))
        return self.policy({**batch, "latent_codes": CODES[: len(rows)]})

    def act(self, row: int) -> torch.Tensor:
        """Chunk of actions in dataset units."""
        seen = {key: value for key, value in self.dataset[row].items() if key.startswith("observation")}
        self.policy.eval()
        return self.after(self.policy.predict_action_chunk(self.before({**seen, "task": "Go"})))


# ---- Actions that are not finite ----


@pytest.fixture(scope="module")
def lost_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Actions lost in the second half of the first episode and in all of the second; `known` says so."""

    def frame(episode: int, i: int) -> dict[str, Any]:
        known = episode == 0 and i < 3
        move = np.float32([i, 2 * i]) if known else np.float32([np.nan, np.inf])
        return {ACTION: move, "known": np.array([known])}

    return record(tmp_path_factory.mktemp("lost") / "data", {"known": vector("bool", (1,))}, frame)


def test_actions_that_are_not_finite_are_not_learnt(workshop: Workshop, lost_root: Path, kind: str) -> None:
    column = "known" if kind == "hlrp_vla" else None  # without it they are found all the same
    run = Run(workshop, opened(lost_root), kind, action_valid_column=column, latent_loss_weight=1.0)
    loss, values = run.loss(1, 8)  # the chunk of the first leaves what is known after two steps
    loss.backward()
    assert values["action_share"] == 0.5
    assert values["action_loss"] > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in run.policy.parameters())
    assert run.dataset.meta.stats[ACTION]["mean"].tolist() == [1, 2]
    assert run.act(0).isfinite().all()


def test_the_column_of_a_combined_dataset_is_found_without_an_option(workshop: Workshop, tmp_path: Path) -> None:
    def frame(episode: int, i: int) -> dict[str, Any]:
        known = episode == 0 and i < 3
        return {ACTION: np.float32([i, 2 * i] if known else [9, 9]), ACTION_VALID: np.array([known])}

    root = record(tmp_path / "data", {ACTION_VALID: vector("bool", (1,))}, frame)
    run = Run(workshop, opened(root), latent_loss_weight=1.0)
    assert run.loss(1, 8)[1]["action_share"] == 0.5
    assert run.dataset.meta.stats[ACTION]["mean"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="not one frame of the 2 episodes of this run has an action"):
        Run(workshop, opened(root), labelled_episodes=[1])


def test_a_chunk_is_learnt_up_to_its_first_unknown_action(workshop: Workshop, lost_root: Path) -> None:
    run = Run(workshop, opened(lost_root))
    batch = run.before(default_collate([run.dataset[1], run.dataset[0]]))
    is_pad = run.policy._action_target(batch).is_pad
    assert is_pad.tolist() == [[False, False, True, True], [False, False, False, True]]
    changed = {**batch, ACTION: batch[ACTION].clone()}
    changed[ACTION][0, 2:] = 7.0
    torch.manual_seed(0)
    first = run.policy({**batch, "latent_codes": CODES})[0]
    torch.manual_seed(0)
    assert torch.equal(run.policy({**changed, "latent_codes": CODES})[0], first)


def test_a_run_that_can_never_see_an_action_stops_at_the_start(workshop: Workshop, lost_root: Path) -> None:
    with pytest.raises(ValueError, match="not one frame of the 1 episodes of this run has an action to learn from"):
        Run(workshop, opened(lost_root, [1]))
    with pytest.raises(ValueError, match="learns neither actions nor latent codes"):
        Run(workshop, opened(lost_root), labelled_fraction=0.0, freeze_vla=True)


def test_actions_in_episodes_too_short_for_a_code_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    lengths = [3, 12]
    root = record(tmp_path / "data", {}, lambda episode, i: {}, lengths)
    online: dict[str, Any] = {"latent_targets": "online", "laq_checkpoint_path": str(workshop.laq)}
    with pytest.raises(ValueError, match="none of the 3 frames with a known action has a latent code"):
        Run(workshop, opened(root), labelled_episodes=[0], teacher_offsets=(4,), **online)


def test_a_state_that_is_not_finite_is_refused_by_name(workshop: Workshop, tmp_path: Path) -> None:
    def frame(episode: int, i: int) -> dict[str, Any]:
        return {OBS_STATE: np.float32([i, np.nan if (episode, i) == (1, 2) else 0])}

    root = record(tmp_path / "data", {}, frame)
    with pytest.raises(ValueError, match=r"'observation\.state' is NaN or infinite in 1 of the 12 frames .* index 8\)"):
        Run(workshop, opened(root))
    for run in (Run(workshop, opened(root, [0])), Run(workshop, opened(root), decoder_uses_state=False)):
        assert run.loss(0, 1)[0].isfinite()


def test_statistics_that_are_not_finite_never_reach_a_pipeline(workshop: Workshop, lost_root: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=r"the statistics of 'action' are not finite \(min, max, mean"):
        make_pre_post_processors(workshop.config(kind), dataset_stats=opened(lost_root).meta.stats)


@pytest.mark.parametrize("kind", ["hlrp_vla_direct", "hlrp_action_expert_direct"])
def test_a_robot_whose_state_is_not_finite_is_not_moved(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind).eval()
    seen = workshop.batch([3])
    seen[OBS_STATE][0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'observation\.state' holds NaN or infinite values"):
        policy.predict_action_chunk(seen)


# ---- Types and shapes ----


@pytest.mark.parametrize(
    ("kind", "action", "state"),
    [
        ("hlrp_vla_direct", vector("int64"), vector("float64")),
        ("hlrp_action_expert_direct", vector("bool"), vector("bool")),
        ("hlrp_action_expert_latent", vector("uint8", (1,)), vector("float32", (1,))),
        ("hlrp_vla", vector("float32", (1,)), vector("int32", (1,))),
        ("hlrp_diffusion", vector("int8"), vector("float16", (1,))),
    ],
)
def test_vectors_of_any_type_and_length_are_learnt_as_numbers(
    workshop: Workshop, tmp_path: Path, kind: str, action: dict[str, Any], state: dict[str, Any]
) -> None:
    def values(feature: dict[str, Any], i: int) -> np.ndarray:
        return np.array([i % 3 - (feature["dtype"][0] != "u"), i % 2])[: feature["shape"][0]].astype(feature["dtype"])

    features = {ACTION: action, OBS_STATE: state}
    root = record(tmp_path / "data", features, lambda _, i: {key: values(one, i) for key, one in features.items()})
    run = Run(workshop, opened(root), kind)
    for rows in ((0, 1), (2,)):
        loss, values_ = run.loss(*rows)
        assert values_["action_loss"] < 10
        assert loss.isfinite()
    assert run.act(0).shape == (1, 4, *action["shape"])
    assert run.act(0).isfinite().all()


def test_actions_that_a_clipping_expert_could_not_give_are_refused(workshop: Workshop, tmp_path: Path) -> None:
    root = record(tmp_path / "data", {ACTION: vector("uint8")}, lambda _, i: {ACTION: np.uint8([i, 60])})
    raw = {"normalization_mapping": {"ACTION": NormalizationMode.IDENTITY}}
    with pytest.raises(ValueError, match=r"clips actions to ±1, and normalized actions reach ±60; normalize"):
        Run(workshop, opened(root), "hlrp_diffusion", **raw)
    Run(workshop, opened(root), "hlrp_diffusion", clip_sample_range=60.0, **raw)
    with pytest.raises(ValueError, match=r"clips actions to ±0.5, and normalized actions reach ±1"):
        workshop.config("hlrp_action_expert_latent", clip_sample_range=0.5)


def test_actions_beyond_the_quantiles_that_a_clipping_expert_cannot_give_are_told(
    workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = opened(record(tmp_path / "data", {}, lambda *_: {}, lengths=(30, 30)))
    quantiles = {"normalization_mapping": {"ACTION": NormalizationMode.QUANTILE10}}
    run = Run(workshop, dataset, "hlrp_diffusion", **quantiles)
    largest = run.before({**dataset[29], "task": "Go"})[ACTION].abs().max().item()  # the last action of an episode
    assert largest > 1.1
    assert f"normalized actions reach ±{largest:.3g}" in caplog.text
    assert "never predicted" in caplog.text
    caplog.clear()
    Run(workshop, dataset, "hlrp_diffusion", clip_sample_range=1.01 * largest, **quantiles)
    Run(workshop, dataset, "hlrp_diffusion", clip_sample=False, **quantiles)
    Run(workshop, dataset, "hlrp_diffusion")
    assert "never predicted" not in caplog.text


def test_one_state_value_is_the_samples_own_in_any_window(workshop: Workshop, tmp_path: Path) -> None:
    features = {OBS_STATE: vector("float32", (1,))}
    root = record(tmp_path / "data", features, lambda _, i: {OBS_STATE: np.float32([i])}, (12, 12))
    run = Run(workshop, opened(root))
    batch = run.before(default_collate([run.dataset[row] for row in (1, 4)]))
    single, window = run.policy._state(batch), {**batch, OBS_STATE: torch.tensor([[1.0, 5.0], [4.0, 8.0]])}
    assert single.shape == (2, 1)
    assert single[1] > single[0]
    assert run.policy._state(window).tolist() == [[1.0], [4.0]]


@pytest.mark.parametrize(
    ("features", "row", "message"),
    [
        ({ACTION: vector(shape=(2, 3))}, {ACTION: np.ones((2, 3), np.float32)}, r"'action' .* shape \(2, 3\)"),
        ({OBS_STATE: vector("string", (1,))}, {OBS_STATE: "still"}, r"'observation\.state' .* dtype string"),
        ({CAMERA: camera(2)}, {CAMERA: image("LA")}, "has 2 channels, expected 1"),
        ({CAMERA: camera(1, info={"is_depth_map": True})}, {CAMERA: picture(1, np.uint16)}, "needs a colour camera"),
    ],
    ids=["matrix", "text", "two channels", "depth alone"],
)
def test_what_a_policy_cannot_take_is_refused_by_name(
    workshop: Workshop, tmp_path: Path, features: dict[str, Any], row: dict[str, Any], message: str
) -> None:
    root = record(tmp_path / "data", features, lambda *_: row)
    with pytest.raises(ValueError, match=message):
        Run(workshop, opened(root))


def test_pixels_of_16_bits_are_refused_unless_they_are_marked_as_depth(workshop: Workshop, tmp_path: Path) -> None:
    row = {CAMERA: 9 * picture(1, np.uint16)}
    dataset = opened(record(tmp_path / "data", {CAMERA: camera(1)}, lambda *_: row))
    with pytest.raises(ValueError, match=r"images hold pixels from 0 to 2295, .* mark depth maps"):
        Run(workshop, dataset).loss(0, 1)
    with pytest.raises(ValueError, match=r"holds pixels of mode I;16, expected 8-bit pictures; if it is a depth map"):
        open_frames(dataset, CAMERA, (SIZE, SIZE), cache_gib=1.0)


@pytest.fixture(scope="module")
def many_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the colour camera a grey one, one with alpha, and a depth map; beside the state other observations."""
    features = {
        "observation.images.grey": camera(1),
        "observation.images.alpha": camera(4),
        DEPTH: camera(1, info={"is_depth_map": True, "depth_unit": "mm"}),
        "observation.touches": vector("bool", (2,)),
        "observation.environment_state": vector("float64", (3,)),
    }
    row = {
        "observation.images.grey": image("L"),
        "observation.images.alpha": image("RGBA"),
        DEPTH: picture(1, np.uint16),
        "observation.touches": np.ones(2, bool),
        "observation.environment_state": np.full(3, np.nan),
    }
    return record(tmp_path_factory.mktemp("many") / "data", features, lambda *_: row)


def test_grey_and_transparent_cameras_are_seen_and_depth_maps_and_unused_observations_are_not(
    workshop: Workshop, many_root: Path, kind: str
) -> None:
    run = Run(workshop, opened(many_root), kind)
    cameras = [CAMERA, "observation.images.grey", "observation.images.alpha"]
    assert sorted(run.policy.config.input_features) == sorted([*cameras, OBS_STATE])
    assert run.loss(0, 7)[0].isfinite()
    assert run.act(0).isfinite().all()


def test_a_grey_camera_teaches_online(workshop: Workshop, many_root: Path) -> None:
    online = {"latent_targets": "online", "laq_checkpoint_path": str(workshop.laq), "teacher_offsets": (4,)}
    run = Run(workshop, opened(many_root), teacher_cameras=["observation.images.grey"], **online)
    grey = torch.rand(2, 2, 1, SIZE, SIZE)
    codes = [
        run.policy.labels.label({"observation.images.grey": window}).codes
        for window in (grey, grey.expand(-1, -1, 3, -1, -1))
    ]
    assert torch.equal(*codes)


# ---- Labelled episodes among those of the run ----


@pytest.fixture(scope="module")
def plain_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("plain") / "data", {}, lambda *_: {}, (6,) * 6)


@pytest.mark.parametrize("episodes", [[0, 1], [2, 5], [1, 3, 4]])
def test_labelled_episodes_are_drawn_among_those_of_the_run(
    workshop: Workshop, plain_root: Path, episodes: list[int]
) -> None:
    run = Run(workshop, opened(plain_root, episodes), labelled_fraction=0.3)
    labelled = {int(frame) // 6 for frame in run.policy.action_labels.known.nonzero()} & set(episodes)
    assert len(labelled) == 1


@pytest.mark.parametrize("choice", [{"labelled_fraction": 0.3}, {"labelled_episodes": [1]}], ids=["share", "numbers"])
def test_episodes_held_out_for_evaluation_are_measured_on_their_actions(
    workshop: Workshop, plain_root: Path, choice: dict[str, Any]
) -> None:
    train = opened(plain_root, [0, 1, 2])  # as --dataset.eval_split=0.5 leaves them
    run = Run(workshop, train, "hlrp_action_expert_direct", **choice)
    run.dataset = opened(plain_root, [3, 4, 5])
    run.policy.eval()
    loss, values = run.loss(0, 7)
    assert values["action_share"] == 1
    assert loss > 0


def test_a_labelled_episode_that_the_run_leaves_out_is_refused(workshop: Workshop, plain_root: Path) -> None:
    with pytest.raises(ValueError, match=r"labelled_episodes has \[5\], .* choose among its episodes \[0, 1\]"):
        Run(workshop, opened(plain_root, [0, 1]), labelled_episodes=[1, 5])
    with pytest.raises(ValueError, match="action_valid_column=index has dtype int64"):
        Run(workshop, opened(plain_root), action_valid_column="index")
