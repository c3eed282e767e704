"""The artefacts that `benchmarks.scale_mutations` changes, and functions that load them as the commands do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import draccus
import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig, RGBEncoderConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

import lerobot_policy_felix_bundle  # noqa: F401  registers the policies
from hlrp.cli.import_lapa import import_lapa
from hlrp.cli.precompute_latent_codes import main as command_line
from hlrp.commands.precompute_latent_codes import precompute_latent_codes
from hlrp.data.dataset import open_dataset, read_instructions
from hlrp.data.dataset_labels import labels_of_dataset
from hlrp.data.labels import LatentLabels, load_labels
from hlrp.foundation.backends import BackendConfig, SmolLatentHeadConfig, build_backend
from hlrp.foundation.backends.qwen3vl.config import QwenVLChatConfig
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import load_foundation
from hlrp.foundation.lightning_weights import OUR_PREFIX, load_lightning_weights
from hlrp.laq.checkpoint import load_laq
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.frozen_targets import FeatureChange
from hlrp.latents import LatentSpec
from hlrp.options.import_lapa import ImportLapaConfig
from hlrp.options.precompute_latent_codes import PrecomputeConfig
from hlrp.report.saving import save_foundation, save_laq

CAMERA, SIDE, FPS = "observation.images.top", 32, 10
LENGTHS = (12, 14, 12)
TASKS = ("Push the block to the left", "Push the block to the right")
SPEC = LatentSpec(frame_offset_s=0.2)
RAN = "ran"
"""File in the folder of a changed artefact that hostile code would create."""
_NAME = "local/mutated"


@dataclass(frozen=True)
class Entry:
    """One way in which an artefact is loaded."""

    artefact: str
    """Folder of the artefact that mutations change."""
    load: Callable[[Path, Path], Any]
    """Reads the artefact from the first folder and everything else from the second; returns what a user would get."""


# ---- Making ----


def make_artefacts(root: Path) -> None:
    """Write one artefact of every kind to folders of `root`."""
    datasets.config.HF_DATASETS_CACHE = root / "cache"  # tables of changed datasets stay out of the user's cache
    torch.manual_seed(0)
    for name, is_video in (("videos", True), ("images", False)):
        record(root / name, video=is_video)
    laq = LatentActionQuantizer(replace(debug(), spec=SPEC))
    laq(torch.rand(32, SPEC.num_frames, 1, 3, SIDE, SIDE))  # lets the quantizer see the scale of its input
    save_laq(laq.eval(), root / "laq", cameras=[CAMERA], extra={"dataset": "demos"})
    label(root / "images", root / "laq", root / "labels")
    fingerprint = load_laq(root / "laq").fingerprint
    for name, config in (("foundation", SmolLatentHeadConfig), ("chat", QwenVLChatConfig)):
        small = config(embedded_size="debug", image_size=(SIDE, SIDE))
        save_foundation(build_backend(small, SPEC), root / name, laq_fingerprint=fingerprint, extra={"steps": 1})
    _save_policy(root)
    _save_pickles(root)
    _save_hub_model(root)


def record(root: Path, *, video: bool) -> None:
    """Record a dataset of three episodes with LeRobot's own writer."""
    picture = {"dtype": "video" if video else "image", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "c"]}
    vector = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
    encoder = RGBEncoderConfig(vcodec="h264", pix_fmt="yuv444p", g=2, crf=10, preset="veryfast") if video else None
    dataset = LeRobotDataset.create(
        _NAME,
        fps=FPS,
        features={CAMERA: picture, "observation.state": vector, "action": vector},
        root=root,
        use_videos=video,
        rgb_encoder=encoder,
    )
    draw = np.random.default_rng(0)
    for number, length in enumerate(LENGTHS):
        for _ in range(length):
            values = draw.uniform(-1, 1, (2, 2)).astype(np.float32)
            frame = {"observation.state": values[0], "action": values[1], "task": TASKS[number % 2]}
            dataset.add_frame({**frame, CAMERA: draw.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)})
        dataset.save_episode()
    dataset.finalize()


def label(dataset: Path, laq: Path, output: Path) -> LatentLabels:
    """Label a dataset with the command's own function and flags."""
    flags = {"laq_path": laq, "dataset_root": dataset, "output_dir": output, "overwrite": "true", "device": "cpu"}
    precompute_latent_codes(draccus.parse(PrecomputeConfig, args=[f"--{k}={v}" for k, v in flags.items()]))
    return load_labels(output, with_vectors=True)


def _save_policy(root: Path) -> None:
    features = {
        CAMERA: PolicyFeature(type=FeatureType.VISUAL, shape=(3, SIDE, SIDE)),
        "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(2,)),
    }
    config: Any = PreTrainedConfig.get_choice_class("hlrp_vla_direct")(
        device="cpu",
        chunk_size=2,
        n_action_steps=1,
        decoder_hidden_dim=16,
        vla_checkpoint_path=str(root / "foundation"),
        latent_labels_path=str(root / "labels"),
        input_features=features,
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(2,))},
    )
    meta = open_dataset(_NAME, root / "images").meta
    policy: Any = get_policy_class("hlrp_vla_direct")(config, dataset_meta=meta)
    policy.save_pretrained(root / "policy")
    for processor in make_pre_post_processors(policy.config, dataset_stats=meta.stats):
        processor.save_pretrained(root / "policy")


