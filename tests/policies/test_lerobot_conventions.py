"""What LeRobot's own test-suite asks of its policies, asked of every type of ours, and what its commands rely on.

`scripts/run_lerobot_suite.py` runs that suite itself on these types, where a clone of LeRobot is at hand.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import shutil
import sys
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.configs.default import DatasetConfig, PeftConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.optim.factory import make_optimizer_and_scheduler
from lerobot.policies.factory import get_policy_class, make_policy, make_policy_config, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.utils.constants import ACTION, OBS_STATE
from torch.utils.data import default_collate

from lerobot_policy_felix_bundle import FloatVectorsProcessorStep
from lerobot_policy_felix_bundle.policies.common.observations import foundation_batch
from policy_workshop import SMALL, Workshop
from tiny_datasets import CAMERA, SIZE

SEEN = (CAMERA, OBS_STATE, "task")
MODES = ("MIN_MAX", "MEAN_STD", "QUANTILES", "QUANTILE10", "IDENTITY")
WITHOUT_HUB: dict[str, dict[str, Any]] = {
    "hlrp_vla": {"vla_model_name": None, "laq_decoder_type": "codebook_lookup"},
    "hlrp_diffusion": {"vla_model_name": None, "image_size": None},
}
"""What the two presets need where there is neither a hub nor a quantizer; the other types need nothing."""
ASKED_FOR_A_CARD = pytest.mark.skipif(
    not hasattr(PreTrainedPolicy, "generate_model_card"),
    reason="this version of LeRobot writes the model card itself and asks no policy for one",
)


class Stock:
    """Policies and batches of the workshop, made once and handed out as copies."""

    def __init__(self, workshop: Workshop) -> None:
        self.config = workshop.config
        self.meta = workshop.dataset.meta
        self._new_policy = workshop.policy
        self._policy = functools.cache(workshop.policy)
        self._batch = functools.cache(lambda *index: workshop.batch(list(index)))

    def policy(self, kind: str, **changes: Any) -> Any:
        """A policy of its own."""
        return self._new_policy(kind, **changes) if changes else deepcopy(self._policy(kind))

    def batch(self, *index: int) -> dict[str, Any]:
        """Frames of the dataset as they reach the policy."""
        return deepcopy(self._batch(*index))


@pytest.fixture(scope="module")
def stock(workshop: Workshop) -> Stock:
    return Stock(workshop)


@pytest.fixture(params=sorted(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def chunk(policy: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Actions, from the same noise where there is noise."""
    torch.manual_seed(0)
    return policy.predict_action_chunk(batch)


def seen_of(batch: dict[str, Any]) -> dict[str, Any]:
    """What a robot would deliver of a batch."""
    return {key: batch[key] for key in SEEN}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
        for key, value in first.items()
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- Names and construction ----


def test_from_a_types_name_lerobot_finds_everything_else(kind: str) -> None:
    config_class, policy_class = PreTrainedConfig.get_choice_class(kind), get_policy_class(kind)
    assert policy_class.name == kind
    assert policy_class.config_class is config_class
    assert inspect.signature(policy_class.__init__).parameters["config"].annotation is config_class
    module = importlib.import_module(config_class.__module__.replace("configuration_", "processor_"))
    assert callable(getattr(module, f"make_{kind}_pre_post_processors"))


@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=pytest.mark.slow) if one == "hlrp_diffusion" else one for one in sorted(SMALL)]
)
def test_the_default_settings_make_a_policy(kind: str) -> None:
    config = make_policy_config(kind, device="cpu", **WITHOUT_HUB.get(kind, {}))
    config.input_features = {
        "observation.images.laptop": PolicyFeature(type=FeatureType.VISUAL, shape=(3, 84, 84)),
        OBS_STATE: PolicyFeature(type=FeatureType.STATE, shape=(6,)),
    }
    config.output_features = {ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(6,))}
    policy = get_policy_class(kind)(config)
    assert sum(p.numel() for p in policy.parameters()) > 0


