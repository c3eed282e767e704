"""Stage 2, policy training and inference give the VLA the same pixels of a frame, also from a camera that is larger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import get_policy_class
from torch import Tensor, nn
from torch.utils.data import default_collate

from hlrp.data.dataset import open_dataset, read_instructions
from hlrp.data.frames import open_frames
from hlrp.data.labelled_frames import LabelledFrames, Observations
from hlrp.foundation.backends import FoundationBackend
from hlrp.foundation.checkpoint import load_foundation
from hlrp.latents import LatentActions
from policy_workshop import Workshop, make_foundation

CAMERAS = {"observation.images.top": (240, 320), "observation.images.wrist": (96, 128)}
"""Height and width of two cameras, both larger than the VLM's input."""
SIZE = (64, 64)
FRAMES = [0, 3]
TOLERANCE = 1 / 255 / 0.5
"""One level of 255, the rounding of frames that stage 2 keeps as uint8, over the embedded models' colour deviation."""


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One episode of noise and edges from both cameras."""
    root = tmp_path_factory.mktemp("large") / "images"
    features: dict[str, Any] = {
        name: {"dtype": "image", "shape": (*size, 3), "names": ["height", "width", "channels"]}
        for name, size in CAMERAS.items()
    }
    features["action"] = {"dtype": "float32", "shape": (4,), "names": ["a", "b", "c", "d"]}
    dataset = LeRobotDataset.create("local/large", fps=10, features=features, root=root, use_videos=False)
    draw = np.random.default_rng(0)
    for _ in range(8):
        images = {name: draw.integers(0, 256, (*size, 3), dtype=np.uint8) for name, size in CAMERAS.items()}
        for image in images.values():
            image[: len(image) // 3] = 250
        dataset.add_frame({**images, "action": np.zeros(4, dtype=np.float32), "task": "Open a drawer"})
    dataset.save_episode()
    dataset.finalize()
    return root


class Pixels:
    """Collects the pixel tensors that enter a VLM's vision tower."""

    def __init__(self, backend: FoundationBackend) -> None:
        (tower,) = (
            part for name, part in backend.named_modules() if name in ("model.model.visual", "model.vision_model")
        )
        tower.register_forward_pre_hook(self._keep, with_kwargs=True)
        self.found: list[Tensor] = []

    def _keep(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        self.found.append(next(value for value in values if torch.is_tensor(value) and value.is_floating_point()))


def stage_2_pixels(backend: FoundationBackend, dataset_root: Path) -> Tensor:
    """Pixels that the loader of stage 2 gives the model in a training step."""
    dataset = open_dataset("local/large", dataset_root)
    cameras = [open_frames(dataset, camera, SIZE, cache_gib=1.0) for camera in CAMERAS]
    labels = LatentActions.of_codes(torch.zeros(len(dataset), backend.spec.num_codes, dtype=torch.int64))
    frames = LabelledFrames(Observations(cameras, read_instructions(dataset)), labels)
    pixels = Pixels(backend)
    backend.train().loss(frames.batch(torch.tensor(FRAMES)))
    return pixels.found[0]


@pytest.mark.parametrize("kind", ["qwen3vl_chat", "smol_latent_head"])
def test_every_stage_gives_the_vla_the_same_pixels(
    workshop: Workshop, dataset_root: Path, tmp_path: Path, kind: str
) -> None:
    foundation = make_foundation(tmp_path / "vla", fingerprint="", backend=kind, image_size=SIZE, random_shift_px=0)
    expected = stage_2_pixels(load_foundation(foundation).backend, dataset_root)
    config = workshop.config(
        vla_checkpoint_path=str(foundation),
        random_shift_px=0,
        input_features={
            name: PolicyFeature(type=FeatureType.VISUAL, shape=(3, *size)) for name, size in CAMERAS.items()
        },
    )
    policy = get_policy_class(config.type)(config)
    pixels = Pixels(policy.backend)
    chunk = {"action": [i / 10 for i in range(4)]}
    dataset = LeRobotDataset("local/large", root=dataset_root, delta_timestamps=chunk)
    batch = default_collate([dataset[i] for i in FRAMES])
    policy.train()
    policy({**batch, "latent_codes": torch.zeros(2, policy.backend.spec.num_codes, dtype=torch.int64)})
    policy.eval()
    policy.select_action({name: batch[name] for name in (*CAMERAS, "task")})
    assert len(pixels.found) == 2
    for found in pixels.found:
        torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
