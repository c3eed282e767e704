"""`hlrp-precompute-latent-codes`: label every frame of a dataset with the latent action that starts there."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import draccus
import torch
from lerobot.datasets.dataset_tools import add_features
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tqdm import tqdm

from hlrp.cli.common import choose_device, chosen_cameras, run_cli
from hlrp.data.clips import clip_is_valid
from hlrp.data.dataset import episode_of_frame, frame_of_episode, open_dataset
from hlrp.data.labels import (
    CODES,
    COLUMN_METADATA_FILE,
    LABELS_DIR,
    VALID,
    VECTORS,
    LabelMetadata,
    LatentLabels,
    save_labels,
)
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.files import refuse_existing, write_json
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.latents import NO_LABEL, log_offset

logger = logging.getLogger(__name__)


@dataclass
class PrecomputeConfig:
    """Label a LeRobotDataset with a trained LAQ; nothing of the dataset is changed or, by default, copied."""

    laq_path: str = "outputs/laq"
    """Folder of the LAQ checkpoint, or its name on the hub."""
    dataset_repo_id: str = "local/hlrp_demos"
    """Repo id of the dataset."""
    dataset_root: str | None = None
    """Its folder; default: $HF_LEROBOT_HOME/<repo_id>, then the hub."""
    camera: str | None = None
    """Dataset key of the camera; default: the one the LAQ was trained on."""
    cameras: list[str] = field(default_factory=list)
    """Several, for a LAQ of several cameras; default: those it was trained on, in their order."""
    output_dir: str | None = None
    """Folder of the labels; default: `latents` in the dataset's folder, where training finds them by itself."""
    output_dataset: str | None = None
    """Write a whole new dataset with the labels as columns to this folder, instead of a sidecar."""
    overwrite: bool = False
    """Replace labels that are there already (never a dataset)."""
    batch_size: int = 256
    """Clips per forward pass."""
    cache_gib: float = 2.0
    """Keep decoded frames in memory up to this size; larger datasets are decoded on demand."""
    device: str | None = None
    """cpu, cuda, mps; default: the best there is."""

    def __post_init__(self) -> None:
        if self.output_dir is not None and self.output_dataset is not None:
            raise ValueError("labels go to one place: name output_dir or output_dataset, not both")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {self.batch_size}")


def precompute_latent_codes(config: PrecomputeConfig) -> LatentLabels:
    """Label the dataset and write the labels where `config` says."""
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device)
    dataset = open_dataset(config.dataset_repo_id, config.dataset_root)
    log_offset(laq.model.spec, float(dataset.fps), of=dataset.repo_id)
    cameras = chosen_cameras(config.camera, config.cameras) or laq.cameras
    laq.require_cameras(max(len(cameras), 1))
    target = Path(config.output_dataset or config.output_dir or dataset.root / LABELS_DIR)
    if config.output_dataset is not None or not config.overwrite:
        refuse_existing(target)
    source = lerobot_source(
        dataset, cameras=cameras, image_size=laq.model.config.image_size, cache_gib=config.cache_gib
    )
    labels = label_source(laq, source, batch_size=config.batch_size)
    if config.output_dataset is None:
        save_labels(labels, target, overwrite=config.overwrite)
    else:
        write_labelled_dataset(dataset, labels, target)
    share = labels.valid.double().mean()
    print(f"{len(labels.codes)} frames, {share:.1%} with a label (the rest are cut by their episode's end): {target}")
    return labels


@torch.no_grad()
def label_source(laq: LoadedLAQ, source: ClipSource, *, batch_size: int) -> LatentLabels:
    """Latent actions of every frame of `source`; frames whose clip leaves the episode are invalid."""
    model, spec = laq.model, laq.model.spec
    bounds = source.bounds
    deltas = torch.tensor(spec.frame_deltas(source.fps))
    valid = clip_is_valid(bounds, deltas.tolist())
    device = next(model.parameters()).device
    codes = torch.full((len(valid), spec.num_codes), NO_LABEL, dtype=torch.int64)
    vectors = torch.zeros(len(valid), spec.num_codes * spec.code_dim)
    starts = valid.nonzero()[:, 0]
    for chunk in tqdm(starts.split(batch_size), desc="labelling", unit="batch"):
        actions = model.encode(source.frames.read(chunk[:, None] + deltas).to(device))
        codes[chunk] = actions.codes.flatten(1).cpu()
        vectors[chunk] = actions.vectors.flatten(1).cpu()
    metadata = LabelMetadata(
        laq_fingerprint=laq.fingerprint,
        spec=spec,
        camera=source.cameras[0],
        further_cameras=list(source.cameras[1:]),
        fps=source.fps,
        codebook=model.codebook().cpu().tolist() if model.quantizer.has_codes else [],
    )
    return LatentLabels(
        metadata=metadata,
        codes=codes,
        valid=valid,
        episode_index=episode_of_frame(bounds),
        frame_index=frame_of_episode(bounds),
        vectors=vectors,
    )


def write_labelled_dataset(dataset: LeRobotDataset, labels: LatentLabels, root: Path) -> None:
    """Write a copy of `dataset` whose frames carry `labels` as columns."""
    assert labels.vectors is not None
    columns = {
        CODES: (labels.codes.numpy(), {"dtype": "int64", "shape": (labels.codes.shape[1],), "names": None}),
        VECTORS: (labels.vectors.numpy(), {"dtype": "float32", "shape": (labels.vectors.shape[1],), "names": None}),
        VALID: (labels.valid.numpy()[:, None], {"dtype": "bool", "shape": (1,), "names": None}),
    }
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
        new = Path(scratch) / "new"
        add_features(dataset, features=columns, output_dir=new, repo_id=f"{dataset.repo_id}_latents")
        write_json(new / COLUMN_METADATA_FILE, labels.metadata.to_dict())
        new.rename(root)


def main() -> None:
    """Entry point."""
    run_cli(lambda: precompute_latent_codes(draccus.parse(PrecomputeConfig)))


if __name__ == "__main__":
    main()
