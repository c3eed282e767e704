"""`hlrp-precompute-latent-codes`: label every frame of a dataset with the codes of the clip that starts there."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.dataset_tools import add_features, remove_feature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tqdm import tqdm

from hlrp.cli.common import choose_device, chosen_cameras
from hlrp.cli.precompute_latent_codes import PrecomputeConfig
from hlrp.data.clips import clip_is_valid
from hlrp.data.dataset import (
    dataset_name,
    episode_of_frame,
    frame_of_episode,
    open_dataset,
)
from hlrp.data.frame_identity import FrameIdentity, frame_identity
from hlrp.data.labels import (
    CODES,
    LABEL_COLUMNS,
    LABELS_DIR,
    LAQ_MARK,
    METADATA_FILE,
    VALID,
    VECTORS,
    LabelMetadata,
    LatentLabels,
    save_labels,
)
from hlrp.data.sources import ClipSource, lerobot_source
from hlrp.files import new_directory, refuse_existing, sole_writer
from hlrp.laq.checkpoint import LoadedLAQ, load_laq
from hlrp.latents import NO_LABEL, log_offset

logger = logging.getLogger(__name__)


def precompute_latent_codes(config: PrecomputeConfig) -> LatentLabels:
    """Label the dataset and write the labels to `output_dir`, or a labelled copy of the dataset to `output_dataset`.

    Raises:
        FileNotFoundError: If the LAQ or the dataset does not exist.
        FileExistsError: If the target exists and may not be replaced, or another process is writing it.
        ValueError: If the cameras do not fit the LAQ.
    """
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device)
    name = dataset_name(config.dataset_repo_id, config.dataset_root)
    dataset = open_dataset(name, config.dataset_root, tolerance_s=config.tolerance_s)
    log_offset(laq.model.spec, float(dataset.fps), of=dataset.repo_id)
    cameras = chosen_cameras(config.camera, config.cameras) or laq.cameras
    laq.require_cameras(max(len(cameras), 1))
    target = Path(config.output_dataset or config.output_dir or dataset.root / LABELS_DIR)
    with sole_writer(target):
        replaceable = METADATA_FILE if config.output_dataset is None and config.overwrite else None
        refuse_existing(target, replace_if_holds=replaceable)
        source = lerobot_source(
            dataset, cameras=cameras, image_size=laq.model.config.image_size, cache_gib=config.cache_gib
        )
        frames = frame_identity(dataset.meta, source.cameras)
        labels = label_source(laq, source, batch_size=config.batch_size, frames=frames)
        if config.output_dataset is None:
            save_labels(labels, target, overwrite=config.overwrite)
        else:
            write_labelled_dataset(dataset, labels, target)
    share = labels.valid.double().mean()
    print(f"{len(labels.codes)} frames, {share:.1%} with a label (the rest are cut by their episode's end): {target}")
    return labels


@torch.no_grad()
def label_source(
    laq: LoadedLAQ, source: ClipSource, *, batch_size: int, frames: FrameIdentity | None = None
) -> LatentLabels:
    """Label every frame of `source` with the latent action of the clip that starts at the frame.

    Args:
        laq: The LAQ whose codes become labels.
        source: The frames to label.
        batch_size: Clips per forward pass.
        frames: Identity of the frames of `source`, kept with the labels to recognize their dataset.

    Returns:
        Labels in the order of the frames. A frame whose clip passes the end of its episode is invalid: its codes are
        `NO_LABEL` and its vectors 0.
    """
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
        frames=None if frames is None else frames.to_dict(),
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
    """Write a copy of `dataset` to the folder `root`, with `labels` as columns; older label columns are replaced."""
    assert labels.vectors is not None
    # LeRobot merges datasets only if their features are equal, and the identity of the frames differs between datasets.
    metadata = replace(labels.metadata, frames=None)
    marks = np.full((len(labels.codes), 1), metadata.mark)
    columns = {
        CODES: (labels.codes.numpy(), {**_feature("int64", labels.codes.shape[1]), "info": metadata.to_dict()}),
        VECTORS: (labels.vectors.numpy(), _feature("float32", labels.vectors.shape[1])),
        VALID: (labels.valid.numpy()[:, None], _feature("bool", 1)),
        LAQ_MARK: (marks, _feature("int64", 1)),
    }
    old = [name for name in LABEL_COLUMNS if name in dataset.meta.features]
    with new_directory(root, create=False) as new, tempfile.TemporaryDirectory(dir=new.parent) as scratch:
        if old:
            dataset = remove_feature(dataset, old, output_dir=Path(scratch) / "bare", repo_id=dataset.repo_id)
        add_features(dataset, features=columns, output_dir=new, repo_id=f"{dataset.repo_id}_latents")


def _feature(dtype: str, size: int) -> dict[str, object]:
    """Return LeRobot's feature description of a column with `size` numbers per row."""
    return {"dtype": dtype, "shape": (size,), "names": None}