def test_several_states_and_actions_leave_the_whole_ones_in_charge(stock: Stock, kind: str) -> None:
    parts = {f"{OBS_STATE}.{name}": PolicyFeature(type=FeatureType.STATE, shape=(2,)) for name in ("left", "right")}
    moves = {f"{ACTION}.{name}": PolicyFeature(type=FeatureType.ACTION, shape=(2,)) for name in ("left", "right")}
    plain = stock.config(kind)
    config = stock.config(
        kind,
        input_features={**parts, **plain.input_features},
        output_features={**moves, **plain.output_features},
    )
    assert config.robot_state_feature == plain.input_features[OBS_STATE]
    assert config.action_feature == plain.output_features[ACTION]
    policy = get_policy_class(kind)(config).eval()
    assert chunk(policy, seen_of(stock.batch(3))).shape == (1, 4, 4)


# ---- Batches ----


def test_no_call_changes_its_batch(stock: Stock, kind: str) -> None:
    policy, batch = stock.policy(kind), stock.batch(3, 20)
    before = deepcopy(batch)
    policy.forward(batch)
    assert same(batch, before)
    policy.eval()
    policy.select_action(batch)
    policy.predict_action_chunk(batch)
    assert same(batch, before)


def test_a_batch_needs_nothing_that_the_features_do_not_declare(stock: Stock, kind: str) -> None:
    policy, batch = stock.policy(kind), stock.batch(3, 20)
    needed = {*SEEN, ACTION, *(["index"] if policy.config.needs_labels else [])}
    _, values = policy(batch)
    for key in batch.keys() - needed:
        loss, without = policy({name: value for name, value in batch.items() if name != key})
        assert torch.isfinite(loss)
        assert without.keys() == values.keys()
    assert torch.isfinite(policy({key: batch[key] for key in needed})[0])


def test_what_lerobots_pipelines_add_at_inference_is_not_looked_at(stock: Stock, kind: str) -> None:
    policy, seen = stock.policy(kind).eval(), seen_of(stock.batch(3, 20))
    rest = {ACTION: None, "next.reward": 0.0, "next.done": False, "next.truncated": False, "info": {}}
    assert torch.equal(chunk(policy, {**seen, **rest}), chunk(policy, seen))


def test_a_task_is_one_text_or_one_for_each_and_else_the_instruction(stock: Stock, kind: str) -> None:
    batch = seen_of(stock.batch(3, 4))
    text = batch["task"][0]
    policy = stock.policy(kind).eval()
    expected = chunk(policy, batch)
    assert torch.equal(chunk(policy, {**batch, "task": text}), expected)
    without = {key: value for key, value in batch.items() if key != "task"}
    with pytest.raises(ValueError, match="instruction"):
        policy.predict_action_chunk(without)
    policy.config.instruction = text
    assert torch.equal(chunk(policy, without), expected)
    assert torch.equal(chunk(policy, {**batch, "task": ["", ""]}), expected)  # what PushT delivers


def test_actions_have_no_gradient_and_the_queue_is_emptied_before_it_is_filled(stock: Stock, kind: str) -> None:
    policy, seen = stock.policy(kind).eval(), seen_of(stock.batch(3, 20))
    with torch.enable_grad():
        actions = [policy.select_action(seen) for _ in range(2)]
    assert all(action.shape == (2, 4) and action.dtype == torch.float32 for action in actions)
    assert not any(action.requires_grad for action in actions)
    assert not policy._action_queue
    policy.select_action(seen)
    assert len(policy._action_queue) == policy.config.n_action_steps - 1


# ---- Training ----


def test_the_log_has_the_same_numbers_on_every_step(stock: Stock, kind: str) -> None:
    policy = stock.policy(kind, latent_loss_weight=1.0, labelled_episodes=[0])
    names = []
    for index in ([3, 4], [20, 30], [10, 11]):  # with actions, without, and at the end of an episode
        values = policy(stock.batch(*index))[1]
        assert all(type(value) is float for value in values.values())
        names.append(list(values))
    with torch.no_grad():
        names.append(list(policy.eval()(stock.batch(3, 4))[1]))
    assert all(one == names[0] for one in names)  # the order counts too: LeRobot averages over processes by place


