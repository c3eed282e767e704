"""A package that is not installed is named together with the extra that brings it."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import metadata

import pytest
from torch import nn

from hlrp.foundation.config import LoRASettings
from hlrp.foundation.lora import add_lora
from hlrp.runtime.extras import _EXTRAS, MissingPackage, require_packages


def test_the_diffusion_expert_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "hlrp.experts.diffusion"
    for name in [name for name in sys.modules if name == module or name.split(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.setattr("lerobot.utils.import_utils._diffusers_available", False)
    with pytest.raises(MissingPackage, match=r'pip install "lerobot_policy_felix_bundle\[hlrp_action_expert_latent\]"'):
        importlib.import_module(module)


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
