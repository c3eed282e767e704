"""Training targets from frozen networks: change of visual features, and optical flow, between two frames.

Unlike pixels, these targets depend little on texture, light and grain. The networks are needed in training only and are
not saved in checkpoints.

Shapes: p pictures, u width of a vision model's features, y x the grid of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_small
from transformers import AutoImageProcessor, AutoModel

from hlrp.laq.config import TargetName
from hlrp.laq.decoder import FLOW_CELLS
from hlrp.storage.artefacts import read_state_dict
from hlrp.storage.weight_files import DOWNLOAD_AGAIN, unpickled_safely

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RAFT_SIDE = 128
"""Smallest side, in pixels, that frames are resized to for RAFT: its coarsest correlation volume is 64 times smaller,
and needs at least 2 cells a side."""


class FeatureChange(nn.Module):
    """Change of the patch features of a frozen vision model: a ViT or a convolutional network of transformers or timm.

    Args:
        model: Name on the hub, such as "facebook/dinov3-vits16-pretrain-lvd1689m" or "timm/…" (with timm installed), or
            a local folder.
        grid: Rows and columns of the grid that feature maps are averaged to.

    Raises:
        FileNotFoundError: If `model` is neither a local folder nor available on the hub.
        ValueError: If the model gives tokens but has no `patch_size`, so that they form no feature map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: str, grid: tuple[int, int]) -> None:
        super().__init__()
        try:
            with unpickled_safely():
                backbone = AutoModel.from_pretrained(model, trust_remote_code=False)
        except OSError as error:
            raise FileNotFoundError(
                f"vision model {model!r} is neither a local folder nor available on the hub; download it, and name "
                f"its folder as feature_model ({str(error).splitlines()[0]})"
            ) from error
        except ValueError as error:
            raise ValueError(f"vision model {model!r} cannot be loaded ({error}); {DOWNLOAD_AGAIN}") from error
        self.backbone = backbone.eval().requires_grad_(False)
        self.grid = grid
        self.size = _input_size(self.backbone.config)
        mean, std = _normalization(model)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        with torch.no_grad():
            self.dim = self._features(torch.zeros(1, 3, *self.size)).shape[1]

    @torch.no_grad()
    def forward(
        self, before: Float[Tensor, "b n m c h w"], after: Float[Tensor, "b n m c h w"]
    ) -> Float[Tensor, "b n m u y x"]:
        """Features of `after` minus features of `before` (frames in [0, 1]); before that, the feature vector of every
        grid cell is normalized to mean 0 and variance 1."""
        b, n = before.shape[:2]
        both = torch.cat([rearrange(frames, "b n m c h w -> (b n m) c h w") for frames in (before, after)])
        first, second = self._features(both).chunk(2)
        return rearrange(second - first, "(b n m) u y x -> b n m u y x", b=b, n=n)

    def _features(self, images: Float[Tensor, "p 3 h w"]) -> Float[Tensor, "p u y x"]:
        images = F.interpolate(images, self.size, mode="bilinear", antialias=True, align_corners=False)
        found = self.backbone(pixel_values=(images - self.mean) / self.std).last_hidden_state
        if found.ndim == 3:  # a ViT: its class and register tokens come before the patches
            side = getattr(self.backbone.config, "patch_size", None)
            if side is None:
                raise ValueError(
                    f"{type(self.backbone).__name__} gives tokens but no patch_size; choose a ViT or a CNN"
                )
            rows, columns = self.size[0] // side, self.size[1] // side
            found = rearrange(found[:, -rows * columns :], "p (y x) u -> p u y x", y=rows)
        found = F.layer_norm(found.movedim(1, -1).float(), found.shape[1:2]).movedim(-1, 1)
        return F.adaptive_avg_pool2d(found, self.grid)


class FlowChange(nn.Module):
    """Optical flow between two frames, by torchvision's `raft_small` (RAFT, arXiv:2003.12039).

    Args:
        weights: File with the state dict of the network, such as torchvision's `raft_small_C_T_V2`.
        grid: Rows and columns of patches of a frame; a patch has `FLOW_CELLS` squared flow cells.

    Raises:
        FileNotFoundError: If `weights` does not exist.
        ValueError: If `weights` is not a state dict of `raft_small`.
    """

    def __init__(self, weights: Path | str, grid: tuple[int, int]) -> None:
        super().__init__()
        self.raft = raft_small(weights=None, progress=False).eval().requires_grad_(False)
        expected = "the state dict of torchvision's raft_small"
        state = read_state_dict(weights, expected=expected)
        try:
            self.raft.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{weights} is not {expected}") from error
        self.grid, self.cells = grid, (grid[0] * FLOW_CELLS, grid[1] * FLOW_CELLS)

    @torch.no_grad()
    def forward(
        self, before: Float[Tensor, "b n m c h w"], after: Float[Tensor, "b n m c h w"]
    ) -> Float[Tensor, "b n m 2 y x"]:
        """Displacement from `before` to `after` (frames in [0, 1]) along x and y, in patches, for every flow cell."""
        b, n = before.shape[:2]
        # RAFT takes only sides that are multiples of 8, and pixels in [-1, 1].
        size = tuple(-(-max(side, _RAFT_SIDE) // 8) * 8 for side in before.shape[-2:])
        first, second = (
            F.interpolate(rearrange(frames, "b n m c h w -> (b n m) c h w") * 2 - 1, size, mode="bilinear")
            for frames in (before, after)
        )
        flow = self.raft(first, second)[-1]
        patches = flow.new_tensor([self.grid[1] / size[1], self.grid[0] / size[0]])  # patches per pixel, along x and y
        flow = flow * patches[:, None, None]
        return rearrange(F.adaptive_avg_pool2d(flow, self.cells), "(b n m) c y x -> b n m c y x", b=b, n=n)


def frozen_targets(
    targets: Sequence[TargetName],
    *,
    grid: tuple[int, int],
    feature_model: str | None,
    flow_weights: Path | str | None,
) -> nn.ModuleDict:
    """The frozen networks that compute `targets`, by the name of their target: none, `features`, `flow`, or both.

    Raises:
        ValueError: If a target has no network, or a network is given for something that is no target.
    """
    for target, flag, given in (("features", "feature_model", feature_model), ("flow", "flow_weights", flow_weights)):
        if (target in targets) != (given is not None):
            raise ValueError(f"{flag}={given!r} and targets={list(targets)} disagree; name both or neither")
    found = nn.ModuleDict()
    if feature_model is not None:
        found["features"] = FeatureChange(feature_model, grid)
    if flow_weights is not None:
        found["flow"] = FlowChange(flow_weights, grid)
    return found


def feature_dim(frozen: nn.ModuleDict) -> int:
    """Width u of the features if `frozen` has a feature network, else 0."""
    return next((target.dim for target in frozen.values() if isinstance(target, FeatureChange)), 0)


def _input_size(config: object) -> tuple[int, int]:
    """Height and width, in pixels, of the pictures that a vision model expects; 224 if its configuration has none."""
    size = getattr(config, "image_size", None) or 224
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _normalization(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """RGB mean and standard deviation of the model's image processor, or those of ImageNet if the model has none."""
    try:
        processor = AutoImageProcessor.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError):
        return _IMAGENET_MEAN, _IMAGENET_STD
    return tuple(processor.image_mean), tuple(processor.image_std)
