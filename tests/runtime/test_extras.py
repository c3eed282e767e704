"""A package that is not installed is named together with the extra that brings it."""

from __future__ import annotations

import sys
from importlib.metadata import metadata

import pytest
from torch import nn

from hlrp.experts.diffusion import DiffusionExpert, DiffusionOptions
from hlrp.experts.interface import ExpertSizes
from hlrp.foundation.config import LoRASettings
from hlrp.foundation.lora import add_lora
from hlrp.runtime.extras import _EXTRAS, MissingPackage, require_packages


def test_the_diffusion_expert_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    sizes = ExpertSizes(chunk_size=4, action_dim=2, feature_dim=3, num_tokens=1)
    with pytest.raises(MissingPackage, match=r'pip install "lerobot_policy_felix_bundle\[hlrp_action_expert_latent\]"'):
        DiffusionExpert(DiffusionOptions(), sizes, num_inference_steps=None)


def test_lora_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingPackage, match=r'lora needs peft; .* "lerobot_policy_felix_bundle\[peft\]"'):
        add_lora(nn.Linear(2, 2), LoRASettings(rank=1))


def test_every_extra_that_is_named_exists() -> None:
    extras = metadata("lerobot_policy_felix_bundle").get_all("Provides-Extra") or []
    assert set(_EXTRAS.values()) <= {extra.replace("-", "_") for extra in extras}


def test_packages_are_looked_for_without_importing_them() -> None:
    require_packages("json", needed_for="this test")
    with pytest.raises(MissingPackage, match="this test needs no_such_package; install it with `pip install no_such_"):
        require_packages("json", "no_such_package", needed_for="this test")
