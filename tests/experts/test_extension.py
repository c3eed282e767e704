"""A new action expert costs one file and its line in the registry; no other file of the project names it."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest
import torch

from hlrp.experts.registry import EXPERTS
from policy_workshop import make_workshop

DUMMY = '''
from torch import nn

from hlrp.experts.interface import ActionExpert


class DummyExpert(ActionExpert):
    """Predict the actions from the mean of the observation's tokens."""

    def __init__(self, options, sizes, *, num_inference_steps):
        super().__init__(options, sizes, num_inference_steps=num_inference_steps)
        self.layer = nn.Linear(sizes.feature_dim, sizes.chunk_size * sizes.action_dim)

    @classmethod
    def check(cls, options, *, num_inference_steps, largest_action):
        pass

    def loss(self, actions, observation, codes, state):
        return (self.act(observation, codes, state) - actions).square().mean(-1)

    def act(self, observation, codes, state, *, noise=None, guide=None):
        return self.layer(observation.features.mean(1)).unflatten(1, (self.sizes.chunk_size, self.sizes.action_dim))
'''
POLICY = "hlrp_action_expert_latent"


def test_a_policy_trains_with_an_expert_that_only_the_registry_names(
    image_dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dummy_expert.py"
    path.write_text(DUMMY, encoding="utf-8")
    named = {node.module for node in ast.walk(ast.parse(DUMMY)) if isinstance(node, ast.ImportFrom)} - {"torch"}
    assert named == {"hlrp.experts.interface"}
    spec = importlib.util.spec_from_file_location("dummy_expert", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(EXPERTS, "dummy", module.DummyExpert)

    workshop = make_workshop(image_dataset_root, tmp_path / "workshop")
    policy = workshop.policy(POLICY, expert="dummy").train()
    optimizer = torch.optim.AdamW(policy.get_optim_params(), lr=1e-2)
    before = policy.expert.layer.weight.clone()
    loss, values = policy(workshop.batch([3, 20]))
    loss.backward()
    optimizer.step()
    assert values["action_loss"] > 0
    assert not torch.equal(policy.expert.layer.weight, before)
    assert not policy.supports_rtc()
    actions = policy.eval().predict_action_chunk(workshop.batch([3]))
    policy.save_pretrained(tmp_path / "saved")
    loaded = type(policy).from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(loaded.predict_action_chunk(workshop.batch([3])), actions)