def test_the_optimizer_presets_train_every_parameter_once(stock: Stock, kind: str) -> None:
    policy = stock.policy(kind, scheduler_warmup_steps=1)
    run = TrainPipelineConfig(dataset=DatasetConfig("local/moving_square"), policy=policy.config, steps=4)
    run.optimizer, run.scheduler = policy.config.get_optimizer_preset(), policy.config.get_scheduler_preset()
    optimizer, scheduler = make_optimizer_and_scheduler(run, policy)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in policy.parameters() if p.requires_grad)
    before = {name: p.clone() for name, p in policy.named_parameters()}
    for _ in range(2):
        policy(stock.batch(3, 20))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    moved = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert any(name.startswith("backend.") for name in moved)
    assert any(not name.startswith("backend.") for name in moved)


def test_a_loss_per_sample_lets_lerobot_weigh_samples(stock: Stock, kind: str) -> None:
    policy = stock.policy(kind)
    losses, values = policy(stock.batch(3, 20, 4), reduction="none")
    assert losses.shape == (3,)
    assert values.keys() == policy(stock.batch(3, 20, 4))[1].keys()
    (losses * torch.tensor([0.0, 1.0, 2.0])).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mixed_precision_learns_and_acts_in_float32(stock: Stock, kind: str, dtype: str) -> None:
    """`dtype=bfloat16` is what lerobot-train turns into autocast, `use_amp` what lerobot-eval does."""
    names = {"torch_dtype": {"float32": "fp32", "bfloat16": "bf16"}[dtype]} if "torch_dtype" in SMALL[kind] else {}
    policy = stock.policy(kind, **(names or {"dtype": dtype}))
    assert policy.config.dtype == dtype
    batch = stock.batch(3, 20)
    plain = stock.policy(kind)(batch)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, values = policy(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert list(values) == list(plain)
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters() if p.grad is not None)
    policy.eval()
    seen = seen_of(batch)
    plain_chunk = chunk(policy, seen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_amp = chunk(policy, seen)
    assert plain_chunk.dtype == under_amp.dtype == torch.float32
    assert torch.isfinite(under_amp).all()
    assert policy.select_action(seen).dtype == torch.float32


# ---- Saving and loading ----


def test_a_policy_saved_twice_is_the_same_files_and_the_same_weights(stock: Stock, kind: str, tmp_path: Path) -> None:
    policy = stock.policy(kind)
    policy.save_pretrained(tmp_path / "first")
    with_config = get_policy_class(kind).from_pretrained(tmp_path / "first", config=policy.config)
    alone = get_policy_class(kind).from_pretrained(tmp_path / "first")
    for loaded in (with_config, alone):
        torch.testing.assert_close(loaded.state_dict(), policy.state_dict(), rtol=0, atol=0)
        assert not loaded.training
    alone.save_pretrained(tmp_path / "second")
    assert files(tmp_path / "second") == files(tmp_path / "first")


def test_weights_gathered_from_shards_are_saved_as_one_file(stock: Stock, kind: str, tmp_path: Path) -> None:
    policy = stock.policy(kind)
    policy.save_pretrained(tmp_path, state_dict=policy.state_dict())
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    loaded = get_policy_class(kind).from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), policy.state_dict(), rtol=0, atol=0)


@ASKED_FOR_A_CARD
def test_what_is_pushed_to_the_hub_is_enough_to_act_and_has_a_card(
    stock: Stock, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = stock.policy(kind, push_to_hub=True, repo_id="someone/square").eval()
    expected = chunk(policy, seen_of(stock.batch(3)))

    def upload(self: HfApi, *, folder_path: Path, allow_patterns: list[str], **kwargs: Any) -> Any:
        names = [path for path in files(Path(folder_path)) if not path.startswith(".")]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(folder_path) / name, tmp_path / name)
        return type("Commit", (), {"repo_url": type("Url", (), {"url": "https://hub"})})

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr(ModelCard, "validate", lambda self, **_: None)  # asks the hub
    run = TrainPipelineConfig(dataset=DatasetConfig("local/moving_square"), policy=policy.config, steps=4)
    policy.push_model_to_hub(run, dataset_meta=stock.meta)

    card = (tmp_path / "README.md").read_text()
    assert f"a **{kind}** policy" in card
    assert f"--policy.type={kind}" in card
    assert f"`{CAMERA}`" in card
    data = ModelCard(card).data
    assert {"lerobot", "robotics", kind} <= set(data.tags)
    assert (data.library_name, data.pipeline_tag, data.license) == ("lerobot", "robotics", "apache-2.0")
    assert (data.datasets, data.base_model) == (None, None)  # recordings that are on no hub
    assert "huggingface.co/datasets/" not in card
    loaded = get_policy_class(kind).from_pretrained(tmp_path)
    torch.testing.assert_close(chunk(loaded, seen_of(stock.batch(3))), expected, atol=1e-6, rtol=0)


