"""`hlrp-precompute-latent-codes`: label every frame of a dataset with the latent action that starts there."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from lerobot.datasets.dataset_tools import add_features
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tqdm import tqdm

from hlrp.cli.common import choose_device, chosen_cameras
from hlrp.cli.precompute_latent_codes import PrecomputeConfig
from hlrp.data.clips import clip_is_valid
from hlrp.data.dataset import episode_of_frame, frame_of_episode, open_dataset
from hlrp.data.labels import (
    CODES,
    COLUMN_METADATA_FILE,
    LABELS_DIR,
    METADATA_FILE,
    VALID,
    VECTORS,
    LabelMetadata,
    LatentLabels,
    save_labels,
)
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.files import refuse_existing, write_json
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.latents import NO_LABEL

logger = logging.getLogger(__name__)


def precompute_latent_codes(config: PrecomputeConfig) -> LatentLabels:
    """Label the dataset and write the labels where `config` says."""
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device)
    dataset = open_dataset(config.dataset_repo_id, config.dataset_root)
    cameras = chosen_cameras(config.camera, config.cameras) or laq.cameras
    laq.require_cameras(max(len(cameras), 1))
    target = Path(config.output_dataset or config.output_dir or dataset.root / LABELS_DIR)
    replaceable = METADATA_FILE if config.output_dataset is None and config.overwrite else None
    refuse_existing(target, replace_if_holds=replaceable)
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
