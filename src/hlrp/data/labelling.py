"""Label the frames of a source with a quantizer, and write labels as columns of a new dataset."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.dataset_tools import add_features, remove_feature
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tqdm import tqdm

from hlrp.data.clip_starts import clip_is_valid
from hlrp.data.dataset import (
    episode_of_frame,
    frame_of_episode,
)
from hlrp.data.labels import (
    CODES,
    LABEL_COLUMNS,
    LAQ_MARK,
    VALID,
    VECTORS,
    LabelMetadata,
    LatentLabels,
)
from hlrp.data.recording_identity import RecordingIdentity
from hlrp.data.sources import ClipSource
from hlrp.laq.checkpoint import LoadedLAQ
from hlrp.latents import NO_LABEL
from hlrp.storage.files import new_directory


@torch.no_grad()
def label_source(
    laq: LoadedLAQ, source: ClipSource, *, batch_size: int, frames: RecordingIdentity | None = None
) -> LatentLabels:
    """Label every frame of `source` with the latent action of the clip that starts at the frame.

    Args:
        laq: The LAQ whose codes become labels.
        source: The frames to label. It is a LeRobotDataset, which has no scene cuts; a clip across one would be
            labelled, since only the ends of episodes are compared, while training leaves such clips out.
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
        if actions.codes is not None:
            codes[chunk] = actions.codes.flatten(1).cpu()
        vectors[chunk] = actions.require_vectors().flatten(1).cpu()
    metadata = LabelMetadata(
        laq_fingerprint=laq.fingerprint,
        spec=spec,
        camera=source.cameras[0],
        further_cameras=list(source.cameras[1:]),
        fps=source.fps,
        codebook=model.codebook().cpu().tolist() if model.quantizer.has_codes else [],
        frames=None if frames is None else frames.for_labels(),
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
