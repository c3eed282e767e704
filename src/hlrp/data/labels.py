"""Latent labels of a dataset: written once, found in training by frame index.

A label set is a folder with `labels.parquet` (one row per frame: `index`, `episode_index`, `frame_index`,
`latent_codes`, `latent_vectors`, `latent_valid`) and `labels.json` (whose labels they are). By default it lies in the
dataset's own folder, `<root>/latents`, so that nothing of the dataset is copied. A dataset made with
`--output_dataset` carries the same columns itself, and the same metadata in `meta/latents.json`.

Shapes: f frames, c codes of one label (n transitions times s slots), s code slots, k codebook entries, d code width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.artefacts import read_json, reading
from hlrp.files import new_directory
from hlrp.latents import NO_LABEL, LatentSpec, spec_to_dict

LABELS_DIR = "latents"
LABELS_FILE = "labels.parquet"
METADATA_FILE = "labels.json"
COLUMN_METADATA_FILE = "meta/latents.json"
_WRITE_AGAIN = "write the labels again with hlrp-precompute-latent-codes --overwrite=true"
CODES, VECTORS, VALID = "latent_codes", "latent_vectors", "latent_valid"


@dataclass(frozen=True, kw_only=True)
class LabelMetadata:
    """Whose labels these are, and what the codes stand for."""

    laq_fingerprint: str
    """`fingerprint` of the LAQ that wrote them."""
    spec: LatentSpec
    camera: str
    """Dataset key of the camera the LAQ watched; the first, where it watched several."""
    fps: float
    """Frame rate of the labelled dataset, in Hz."""
    codebook: list[list[list[float]]]
    """Code vectors, (s, k, d): a policy decodes codes without the LAQ itself. Empty where the LAQ has no codes."""
    further_cameras: list[str] = field(default_factory=list)
    """The others, in the order of the LAQ's channels."""

    @property
    def has_codes(self) -> bool:
        """False for labels of a continuous LAQ, which are vectors alone."""
        return len(self.codebook) > 0

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {**asdict(self), "spec": spec_to_dict(self.spec)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> LabelMetadata:
        """Inverse of `to_dict`."""
        return cls(**{**values, "spec": LatentSpec(**values["spec"])})  # pyright: ignore[reportArgumentType, reportCallIssue]


@dataclass(frozen=True)
class LatentLabels:
    """Labels of every frame of a dataset, in the order of its absolute frame index."""

    metadata: LabelMetadata
    codes: Int[Tensor, "f c"]
    """int64 in [0, k), or -1 in every slot of a frame without a label; -1 everywhere if the LAQ has no codes."""
    valid: Bool[Tensor, " f"]
    """False where the clip was cut by the end of its episode."""
    episode_index: Int[Tensor, " f"]
    frame_index: Int[Tensor, " f"]
    vectors: Float[Tensor, "f v"] | None = None
    """Encoder outputs before quantization, flattened (n, s, d). Read only on request."""

    def __post_init__(self) -> None:
        spec = self.metadata.spec
        if self.codes.shape[1] != spec.num_codes:
            raise ValueError(f"labels hold {self.codes.shape[1]} codes a frame, their metadata says {spec.num_codes}")
        if len(self.codes) and not (self.codes.min() >= NO_LABEL and self.codes.max() < spec.codebook_size):
            raise ValueError(
                f"labels hold codes {int(self.codes.min())} to {int(self.codes.max())}, expected 0 to "
                f"{spec.codebook_size - 1} or {NO_LABEL}; write them again with hlrp-precompute-latent-codes"
            )
        if self.metadata.has_codes:
            if (self.codes[self.valid] == NO_LABEL).any():
                raise ValueError(
                    "a frame marked valid lacks a code; write them again with hlrp-precompute-latent-codes"
                )
        elif (self.codes != NO_LABEL).any():
            raise ValueError(
                "labels hold codes but their metadata has no codebook; write them again with "
                "hlrp-precompute-latent-codes"
            )

    def require_codes(self) -> None:
        """Raise unless there are codes to learn.

        Raises:
            ValueError: If the labels are of a continuous LAQ.
        """
        if not self.metadata.has_codes:
            raise ValueError(
                "these latent labels are of a continuous LAQ and hold vectors but no codes; write labels with a LAQ "
                "that has codes, such as fsq"
            )

    @property
    def codebook(self) -> Float[Tensor, "s k d"]:
        """Code vectors of the LAQ.

        Raises:
            ValueError: If it has none.
        """
        self.require_codes()
        return torch.tensor(self.metadata.codebook, dtype=torch.float32)


def save_labels(labels: LatentLabels, directory: Path | str, *, overwrite: bool = False) -> Path:
    """Write a label set, completely or not at all.

    Raises:
        FileExistsError: If `directory` exists and is not a label set to `overwrite`.
    """
    assert labels.vectors is not None, "a label set stores vectors"
    table = pa.table(
        {
            "index": np.arange(len(labels.codes)),
            "episode_index": labels.episode_index.numpy(),
            "frame_index": labels.frame_index.numpy(),
            CODES: pa.FixedSizeListArray.from_arrays(labels.codes.reshape(-1).numpy(), labels.codes.shape[1]),
            VECTORS: pa.FixedSizeListArray.from_arrays(labels.vectors.reshape(-1).numpy(), labels.vectors.shape[1]),
            VALID: labels.valid.numpy(),
        }
    )
    with new_directory(directory, replace_if_holds=METADATA_FILE if overwrite else None) as folder:
        pq.write_table(table, folder / LABELS_FILE)
        (folder / METADATA_FILE).write_text(json.dumps(labels.metadata.to_dict()), encoding="utf-8")
    return Path(directory)


def load_labels(directory: Path | str, *, with_vectors: bool = False) -> LatentLabels:
    """Read a label set.

    Raises:
        FileNotFoundError: If `directory` is not one.
    """
    directory = Path(directory)
    if not (directory / METADATA_FILE).is_file() or not (directory / LABELS_FILE).is_file():
        raise FileNotFoundError(
            f"{directory} holds no latent labels (expected {METADATA_FILE} and {LABELS_FILE}); write them with "
            "hlrp-precompute-latent-codes"
        )
    metadata = _read_metadata(directory / METADATA_FILE)
    columns = ["index", "episode_index", "frame_index", CODES, VALID, *([VECTORS] if with_vectors else [])]
    with reading(directory / LABELS_FILE, remedy=_WRITE_AGAIN):
        table = pq.read_table(directory / LABELS_FILE, columns=columns)
    return _from_table(table, metadata)


def _read_metadata(path: Path) -> LabelMetadata:
    values = read_json(path, remedy=_WRITE_AGAIN)
    with reading(path, remedy=_WRITE_AGAIN):
        return LabelMetadata.from_dict(values)


def load_label_columns(dataset_root: Path | str, *, with_vectors: bool = False) -> LatentLabels:
    """Read the labels that a dataset carries as columns of its own."""
    root = Path(dataset_root)
    metadata = _read_metadata(root / COLUMN_METADATA_FILE)
    files = [str(path) for path in sorted((root / "data").rglob("*.parquet"))]
    columns = ["index", "episode_index", "frame_index", CODES, VALID, *([VECTORS] if with_vectors else [])]
    table = pads.dataset(files).to_table(columns=columns)
    return _from_table(table, metadata)


def find_labels(
    dataset_root: Path | str, labels_path: Path | str | None = None, *, with_vectors: bool = False
) -> LatentLabels:
    """Labels of a dataset: from `labels_path` if given, else the dataset's own columns, else its sidecar.

    Raises:
        FileNotFoundError: If there are none, naming the places searched.
    """
    if labels_path is not None:
        return load_labels(labels_path, with_vectors=with_vectors)
    root = Path(dataset_root)
    if (root / COLUMN_METADATA_FILE).is_file():
        return load_label_columns(root, with_vectors=with_vectors)
    if (root / LABELS_DIR / METADATA_FILE).is_file():
        return load_labels(root / LABELS_DIR, with_vectors=with_vectors)
    raise FileNotFoundError(
        f"no latent labels for {root}: neither {COLUMN_METADATA_FILE} nor {LABELS_DIR}/{METADATA_FILE} is there; write "
        "them with hlrp-precompute-latent-codes, or name their folder"
    )


def require_labels_of(
    labels: LatentLabels, *, episode_index: Int[Tensor, " f"], frame_index: Int[Tensor, " f"]
) -> None:
    """Raise unless `labels` were written for exactly these frames.

    Deleting an episode renumbers `index`, so every row is checked against its episode and frame.

    Raises:
        ValueError: If the number or the order of frames differs.
    """
    same = (
        len(labels.codes) == len(frame_index)
        and torch.equal(labels.episode_index, episode_index)
        and torch.equal(labels.frame_index, frame_index)
    )
    if not same:
        raise ValueError(
            f"the latent labels are of another version of this dataset ({len(labels.codes)} labelled frames, "
            f"{len(frame_index)} in the dataset, or other episodes); write them again with hlrp-precompute-latent-codes"
        )


def _from_table(table: pa.Table, metadata: LabelMetadata) -> LatentLabels:
    table = table.sort_by("index")
    index = table.column("index").to_numpy()
    if not np.array_equal(index, np.arange(len(index))):
        raise ValueError(
            "latent labels must cover every frame index once; write them again with hlrp-precompute-latent-codes"
        )

    def rows(name: str) -> Tensor:
        column = table.column(name).combine_chunks()
        if not pa.types.is_primitive(column.type):  # LeRobot stores a column of one value as plain numbers
            column = column.flatten()
        return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy()).reshape(len(index), -1)

    def scalars(name: str) -> Tensor:
        return torch.from_numpy(table.column(name).to_numpy().copy()).reshape(-1)

    return LatentLabels(
        metadata=metadata,
        codes=rows(CODES).to(torch.int64),
        valid=scalars(VALID),
        episode_index=scalars("episode_index"),
        frame_index=scalars("frame_index"),
        vectors=rows(VECTORS) if VECTORS in table.column_names else None,
    )
