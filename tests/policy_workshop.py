"""A tiny labelled dataset, an untrained foundation checkpoint for it, and policies on top: all real, all debug size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from torch.utils.data import default_collate

import lerobot_policy_felix_bundle  # noqa: F401  registers the policies
from hlrp.cli.precompute_latent_codes import label_source
from hlrp.data.dataset import open_dataset
from hlrp.data.labels import LatentLabels
from hlrp.data.sources import lerobot_source
from hlrp.foundation.backends import QwenVLChatBackend, QwenVLChatConfig
from hlrp.foundation.checkpoint import save_foundation
from hlrp.laq.checkpoint import LoadedLAQ
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentSpec
from tiny_datasets import CAMERA, SIZE

SPEC = LatentSpec(frame_offset_s=0.4)
"""Four frames at the tiny dataset's 10 fps."""


SMALL: dict[str, dict[str, Any]] = {
    "hlrp_vla_direct": {"decoder_hidden_dim": 16},
    "hlrp_action_expert_direct": {"expert_width": 16, "expert_layers": 2, "expert_heads": 2, "num_denoising_steps": 2},
    "hlrp_action_expert_latent": {
        "expert_image_size": (32, 32),
        "spatial_softmax_num_keypoints": 4,
        "down_dims": (8, 16),
        "num_inference_steps": 2,
    },
}
"""Every policy type, with settings that make it small."""


@dataclass(frozen=True)
class Workshop:
    """What a policy is made from."""

    dataset_root: Path
    foundation: Path
    labels: LatentLabels

    @property
    def dataset(self) -> Any:
        """The labelled dataset, with chunks of four actions."""
        dataset = open_dataset("local/moving_square", self.dataset_root)
        return type(dataset)(
            "local/moving_square", root=self.dataset_root, delta_timestamps={"action": [i / 10 for i in range(4)]}
        )

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
        return PreTrainedConfig.get_choice_class(kind)(**{**settings, **SMALL[kind], **changes})

    def policy(self, kind: str = "hlrp_vla_direct", **changes: Any) -> Any:
        """A fresh policy, as lerobot-train builds it."""
        return get_policy_class(kind)(self.config(kind, **changes), dataset_meta=self.dataset.meta)

    def batch(self, index: list[int]) -> dict[str, Any]:
        """Frames of the dataset as they reach the policy."""
        dataset = self.dataset
        return default_collate([dataset[i] for i in index])


def make_foundation(directory: Path, *, fingerprint: str, spec: LatentSpec = SPEC) -> Path:
    """Save an untrained foundation model of debug size."""
    torch.manual_seed(1)
    config = QwenVLChatConfig(embedded_size="debug", image_size=(SIZE, SIZE))
    return save_foundation(QwenVLChatBackend.build(config, spec), directory, laq_fingerprint=fingerprint)


def make_labels(dataset_root: Path, *, seed: int = 0) -> LatentLabels:
    """Label a dataset with an untrained LAQ of debug size."""
    torch.manual_seed(seed)
    model = LatentActionQuantizer(replace(debug(), spec=SPEC))
    model(torch.rand(64, 2, 3, SIZE, SIZE))  # lets the quantizer see the scale of its input
    laq = LoadedLAQ(model.eval(), [CAMERA], model.fingerprint(), {})
    dataset = open_dataset("local/moving_square", dataset_root)
    source = lerobot_source(dataset, cameras=[CAMERA], image_size=laq.model.config.image_size, cache_gib=1.0)
    return label_source(laq, source, batch_size=32)
