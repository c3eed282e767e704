from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models.optical_flow import raft_small
from transformers import Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel

from hlrp.laq.batch import unlabelled
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.frozen_targets import FeatureChange, FlowChange, frozen_targets
from hlrp.laq.objective.task import LAQTask, LAQTrainingConfig

GRID = (2, 2)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A local ViT of 28 pixels and patches of 7."""
    folder = tmp_path_factory.mktemp("vit")
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=7
    )
    Dinov2Model(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def raft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights of RAFT."""
    path = tmp_path_factory.mktemp("raft") / "raft.pth"
    torch.save(raft_small(weights=None).state_dict(), path)
    return path


def test_a_vit_and_a_cnn_both_give_features_on_the_grid(vit: str, tmp_path: Path) -> None:
    ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ).save_pretrained(tmp_path)
    for model, dim in ((vit, 16), (str(tmp_path), 12)):
        features = FeatureChange(model, GRID)
        assert features.dim == dim
        assert features(torch.rand(2, 1, 2, 3, 32, 32), torch.rand(2, 1, 2, 3, 32, 32)).shape == (2, 1, 2, dim, 2, 2)


def test_what_does_not_change_has_no_change_of_features_and_the_rest_has_one_where_it_changes(vit: str) -> None:
    features = FeatureChange(vit, GRID)
    before = torch.rand(1, 1, 1, 3, 28, 28)
    assert features(before, before).count_nonzero() == 0
    change = features(before, before.roll(7, dims=-1))
    torch.testing.assert_close(features(before.roll(7, dims=-1), before), -change)
    assert change.abs().amax() > 0.01


def test_flow_of_two_cameras_has_four_cells_a_patch_side(raft: Path) -> None:
    flow = FlowChange(raft, GRID)
    assert flow(torch.rand(1, 1, 2, 3, 32, 32), torch.rand(1, 1, 2, 3, 32, 32)).shape == (1, 1, 2, 2, 8, 8)


def test_frozen_networks_teach_the_model_and_stay_as_they_are_and_out_of_its_state(vit: str, raft: Path) -> None:
    config = replace(debug(), targets=("features", "flow"), feature_dim=16)
    frozen = frozen_targets(config.targets, grid=config.grid, feature_model=vit, flow_weights=raft)
    task = LAQTask(LatentActionQuantizer(config), LAQTrainingConfig(), frozen)
    task.log_dict = lambda *args, **kwargs: None  # pyright: ignore[reportAttributeAccessIssue]  # no trainer here
    loss = task.training_step(unlabelled(torch.randint(0, 256, (2, 2, 1, 3, 32, 32), dtype=torch.uint8)), 0)
    loss.backward()
    for head in task.model.decoder.heads.values():
        assert head.weight.grad.count_nonzero() > 0
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert not any("frozen" in name for name in task.state_dict())


@pytest.mark.parametrize(
    ("targets", "given", "message"),
    [
        (("pixels",), {"feature_model": "x", "flow_weights": None}, "feature_model='x' and targets"),
        (("pixels", "flow"), {"feature_model": None, "flow_weights": None}, "flow_weights=None and targets"),
    ],
)
def test_a_target_without_its_network_and_a_network_without_its_target_are_refused(
    targets: tuple, given: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        frozen_targets(targets, grid=GRID, **given)


def test_what_is_not_there_or_is_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="vision model 'local/none' is neither a local folder nor"):
        FeatureChange("local/none", GRID)
    with pytest.raises(
        FileNotFoundError, match="nowhere does not exist; name the state dict of torchvision's raft_small"
    ):
        FlowChange("nowhere", GRID)
    torch.save({"a": torch.zeros(1)}, tmp_path / "raft.pth")
    with pytest.raises(ValueError, match="is not the state dict of torchvision's raft_small"):
        FlowChange(tmp_path / "raft.pth", GRID)
