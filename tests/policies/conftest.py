"""Policies on a tiny labelled dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from lerobot_policy_felix_bundle.policies.hlrp_vla_direct.modeling_hlrp_vla_direct import HLRPVLADirectPolicy
from policy_workshop import Workshop, make_workshop


@pytest.fixture(scope="session")
def workshop(image_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Everything needed to build a policy; read only."""
    return make_workshop(image_dataset_root, tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def policy(workshop: Workshop) -> HLRPVLADirectPolicy:
    """A fresh policy."""
    return workshop.policy()
