"""What a configuration leaves open: the length of a chunk, how much of it is executed, the geometry of the codes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.policies.factory import get_policy_class
from torch.utils.data import default_collate

from hlrp.data.labels import save_labels
from hlrp.latents import LatentSpec
from lerobot_policy_felix_bundle.policies.common import open_chunk
from lerobot_policy_felix_bundle.policies.common.open_chunk import HIGHEST_FPS
from policies.lerobot_commands import pretrained, run_train, train_flags
from policy_workshop import Workshop, make_foundation, make_labels, make_laq

OPEN: dict[str, Any] = {"chunk_size": None, "n_action_steps": None}


def test_lerobot_trains_and_resumes_a_chunk_as_long_as_a_label(workshop: Workshop, tmp_path: Path) -> None:
    run_train(
        "--policy.type=hlrp_vla_direct",
        f"--policy.vla_checkpoint_path={workshop.foundation}",
        *train_flags(workshop.dataset_root, tmp_path / "out", steps=1),
    )
    folder = pretrained(tmp_path / "out")
    for name in ("config.json", "train_config.json"):
        values = json.loads((folder / name).read_text())
        values = values.get("policy", values)
        assert (values["chunk_size"], values["n_action_steps"]) == (4, 2)
        assert (values["codebook_size"], values["code_seq_len"]) == (8, 4)
    run_train(f"--config_path={folder / 'train_config.json'}", "--resume=true", "--steps=2")
    assert (tmp_path / "out" / "checkpoints" / "000002").is_dir()


@pytest.mark.parametrize("spec", [LatentSpec(frame_offset_s=0.1), LatentSpec(frame_offset_s=0.21, num_frames=4)])
def test_the_window_of_an_open_chunk_is_long_enough(tmp_path: Path, spec: LatentSpec) -> None:
    foundation = make_foundation(tmp_path / "foundation", fingerprint="abc", spec=spec)
    config: Any = PreTrainedConfig.get_choice_class("hlrp_vla_direct")(vla_checkpoint_path=str(foundation))
    for fps in (10, 12, 30, 50, 80, HIGHEST_FPS):
        meta: Any = SimpleNamespace(fps=fps, features={"action": {}})
        asked = resolve_delta_timestamps(config, meta)
        assert asked is not None
        assert len(asked["action"]) >= spec.offset_frames(fps) * spec.num_transitions


@pytest.mark.parametrize("kind", ["hlrp_vla_direct", "hlrp_action_expert_direct"])
def test_actions_beyond_the_chunk_are_not_looked_at(workshop: Workshop, kind: str) -> None:
    policy = workshop.policy(kind).eval()
    longer = LeRobotDataset(
        "local/moving_square", root=workshop.dataset_root, delta_timestamps={"action": [i / 10 for i in range(9)]}
    )
    torch.manual_seed(0)
    expected = policy(workshop.batch([3, 9]))[1]
    torch.manual_seed(0)
    assert policy(default_collate([longer[i] for i in (3, 9)]))[1] == expected
    short = workshop.batch([3, 9])
    short["action"], short["action_is_pad"] = short["action"][:, :2], short["action_is_pad"][:, :2]
    with pytest.raises(ValueError, match="the batch has 2 actions of a sample, and chunk_size is 4"):
        policy(short)


def test_an_open_chunk_that_does_not_fit_what_shall_be_executed_is_refused(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="n_action_steps must be between 1 and chunk_size 4, got 6"):
        workshop.policy(chunk_size=None, n_action_steps=6)


def test_a_label_longer_than_the_window_asks_for_a_number(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_chunk, "WINDOW", 3)
    settings: dict[str, Any] = {"vla_checkpoint_path": None, **OPEN}
    with pytest.raises(ValueError, match=r"spans 4 frames at 10 fps.*set --policy\.chunk_size=4 or less"):
        workshop.policy(**settings)
    assert workshop.policy(**{**settings, "chunk_size": 4}).config.n_action_steps == 2


def test_an_expert_without_codes_needs_no_frame_rate_that_suits_them(workshop: Workshop, tmp_path: Path) -> None:
    root = tmp_path / "slow"
    shutil.copytree(workshop.dataset_root, root)
    (data,) = root.glob("data/*/*.parquet")
    table = pq.read_table(data)
    fps = 3  # the usual offset of 0.1 s is less than one frame
    seconds = pa.array(table["frame_index"].to_numpy() / fps, pa.float32())
    pq.write_table(table.set_column(table.schema.get_field_index("timestamp"), "timestamp", seconds), data)
    info = root / "meta" / "info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fps": fps}))
    config = workshop.config("hlrp_action_expert_direct", vla_checkpoint_path=None)
    meta = LeRobotDatasetMetadata("local/slow", root=root)
    policy: Any = get_policy_class(config.type)(config, dataset_meta=meta)
    assert policy.config.chunk_size == 4


def test_without_a_dataset_an_open_chunk_has_a_usual_length(workshop: Workshop) -> None:
    config = workshop.config(**OPEN)
    policy: Any = get_policy_class("hlrp_vla_direct")(config)
    assert (policy.config.chunk_size, policy.config.n_action_steps) == (8, 4)


# ---- Codes of another geometry ----

OTHER = LatentSpec(codebook_size=16, code_seq_len=2, frame_offset_s=0.2, num_frames=3)


@pytest.fixture(scope="module")
def other(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A quantizer of other codes, its labels of the workshop's dataset, and a foundation model of them; read only."""
    folder = tmp_path_factory.mktemp("other")
    laq = make_laq(folder / "laq", spec=OTHER)
    labels = make_labels(workshop.dataset_root, laq)
    foundation = make_foundation(folder / "vla", fingerprint=labels.metadata.laq_fingerprint, spec=OTHER)
    return {
        "laq_checkpoint_path": str(laq),
        "latent_labels_path": str(save_labels(labels, folder / "labels")),
        "vla_checkpoint_path": str(foundation),
    }


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("hlrp_vla_direct", ("vla_checkpoint_path", "latent_labels_path")),
        ("hlrp_action_expert_latent", ("latent_labels_path",)),
        ("hlrp_action_expert_direct", ("laq_checkpoint_path",)),
    ],
)
def test_the_geometry_of_the_codes_is_taken_from_where_it_is_known(
    workshop: Workshop, image_dataset_root: Path, other: dict[str, str], kind: str, known: tuple[str, ...]
) -> None:
    here = replace(workshop, dataset_root=image_dataset_root)  # without labels of its own
    settings = {"vla_checkpoint_path": None, **{name: other[name] for name in known}}
    policy = here.policy(kind, **settings)
    assert (policy.config.codebook_size, policy.config.code_seq_len) == (16, 2)
    assert replace(policy.backend.spec) == OTHER
    seen = {name: workshop.batch([3])[name] for name in ("observation.images.top", "observation.state", "task")}
    assert torch.isfinite(policy.eval().predict_action_chunk(seen)).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"codebook_size": 8}, r"--policy\.codebook_size=8, but the LAQ of this run has codebook_size=16; leave it"),
        ({"code_seq_len": 3}, r"--policy\.code_seq_len=3, but the LAQ of this run has code_seq_len=2"),
        ({"codebook_size": 1}, "codebook_size must be at least 2, got 1"),
    ],
)
def test_a_geometry_that_contradicts_is_refused(
    workshop: Workshop, other: dict[str, str], wrong: dict[str, Any], message: str
) -> None:
    names = ("vla_checkpoint_path", "latent_labels_path")
    with pytest.raises(ValueError, match=message):
        workshop.policy(**{name: other[name] for name in names}, **wrong)


def test_a_quantizer_that_contradicts_the_labels_is_refused(workshop: Workshop, other: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="same LAQ"):
        workshop.policy(laq_checkpoint_path=other["laq_checkpoint_path"])