@ASKED_FOR_A_CARD
def test_the_card_escapes_tasks_and_names_what_is_on_the_hub(
    stock: Stock, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = stock.policy(kind)
    monkeypatch.setattr(ModelCard, "validate", lambda self, **_: None)  # asks the hub
    tasks = SimpleNamespace(index=["<script>alert(1)</script>", "Push `the` T"])
    meta = SimpleNamespace(
        repo_id="local/square", total_episodes=6, total_frames=92, fps=10, robot_type=None, camera_keys=[CAMERA],
        tasks=tasks,
    )  # fmt: skip

    def card(repo_id: str, root: str | None, license: str | None = None) -> ModelCard:
        run = TrainPipelineConfig(dataset=DatasetConfig(repo_id, root=root), policy=policy.config, steps=4)
        return policy.generate_model_card(repo_id, kind, license, None, cfg=run, dataset_meta=meta)

    local = str(card("local/square", "/home/me/kitchen"))
    assert "<script>" not in local
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in local
    assert "- **Name:** kitchen, which is not on the hub" in local
    assert "/home/me" not in local
    assert "visualize_dataset" not in local
    policy.config.vla_checkpoint_path = "someone/vla"
    hub = card("lerobot/pusht", None)
    assert (hub.data.datasets, hub.data.base_model, hub.data.license) == (["lerobot/pusht"], "someone/vla", "other")
    assert "[lerobot/pusht](https://huggingface.co/datasets/lerobot/pusht)" in str(hub)
    assert card("lerobot/pusht", None, "mit").data.license == "mit"


# ---- Processors ----


def test_the_pipelines_are_lerobots_standard_ones_and_a_step_to_float32(
    stock: Stock, kind: str, tmp_path: Path
) -> None:
    config = stock.config(kind)
    made = make_pre_post_processors(config, dataset_stats=stock.meta.stats)
    for pipeline in made:
        pipeline.save_pretrained(tmp_path)
    features = {**config.input_features, **config.output_features}
    norm_map = config.normalization_mapping
    loaded = make_pre_post_processors(
        config,
        pretrained_path=str(tmp_path),
        preprocessor_overrides={  # those of lerobot-train; an override without its step is an error
            "device_processor": {"device": "cpu"},
            "normalizer_processor": {"features": features, "norm_map": norm_map},
            "rename_observations_processor": {"rename_map": {}},
        },
        postprocessor_overrides={"unnormalizer_processor": {"features": config.output_features, "norm_map": norm_map}},
    )
    batch = stock.batch(3, 20)
    for pre, post in (made, loaded):
        assert [pre.name, post.name] == ["policy_preprocessor", "policy_postprocessor"]
        assert [type(step) for step in pre.steps] == [
            RenameObservationsProcessorStep,
            AddBatchDimensionProcessorStep,
            DeviceProcessorStep,
            FloatVectorsProcessorStep,
            NormalizerProcessorStep,
        ]
        assert [type(step) for step in post.steps] == [UnnormalizerProcessorStep, DeviceProcessorStep]
    for key, value in made[0](batch).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(loaded[0](batch)[key], value)


def test_the_pipelines_work_without_features_and_statistics(kind: str) -> None:
    config = make_policy_config(kind, device="cpu", **WITHOUT_HUB.get(kind, {}))
    pre, post = make_pre_post_processors(config)
    out = pre({OBS_STATE: torch.ones(6), ACTION: torch.ones(6), "task": "go"})
    assert out[OBS_STATE].shape == (1, 6)
    assert out["task"] == ["go"]
    assert torch.equal(post(out[ACTION]), torch.ones(1, 6))


@pytest.mark.parametrize("mode", MODES)
def test_actions_survive_every_normalization_there_and_back(stock: Stock, kind: str, mode: str) -> None:
    mapping = {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode}
    mapping = {name: NormalizationMode[value] for name, value in mapping.items()}
    latent_diffusion = kind in ("hlrp_action_expert_latent", "hlrp_diffusion")
    if latent_diffusion and mode == "MEAN_STD":
        with pytest.raises(ValueError, match="clip_sample=false"):
            stock.config(kind, normalization_mapping=mapping)
    options = {"clip_sample": False} if latent_diffusion and mode == "MEAN_STD" else {}
    policy = stock.policy(kind, normalization_mapping=mapping, **options)
    pre, post = make_pre_post_processors(policy.config, dataset_stats=stock.meta.stats)
    raw = stock.batch(3, 20, 40)
    batch = pre(raw)
    torch.testing.assert_close(post(batch[ACTION]), raw[ACTION], atol=1e-5, rtol=1e-5)
    assert torch.equal(batch[CAMERA], raw[CAMERA])
    assert torch.equal(batch[ACTION], raw[ACTION]) == (mode == "IDENTITY")
    loss, _ = policy(batch)
    assert torch.isfinite(loss)
    acted = post(chunk(policy, {key: batch[key] for key in SEEN}))
    assert torch.isfinite(acted).all()


def test_pixels_are_normalized_by_the_model_alone(stock: Stock, kind: str) -> None:
    mapping = {**stock.config(kind).normalization_mapping, "VISUAL": NormalizationMode.MEAN_STD}
    with pytest.raises(ValueError, match="IDENTITY"):
        stock.policy(kind, normalization_mapping=mapping)


def test_a_camera_of_another_name_is_mapped_to_the_policys(stock: Stock, kind: str) -> None:
    policy = stock.policy(kind).eval()
    stats = stock.meta.stats
    plain, _ = make_pre_post_processors(policy.config, dataset_stats=stats)
    renaming, _ = make_pre_post_processors(policy.config, dataset_stats=stats)
    renaming.steps[0] = RenameObservationsProcessorStep(rename_map={"observation.image": CAMERA})
    seen = seen_of(stock.batch(3, 20))
    other = {("observation.image" if key == CAMERA else key): value for key, value in seen.items()}
    assert torch.equal(chunk(policy, renaming(other)), chunk(policy, plain(seen)))
    with pytest.raises(ValueError, match="rename_map"):
        policy.predict_action_chunk(plain(other))


# ---- Other robots ----


def record(root: Path, *, cameras: dict[str, tuple[int, int]], with_state: bool) -> Any:
    """A dataset of another robot: two episodes of noise."""
    features: dict[str, Any] = {
        key: {"dtype": "image", "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for key, size in cameras.items()
    }
    vector = {"dtype": "float32", "shape": (7,), "names": [f"joint{i}" for i in range(7)]}
    features |= {ACTION: vector} | ({OBS_STATE: vector} if with_state else {})
    dataset = LeRobotDataset.create("local/other", fps=10, features=features, root=root, use_videos=False)
    draw = np.random.default_rng(0)
    for task in ("Stir the soup", "Salt the soup"):
        for _ in range(8):
            frame: dict[str, Any] = {
                key: draw.integers(0, 256, (*size, 3), dtype=np.uint8) for key, size in cameras.items()
            }
            frame |= {key: draw.normal(size=7).astype(np.float32) for key in (ACTION, OBS_STATE) if key in features}
            dataset.add_frame({**frame, "task": task})
        dataset.save_episode()
    dataset.finalize()
    return LeRobotDataset("local/other", root=root, delta_timestamps={ACTION: [i / 10 for i in range(4)]})


@pytest.fixture(scope="module", params=["two cameras", "no state"])
def other_robot(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Datasets unlike the workshop's: two cameras of different sizes, or no state; seven joints."""
    root = tmp_path_factory.mktemp("other") / "dataset"
    if request.param == "no state":
        return record(root, cameras={"observation.image": (24, 40)}, with_state=False)
    sizes = {"observation.images.front": (24, 40), "observation.images.wrist": (SIZE, SIZE)}
    return record(root, cameras=sizes, with_state=True)


def test_any_robots_features_make_a_policy(stock: Stock, other_robot: Any, kind: str, tmp_path: Path) -> None:
    config = stock.config(kind, input_features={}, output_features={})
    policy = make_policy(config, ds_meta=other_robot.meta)
    pre, post = make_pre_post_processors(config, dataset_stats=other_robot.meta.stats)
    batch = pre(default_collate([other_robot[i] for i in (0, 9)]))
    batch["latent_codes"] = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])
    loss, _ = policy(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert set(config.image_features) == set(other_robot.meta.camera_keys)
    policy.eval()
    seen = {key: value for key, value in batch.items() if key.startswith("observation") or key == "task"}
    expected = chunk(policy, seen)
    assert post(expected).shape == (2, 4, 7)

    def features(observation: dict[str, Any]) -> Tensor:
        inputs = foundation_batch(observation, config.image_features, size=policy.backend.config.image_size)
        return policy.backend.features(inputs).hidden

    shown = features(seen)
    for camera in config.image_features:
        assert not torch.equal(features({**seen, camera: 1 - seen[camera]}), shown)
    policy.save_pretrained(tmp_path)
    loaded = get_policy_class(kind).from_pretrained(tmp_path)
    torch.testing.assert_close(chunk(loaded, seen), expected, atol=1e-6, rtol=0)


# ---- LoRA, as `lerobot-train --peft` wraps a policy ----


def with_lora(stock: Stock, kind: str, folder: Path, **changes: Any) -> tuple[Any, Any]:
    """A saved policy, and the same with adapters."""
    pytest.importorskip("peft")
    stock.policy(kind, **changes).save_pretrained(folder)
    policies = []
    for _ in range(2):
        config = PreTrainedConfig.from_pretrained(folder)
        config.pretrained_path = folder
        policies.append(make_policy(config, ds_meta=stock.meta))
    return policies[0], policies[1].wrap_with_peft(peft_cli_overrides=asdict(PeftConfig(r=2)))


def test_lora_trains_adapters_of_the_language_model_and_the_whole_action_head(
    stock: Stock, kind: str, tmp_path: Path
) -> None:
    base, policy = with_lora(stock, kind, tmp_path / "base")
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    adapters = [name for name in trained if "lora_" in name]
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in adapters} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert all("language_model" in name for name in adapters)
    heads = {name.split(".modules_to_save.")[0].split(".")[2] for name in set(trained) - set(adapters)}
    assert heads == {name for name in base.action_modules if list(getattr(base, name).parameters())}
    policy.eval()
    base.eval()
    seen = seen_of(stock.batch(3, 20))
    assert torch.equal(chunk(policy, seen), chunk(base, seen))  # an adapter begins as nothing

    before = {name: p.clone() for name, p in policy.named_parameters()}
    policy.train()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-2)
    for _ in range(2):
        loss, _ = policy(stock.batch(3, 20, 4, 21))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= set(trained)
    assert any("lora_B" in name for name in moved)
    assert any("modules_to_save" in name for name in moved)


