"""Checkpoints and labels that an earlier version of this package wrote still load, and give what they gave then.

`fixtures/saved_by_version_0_1` holds debug-size models of every stage, trained for a few steps on the moving square,
and in `expected.safetensors` the inputs and outputs of that day.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from safetensors.torch import load_file
from torch import Tensor

import lerobot_policy_felix_bundle  # noqa: F401  registers the policy types
from hlrp.data.labels import load_labels
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import load_foundation
from hlrp.laq.checkpoint import load_laq
from tiny_datasets import CAMERA, LENGTHS, TASKS

SAVED = Path(__file__).parent / "fixtures" / "saved_by_version_0_1"


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(SAVED / "expected.safetensors")


def test_quantizer_gives_the_same_latents(expected: dict[str, Tensor]) -> None:
    latents = load_laq(SAVED / "laq").model.eval().encode(expected["clip"])
    assert torch.equal(latents.require_codes(), expected["laq_codes"])
    torch.testing.assert_close(latents.vectors, expected["laq_vectors"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["qwen3vl_chat", "smol_latent_head"])
def test_foundation_model_predicts_the_same_codes(expected: dict[str, Tensor], backend: str) -> None:
    model = load_foundation(SAVED / f"foundation_{backend}").backend
    predicted = model.predict(FoundationBatch(expected["images"], [TASKS[0]] * 4))
    assert torch.equal(predicted.codes, expected[f"{backend}_codes"])


def test_policy_gives_the_same_actions(expected: dict[str, Tensor]) -> None:
    folder = SAVED / "policy_hlrp_vla_direct"
    config = PreTrainedConfig.from_pretrained(folder)
    config.device = "cpu"
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    batch = {CAMERA: expected["images"][:, 0], "observation.state": expected["state"], "task": [TASKS[0]] * 4}
    with torch.no_grad():
        actions = policy.predict_action_chunk(batch)
    torch.testing.assert_close(actions, expected["policy_actions"], atol=1e-4, rtol=1e-4)


def test_labels_are_read() -> None:
    labels = load_labels(SAVED / "labels")
    assert labels.codes.shape == (sum(LENGTHS), 4)
    assert labels.valid.sum() == sum(LENGTHS) - len(LENGTHS)  # a clip of one frame is missing at the end of each
