"""`hlrp-precompute-latent-codes`: label every frame of a dataset with the codes of the clip that starts there."""

from __future__ import annotations

import logging
from pathlib import Path

from hlrp.commands.running import choose_device
from hlrp.data.dataset import (
    dataset_name,
    open_dataset,
)
from hlrp.data.labelling import label_source, write_labelled_dataset
from hlrp.data.labels import (
    LABELS_DIR,
    LABELS_FOLDER,
    LatentLabels,
    save_labels,
)
from hlrp.data.recording_identity import dataset_identity
from hlrp.data.sources import lerobot_source
from hlrp.laq.checkpoint import load_laq
from hlrp.latents import log_offset
from hlrp.options.cameras import chosen_cameras
from hlrp.options.precompute_latent_codes import PrecomputeConfig
from hlrp.storage.files import refuse_existing, sole_writer

logger = logging.getLogger(__name__)


def precompute_latent_codes(config: PrecomputeConfig) -> LatentLabels:
    """Label the dataset and write the labels to `output_dir`, or a labelled copy of the dataset to `output_dataset`.

    Raises:
        FileNotFoundError: If the LAQ or the dataset does not exist.
        FileExistsError: If the target exists and may not be replaced, or another process is writing it.
        ValueError: If the cameras do not fit the LAQ.
    """
    device = choose_device(config.device)
    laq = load_laq(config.laq_path, device=device)
    name = dataset_name(config.dataset_repo_id, config.dataset_root)
    dataset = open_dataset(name, config.dataset_root, tolerance_s=config.tolerance_s)
    log_offset(laq.model.spec, float(dataset.fps), of=dataset.repo_id)
    cameras = chosen_cameras(config.camera, config.cameras) or laq.cameras
    laq.require_cameras(max(len(cameras), 1))
    target = Path(config.output_dataset or config.output_dir or dataset.root / LABELS_DIR)
    with sole_writer(target):
        if config.output_dataset is None:
            LABELS_FOLDER.refuse_existing(target, overwrite=config.overwrite)
        else:
            refuse_existing(target)
        source = lerobot_source(
            dataset, cameras=cameras, image_size=laq.model.config.image_size, cache_gib=config.cache_gib
        )
        frames = dataset_identity(dataset.meta, source.cameras)
        labels = label_source(laq, source, batch_size=config.batch_size, frames=frames)
        if config.output_dataset is None:
            save_labels(labels, target, overwrite=config.overwrite)
        else:
            write_labelled_dataset(dataset, labels, target)
    share = labels.valid.double().mean()
    print(f"{len(labels.codes)} frames, {share:.1%} with a label (the rest are cut by their episode's end): {target}")
    return labels