def test_adapters_are_saved_without_the_base_and_loaded_on_top_of_it(stock: Stock, kind: str, tmp_path: Path) -> None:
    base, policy = with_lora(stock, kind, tmp_path / "base")
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn_like(p))
    policy.eval()
    seen = seen_of(stock.batch(3, 20))
    expected = chunk(policy, seen)
    policy.save_pretrained(tmp_path / "adapter")
    policy.config.save_pretrained(tmp_path / "adapter")
    saved = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert "adapter_model.safetensors" in saved
    assert "model.safetensors" not in saved
    config = PreTrainedConfig.from_pretrained(tmp_path / "adapter")
    config.pretrained_path = tmp_path / "adapter"
    assert config.use_peft
    loaded = make_policy(config, ds_meta=stock.meta).eval()
    torch.testing.assert_close(chunk(loaded, seen), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(chunk(base.eval(), seen), expected, atol=1e-4)


@pytest.mark.parametrize(("argument", "steps"), [("--resume=true", 5), ("--resume=off", 0)])
def test_a_resumed_run_with_adapters_continues_its_count_of_steps(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, steps: int
) -> None:
    _, policy = with_lora(stock, "hlrp_action_expert_latent", tmp_path / "base", predicted_codes=0.5)
    adapter, state = tmp_path / "000005" / "pretrained_model", tmp_path / "000005" / "training_state"
    policy.save_pretrained(adapter)
    policy.config.save_pretrained(adapter)
    state.mkdir()
    (state / "training_step.json").write_text('{"step": 5}')
    config = PreTrainedConfig.from_pretrained(adapter)
    config.pretrained_path = adapter
    monkeypatch.setattr(sys, "argv", ["lerobot-train", argument])
    resumed = make_policy(config, ds_meta=stock.meta)
    assert (int(resumed.steps_trained), int(resumed.backend.draws)) == (steps, steps)


@pytest.mark.parametrize(
    ("kind", "changes", "frozen"),
    [
        ("hlrp_vla_direct", {"decoder": "laq"}, "trunk"),
        ("hlrp_vla_direct", {"freeze_decoder": True}, "decoder"),
        ("hlrp_action_expert_latent", {"latent_embed_dim": 4, "expert": "flow"}, None),
    ],
)
def test_lora_trains_no_part_of_a_head_that_training_leaves_alone(
    stock: Stock, workshop: Workshop, tmp_path: Path, kind: str, changes: dict[str, Any], frozen: str | None
) -> None:
    if changes.get("decoder") == "laq":
        changes = {**changes, "laq_checkpoint_path": str(workshop.laq)}
    base, policy = with_lora(stock, kind, tmp_path / "base", **changes)
    usual = {name for name, p in base.named_parameters() if p.requires_grad and not name.startswith("backend.")}
    trained = {name for name, p in policy.named_parameters() if p.requires_grad and "lora_" not in name}
    assert {name.removeprefix("base_model.model.").replace("modules_to_save.default.", "") for name in trained} == usual
    assert frozen is None or not any(f"{frozen}." in name for name in trained)
    assert torch.isfinite(policy(stock.batch(3, 20))[0])


def test_lora_finds_the_language_model_of_the_other_backend(stock: Stock, tmp_path: Path) -> None:
    changes = {"vla_checkpoint_path": None, "vla_backend": "smol_latent_head"}
    _, policy = with_lora(stock, "hlrp_vla_direct", tmp_path / "base", **changes)
    adapters = [name for name, p in policy.named_parameters() if p.requires_grad and "lora_" in name]
    assert adapters
    assert all("text_model" in name for name in adapters)
    assert torch.isfinite(policy(stock.batch(3, 20))[0])


@pytest.mark.parametrize(
    ("kind", "changes", "remedy"),
    [
        ("hlrp_diffusion", {"freeze_vla": True}, r"learn nothing; set --policy\.freeze_vla=false"),
        ("hlrp_vla_direct", {"freeze_vla_backbone": True}, r"train some; set --policy\.freeze_vla_backbone=false"),
        ("hlrp_vla_direct", {"latent_loss_weight": 0.0}, r"learn nothing; set --policy\.latent_loss_weight above 0"),
    ],
)
def test_adapters_on_a_vla_that_learns_nothing_are_refused(
    stock: Stock, tmp_path: Path, kind: str, changes: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        with_lora(stock, kind, tmp_path / "base", **changes)


def test_adapters_learn_from_actions_alone_where_these_teach_the_vla(stock: Stock, tmp_path: Path) -> None:
    _, policy = with_lora(stock, "hlrp_action_expert_direct", tmp_path / "base", latent_loss_weight=0.0)
    assert any("lora_" in name for name, p in policy.named_parameters() if p.requires_grad)
