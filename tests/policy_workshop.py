"""A tiny labelled dataset, an untrained foundation checkpoint for it, and policies on top: all real, all debug size."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import get_policy_class
from torch.utils.data import default_collate

import lerobot_policy_felix_bundle  # noqa: F401  registers the policies
from hlrp.cli.precompute_latent_codes import PrecomputeConfig, precompute_latent_codes
from hlrp.data.labels import LABELS_DIR, LatentLabels, load_labels, save_labels
from hlrp.experts.registry import options_of_other_experts
from hlrp.foundation.backends import BackendConfig, QwenVLChatConfig, SmolLatentHeadConfig, build_backend
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentSpec
from hlrp.report.saving import save_foundation, save_laq
from tiny_datasets import CAMERA, SIZE

SPEC = LatentSpec(frame_offset_s=0.4)
"""Four frames at the tiny dataset's 10 fps."""


_AS_SMALL_AS_THE_OTHERS = {"vla_model_name": None, "image_size": None, "torch_dtype": "fp32", "optimizer_lr": 5e-4}
"""Settings of the presets, whose defaults are for a model of two billion parameters."""

SMALL: dict[str, dict[str, Any]] = {
    "hlrp_vla_direct": {"decoder_hidden_dim": 16},
    "hlrp_action_expert_direct": {"expert_width": 16, "expert_layers": 2, "expert_heads": 2, "num_denoising_steps": 2},
    "hlrp_action_expert_latent": {
        "expert_image_size": (32, 32),
        "spatial_softmax_num_keypoints": 4,
        "down_dims": (8, 16),
        "num_inference_steps": 2,
    },
    "hlrp_vla": {"decoder_hidden_dim": 16, "laq_decoder_type": "codebook_lookup", **_AS_SMALL_AS_THE_OTHERS},
    "hlrp_diffusion": {
        "horizon": 4,
        "expert_image_size": (32, 32),
        "spatial_softmax_num_keypoints": 4,
        "down_dims": (8, 16),
        "num_train_timesteps": 4,
        "freeze_vla": False,
        **_AS_SMALL_AS_THE_OTHERS,
    },
}
"""Every policy type, with settings that make it small."""


@dataclass(frozen=True)
class Workshop:
    """What a policy is made from."""

    dataset_root: Path
    foundation: Path
    labels: LatentLabels
    laq: Path
    """The quantizer that wrote the labels."""

    @property
    def dataset(self) -> Any:
        """The labelled dataset, with chunks of four actions."""
        return self.windows()

    def windows(self, *offsets: int) -> Any:
        """The same, with later frames in every sample."""
        deltas = {"action": [i / 10 for i in range(4)]}
        if offsets:
            seen = [0.0, *(offset / 10 for offset in offsets)]
            deltas |= {CAMERA: seen, "observation.state": seen}
        return LeRobotDataset("local/moving_square", root=self.dataset_root, delta_timestamps=deltas)

    def config(self, kind: str = "hlrp_vla_direct", **changes: Any) -> Any:
        """Configuration of a policy for the dataset."""
        settings: dict[str, Any] = {
            "device": "cpu",
            "chunk_size": 4,
            "n_action_steps": 2,
            "vla_checkpoint_path": str(self.foundation),
            "input_features": {
                CAMERA: PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIZE, SIZE)),
                "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(4,)),
            },
            "output_features": {"action": PolicyFeature(type=FeatureType.ACTION, shape=(4,))},
        }
        unused = options_of_other_experts(changes["expert"]) if "expert" in changes else []
        small = {name: value for name, value in SMALL[kind].items() if name not in unused}
        return PreTrainedConfig.get_choice_class(kind)(**{**settings, **small, **changes})

    def policy(self, kind: str = "hlrp_vla_direct", **changes: Any) -> Any:
        """A fresh policy, as lerobot-train builds it."""
        return get_policy_class(kind)(self.config(kind, **changes), dataset_meta=self.dataset.meta)

    def batch(self, index: list[int], *offsets: int) -> dict[str, Any]:
        """Frames of the dataset as they reach the policy, with `offsets` as an online teacher asks for them."""
        dataset = self.windows(*offsets)
        return default_collate([dataset[i] for i in index])


BACKEND_CONFIGS: dict[str, BackendConfig] = {
    "qwen3vl_chat": QwenVLChatConfig(embedded_size="debug", image_size=(SIZE, SIZE)),
    "smol_latent_head": SmolLatentHeadConfig(embedded_size="debug", image_size=(SIZE, SIZE)),
}


def make_foundation(
    directory: Path, *, fingerprint: str, spec: LatentSpec = SPEC, backend: str = "qwen3vl_chat", **changes: Any
) -> Path:
    """Save an untrained foundation model of debug size."""
    torch.manual_seed(1)
    config = replace(BACKEND_CONFIGS[backend], **changes)
    return save_foundation(build_backend(config, spec), directory, laq_fingerprint=fingerprint)


def make_laq(directory: Path, *, seed: int = 0, spec: LatentSpec = SPEC) -> Path:
    """Save an untrained LAQ of debug size."""
    torch.manual_seed(seed)
    model = LatentActionQuantizer(replace(debug(), spec=spec))
    model(torch.rand(64, spec.num_frames, 1, 3, SIZE, SIZE))  # lets the quantizer see the scale of its input
    return save_laq(model.eval(), directory, cameras=[CAMERA], quality=None, extra={})


def make_labels(dataset_root: Path, laq_path: Path, *, camera: str = CAMERA) -> LatentLabels:
    """Label a dataset; its folder stays as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        precompute_latent_codes(
            PrecomputeConfig(
                laq_path=str(laq_path),
                dataset_root=str(dataset_root),
                camera=camera,
                output_dir=f"{scratch}/labels",
                batch_size=32,
                device="cpu",
            )
        )
        return load_labels(Path(scratch) / "labels", with_vectors=True)


def make_workshop(image_dataset_root: Path, folder: Path) -> Workshop:
    """Copy a dataset into `folder`, label it, and save LAQ and foundation model beside it."""
    dataset_root = Path(shutil.copytree(image_dataset_root, folder / "dataset"))
    laq = make_laq(folder / "laq")
    labels = make_labels(dataset_root, laq)
    save_labels(labels, dataset_root / LABELS_DIR)
    foundation = make_foundation(folder / "foundation", fingerprint=labels.metadata.laq_fingerprint)
    return Workshop(dataset_root, foundation, labels, laq)


def without_digest(folder: Path) -> None:
    """Make a saved model one of a version that did not save the digest of its weights."""
    path = folder / "foundation.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["weights_sha256"]
    path.write_text(json.dumps(values), encoding="utf-8")
