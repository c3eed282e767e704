"""The models of `pretrained/`: they load, belong together, fit into the repository and name no machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from hlrp import FoundationBatch, load_foundation, load_laq
from hlrp.demo.config import PRETRAINED_TASKS
from lerobot_policy_felix_bundle.policies.hlrp_vla_direct.modeling_hlrp_vla_direct import HLRPVLADirectPolicy

FOLDER = Path(__file__).parents[1] / "pretrained"


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.rand(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_they_are_small_and_have_cards() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    for model in ("laq", "foundation", "policy"):
        assert "## Training" in (FOLDER / model / "README.md").read_text(encoding="utf-8")
        assert f"({model}/README.md)" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_no_file_names_a_folder_of_the_machine_that_trained_them() -> None:
    texts = [path for path in FOLDER.rglob("*") if path.suffix in (".json", ".md", ".csv", ".html", ".jinja")]
    assert texts
    absolute = re.compile(r"""["' (=]/(home|root|tmp|work|Users|mnt)/""")
    assert [str(path) for path in texts if absolute.search(path.read_text(encoding="utf-8"))] == []


def test_the_vla_and_the_policy_predict_codes_of_the_laq(frames: torch.Tensor) -> None:
    laq = load_laq(FOLDER / "laq")
    for folder in ("foundation", "policy"):
        assert load_foundation(FOLDER / folder).description.laq_fingerprint == laq.fingerprint
    vla = load_foundation(FOLDER / "foundation").backend
    assert vla.spec == laq.model.spec
    codes = vla.predict(FoundationBatch(frames, ["Open a door"] * 3)).codes
    assert codes.shape == (3, 4)
    assert ((codes >= 0) & (codes < vla.spec.codebook_size)).all()


def test_the_policy_acts_by_itself(frames: torch.Tensor) -> None:
    policy = HLRPVLADirectPolicy.from_pretrained(FOLDER / "policy").eval()
    batch = {"observation.image": frames[:, 0], "observation.state": torch.zeros(3, 4), "task": ["Open a door"] * 3}
    chunk = policy.predict_action_chunk(batch)
    assert chunk.shape == (3, 8, 4)
    assert chunk.isfinite().all()


def test_the_cards_say_how_good_they_are() -> None:
    measured = json.loads((FOLDER / "policy" / "metrics.json").read_text(encoding="utf-8"))
    assert list(measured["tasks"]) == PRETRAINED_TASKS
    assert measured["success_rate"] > 0.7
    quality = json.loads((FOLDER / "laq" / "quality.json").read_text(encoding="utf-8"))
    assert quality["probe_r2"] > 0.5
    assert quality["probe_gain_interval"][0] > 0
