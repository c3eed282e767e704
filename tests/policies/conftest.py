"""Policies on a tiny labelled dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hlrp.data.labels import LABELS_DIR, save_labels
from lerobot_policy_felix_bundle.policies.hlrp_vla_direct.modeling_hlrp_vla_direct import HLRPVLADirectPolicy
from policy_workshop import Workshop, make_foundation, make_labels, make_laq


@pytest.fixture(scope="session")
def workshop(image_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Everything needed to build a policy; read only."""
    folder = tmp_path_factory.mktemp("workshop")
    dataset_root = Path(shutil.copytree(image_dataset_root, folder / "dataset"))
    laq = make_laq(folder / "laq")
    labels = make_labels(dataset_root, laq)
    save_labels(labels, dataset_root / LABELS_DIR)
    foundation = make_foundation(folder / "foundation", fingerprint=labels.metadata.laq_fingerprint)
    return Workshop(dataset_root, foundation, labels, laq)


@pytest.fixture
def policy(workshop: Workshop) -> HLRPVLADirectPolicy:
    """A fresh policy."""
    return workshop.policy()