def _save_pickles(root: Path) -> None:
    """Files that `torch.save` writes, for the commands that read weights of other projects."""
    (root / "pickles").mkdir()
    backend = load_foundation(root / "foundation").backend
    state = {f"{OUR_PREFIX}{name}": value for name, value in backend.state_dict().items()}
    torch.save({"state_dict": state}, root / "pickles" / "vla.ckpt")


def _save_hub_model(root: Path) -> None:
    """A chat model and a vision model in the layout of the hub, as `model_name` and `frozen_model` take them."""
    backend: Any = load_foundation(root / "chat").backend
    backend.save_assets(root / "hub" / "chat")
    backend.model.save_pretrained(root / "hub" / "chat")
    from transformers import Dinov2Config, Dinov2Model

    vision = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(vision).save_pretrained(root / "hub" / "vision")


# ---- Reading ----


def _dataset(name: str) -> Callable[[Path, Path], Any]:
    def load(changed: Path, whole: Path) -> Any:
        labels = label(changed / name, whole / "laq", changed / f"labels of {name}")
        dataset = open_dataset(_NAME, changed / name)
        items = [dataset[i] for i in range(0, len(dataset), 5)]
        values = {k: torch.stack([i[k] for i in items]) for k in (CAMERA, "action", "observation.state", "timestamp")}
        return {**_of_labels(labels), **values, "instructions": read_instructions(dataset), "fps": dataset.fps}

    return load


def _labels(changed: Path, whole: Path) -> Any:
    meta = open_dataset(_NAME, whole / "images").meta
    return _of_labels(labels_of_dataset(meta, changed / "labels", with_vectors=True))


def _of_labels(labels: LatentLabels) -> dict[str, Any]:
    return {"codes": labels.codes, "valid": labels.valid, "vectors": labels.vectors, "codebook": labels.codebook}


def _laq(changed: Path, whole: Path) -> Any:
    laq = load_laq(changed / "laq")
    torch.manual_seed(0)
    latents = laq.model.encode(torch.rand(2, SPEC.num_frames, 3, SIDE, SIDE))
    return {"codes": latents.codes, "vectors": latents.vectors, "cameras": laq.cameras, "spec": laq.model.spec}


def _foundation(name: str) -> Callable[[Path, Path], Any]:
    return lambda changed, whole: _predicted(load_foundation(changed / name).backend)


def _predicted(backend: Any) -> Any:
    torch.manual_seed(0)
    prediction = backend.eval().predict(FoundationBatch(torch.rand(2, 1, 3, SIDE, SIDE), list(TASKS)))
    return {"codes": prediction.codes, "log_probs": prediction.log_probs}


def _policy(changed: Path, whole: Path) -> Any:
    policy: Any = get_policy_class("hlrp_vla_direct").from_pretrained(changed / "policy")
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(changed / "policy"))
    torch.manual_seed(0)
    state = {"observation.state": torch.tensor([0.25, 0.5]), "task": TASKS[0]}
    with torch.no_grad():
        return after(policy.predict_action_chunk(before({CAMERA: torch.rand(3, SIDE, SIDE), **state})))


def _lightning(changed: Path, whole: Path) -> Any:
    backend = build_backend(SmolLatentHeadConfig(embedded_size="debug", image_size=(SIDE, SIDE)), SPEC)
    load_lightning_weights(backend, changed / "pickles" / "vla.ckpt")
    return _predicted(backend)


def _lapa(changed: Path, whole: Path) -> Any:
    file = changed / "pickles" / "vla.ckpt"
    if file.read_bytes() == (whole / "pickles" / "vla.ckpt").read_bytes():
        return None  # weights of another model are refused, so there is no result to compare with
    flags = {"weights": file, "output_dir": changed / "imported", "frame_offset_s": 1}
    import_lapa(draccus.parse(ImportLapaConfig, args=[f"--{name}={value}" for name, value in flags.items()]))
    return None


def _hub_chat(changed: Path, whole: Path) -> Any:
    config = BackendConfig.get_choice_class("qwen3vl_chat")(
        model_name=str(changed / "hub" / "chat"), image_size=(SIDE, SIDE)
    )
    return _predicted(build_backend(config, SPEC))


def _hub_vision(changed: Path, whole: Path) -> Any:
    model = FeatureChange(str(changed / "hub" / "vision"), (2, 2))
    torch.manual_seed(0)
    return model(*torch.rand(2, 1, 1, 1, 3, SIDE, SIDE))


def _flags(changed: Path, whole: Path) -> Any:
    """Run the labelling command with the flags in `flags.txt`; without this file, there is nothing to run."""
    file = changed / "laq" / "flags.txt"
    if file.is_file():
        sys.argv = ["hlrp-precompute-latent-codes", *file.read_text(encoding="utf-8").splitlines()]
        command_line()


ENTRIES = {
    "videos": Entry("videos", _dataset("videos")),
    "images": Entry("images", _dataset("images")),
    "labels": Entry("labels", _labels),
    "laq": Entry("laq", _laq),
    "foundation": Entry("foundation", _foundation("foundation")),
    "chat": Entry("chat", _foundation("chat")),
    "policy": Entry("policy", _policy),
    "lightning": Entry("pickles", _lightning),
    "lapa": Entry("pickles", _lapa),
    "hub chat": Entry("hub", _hub_chat),
    "hub vision": Entry("hub", _hub_vision),
    "flags": Entry("laq", _flags),
}
