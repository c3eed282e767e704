"""Read and write the latent labels of a dataset: the latent action of every frame, written once by a quantizer (LAQ).

A label set is a folder with `labels.parquet` (one row per frame: `index`, `episode_index`, `frame_index`,
`latent_codes`, `latent_vectors`, `latent_valid`) and `labels.json` (the LAQ, and the identity of the frames). Its
default place is the folder `latents` inside the dataset's folder, so that the dataset need not be copied.

A dataset that was made with `--output_dataset` has the labels as columns. Their metadata is the `info` of the feature
`latent_codes` in `meta/info.json`, which LeRobot's tools keep when they delete episodes, split or merge datasets. The
column `latent_laq` marks every row with the LAQ, cameras and geometry of its label, to detect a merge of datasets that
were labelled by different LAQs.

Shapes: g width of all vectors of a label, q*v.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hlrp.data.label_file import CODES, LAQ_MARK, VALID, VECTORS, LabelRows, LabelWriter
from hlrp.latents import NO_LABEL, LatentActions, LatentSpec, spec_to_dict
from hlrp.runtime.checks import require_numbers
from hlrp.runtime.size_limits import LARGEST_LATENT
from hlrp.storage.artefacts import FolderKind, read_json, reading
from hlrp.storage.plain_values import from_plain

logger = logging.getLogger(__name__)

LABELS_DIR = "latents"
LABELS_FILE = "labels.parquet"
METADATA_FILE = "labels.json"
INFO_FILE = "meta/info.json"
OLD_COLUMN_METADATA_FILE = "meta/latents.json"
"""Place of the metadata of label columns in an earlier version of this library; LeRobot's tools do not copy it."""
_COLUMNS_AGAIN = "label the dataset again with hlrp-precompute-latent-codes"

LABELS_FOLDER = FolderKind(
    what="latent labels",
    called="folder of latent labels",
    how_to_make="write the labels with hlrp-precompute-latent-codes",
    description=METADATA_FILE,
    content=LABELS_FILE,
    remedy="write the labels again with hlrp-precompute-latent-codes --overwrite=true",
)
"""Kind of folder that `load_labels` reads."""


@dataclass(frozen=True, kw_only=True)
class LabelMetadata:
    """Description of latent labels: the LAQ that wrote them, its codebook and cameras, and the labelled frames."""

    laq_fingerprint: str
    """`fingerprint` of the LAQ that wrote the labels."""
    spec: LatentSpec
    camera: str
    """Dataset key of the camera whose frames were labelled; the first of several, "" for video files."""
    fps: float
    """Frame rate of the labelled dataset, in Hz."""
    codebook: list[list[list[float]]]
    """Code vectors, (s, k, v), so that a policy can decode codes without the LAQ. Empty if the LAQ has no codes."""
    further_cameras: list[str] = field(default_factory=list)
    """Dataset keys of the LAQ's cameras after the first one, in the order of its channels."""
    frames: dict[str, str | None] | None = None
    """`RecordingIdentity` of the labelled frames, as plain values. None for labels in columns, which stay with their
    rows, and for labels of earlier versions, which did not store it."""
    vla_fingerprint: str | None = None
    """`fingerprint` of the foundation model that predicted the codes of the LAQ from single frames; None if the LAQ
    itself encoded the clips."""
    skipped_episodes: dict[str, str] = field(default_factory=dict)
    """Episodes whose frames could not be read, by number, and the reason; their frames have no label."""
    episode_names: list[str] = field(default_factory=list)
    """For video files: path of every episode's file within the folder. Empty for datasets."""

    def __post_init__(self) -> None:
        require_numbers(self, "fps", above=0)
        spec = self.spec
        shape, expected = np.shape(self.codebook), (spec.code_seq_len, spec.codebook_size, spec.code_dim)
        if self.frames is not None and self.frames.get("episodes") is None:
            raise ValueError("frames.episodes is missing")
        if self.codebook and shape != expected:
            raise ValueError(f"codebook has the shape {shape}, but spec says {expected}")
        if self.codebook and not np.abs(self.codebook).max() <= LARGEST_LATENT:  # NaN compares as false
            raise ValueError(f"codebook holds numbers that are not finite or above {LARGEST_LATENT:g}")

    @property
    def mark(self) -> int:
        """Value of the column `latent_laq`: an integer in [0, 2^48), hash of models, geometry, cameras and fps."""
        known = [self.laq_fingerprint, spec_to_dict(self.spec), self.camera, self.further_cameras, float(self.fps)]
        known += [] if self.vla_fingerprint is None else [self.vla_fingerprint]
        return int.from_bytes(hashlib.sha256(json.dumps(known, sort_keys=True).encode()).digest()[:6])

    @property
    def has_codes(self) -> bool:
        """False for labels of a continuous LAQ, which are vectors without codes."""
        return len(self.codebook) > 0

    @property
    def width(self) -> int:
        """Number of values of all vectors of a label, g."""
        return self.spec.num_codes * self.spec.code_dim

    def to_dict(self) -> dict[str, object]:
        """The metadata as plain values, for JSON."""
        return {**asdict(self), "spec": spec_to_dict(self.spec)}

    def to_json(self) -> str:
        """Content of `labels.json`, without line breaks: a codebook is long."""
        return json.dumps(self.to_dict())


@dataclass(frozen=True)
class LatentLabels:
    """Labels of every frame of a dataset, in the order of its absolute frame index."""

    metadata: LabelMetadata
    codes: Int[Tensor, "f q"]
    """int64 in [0, k), or -1 in every slot of a frame without a label; -1 everywhere if the LAQ has no codes."""
    valid: Bool[Tensor, " f"]
    """True for frames with a label. A frame has none if the clip that starts there goes beyond its episode's end."""
    episode_index: Int[Tensor, " f"]
    frame_index: Int[Tensor, " f"]
    vectors: Float[Tensor, "f g"] | None = None
    """Encoder outputs before quantization, flattened from (n, s, v); None if they were not read."""
    are_columns: bool = False
    """Whether the labels were read from columns of the dataset itself, rather than from a separate folder."""

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
        if self.vectors is not None and self.vectors.numel():
            low, high = self.vectors.aminmax()
            if not (low >= -LARGEST_LATENT and high <= LARGEST_LATENT):  # NaN compares as false
                raise ValueError(
                    f"latent vectors lie between {low:g} and {high:g}, expected finite numbers up to {LARGEST_LATENT:g}"
                    "; write them again with hlrp-precompute-latent-codes"
                )

    def require_codes(self) -> None:
        """Raise unless the labels hold codes.

        Raises:
            ValueError: If the labels were made by a continuous LAQ, which has no codes.
        """
        if not self.metadata.has_codes:
            raise ValueError(
                "these latent labels are of a continuous LAQ and hold vectors but no codes; write labels with a LAQ "
                "that has codes, such as fsq"
            )

    @property
    def actions(self) -> LatentActions:
        """Latent actions of all frames; codes None if the LAQ has no codes, vectors None if they were not read."""
        vectors = self.vectors
        if vectors is not None:
            vectors = rearrange(vectors, "f (q v) -> f q v", q=self.codes.shape[1])
        return LatentActions(self.codes if self.metadata.has_codes else None, vectors, self.valid)

    @property
    def codebook(self) -> Float[Tensor, "s k v"]:
        """Code vectors of the LAQ, float32.

        Raises:
            ValueError: If the LAQ has no codes.
        """
        self.require_codes()
        return torch.tensor(self.metadata.codebook, dtype=torch.float32)


def save_labels(labels: LatentLabels, folder: Path | str, *, overwrite: bool = False) -> Path:
    """Write a label set to `folder`, completely or not at all.

    Raises:
        FileExistsError: If `folder` exists, and `overwrite` is false or it holds no latent labels.
    """
    assert labels.vectors is not None, "a label set stores vectors"
    rows = LabelRows(
        index=torch.arange(len(labels.codes)),
        episode_index=labels.episode_index,
        frame_index=labels.frame_index,
        codes=labels.codes,
        vectors=labels.vectors,
        valid=labels.valid,
    )
    with new_labels(folder, labels.metadata, overwrite=overwrite) as writer:
        writer.add(rows)
    return Path(folder)


@contextmanager
def new_labels(folder: Path | str, metadata: LabelMetadata, *, overwrite: bool = False) -> Iterator[LabelWriter]:
    """Yield a writer of the labels in `folder`, which appears complete at the end of the block, or not at all.

    Raises:
        FileExistsError: If `folder` exists, and `overwrite` is false or it holds no latent labels.
    """
    with (
        LABELS_FOLDER.new(folder, overwrite=overwrite, beside={METADATA_FILE: metadata.to_json()}) as new,
        LabelWriter(new / LABELS_FILE, num_codes=metadata.spec.num_codes, width=metadata.width) as writer,
    ):
        yield writer


def are_labels_of(folder: Path | str, metadata: LabelMetadata) -> bool:
    """Whether `folder` holds labels whose `labels.json` is exactly `metadata`."""
    path = Path(folder) / METADATA_FILE
    return path.is_file() and path.read_text(encoding="utf-8") == metadata.to_json()


def load_labels(folder: Path | str, *, with_vectors: bool = False) -> LatentLabels:
    """Read the label set in `folder`, which `save_labels` wrote.

    Raises:
        FileNotFoundError: If `folder` holds no label set.
        ValueError: If a file of the label set is damaged.
    """
    LABELS_FOLDER.require(folder)
    metadata = LABELS_FOLDER.read(folder, LabelMetadata)
    table = Path(folder) / LABELS_FILE
    columns = ["index", "episode_index", "frame_index", CODES, VALID, *([VECTORS] if with_vectors else [])]
    with reading(f"{table} (or the {METADATA_FILE} beside it)", remedy=LABELS_FOLDER.remedy):
        return _from_table(pq.read_table(table, columns=columns, page_checksum_verification=True), metadata)


def load_label_columns(dataset_root: Path | str, *, with_vectors: bool = False) -> LatentLabels:
    """Read labels that are columns of the dataset in `dataset_root`.

    Raises:
        ValueError: If the dataset does not say which LAQ wrote the labels, or several LAQs did.
    """
    root = Path(dataset_root)
    metadata = _column_metadata(root)
    data = pads.dataset([str(path) for path in sorted((root / "data").rglob("*.parquet"))])
    marks = [LAQ_MARK] if LAQ_MARK in data.schema.names else []
    columns = ["index", "episode_index", "frame_index", CODES, VALID, *([VECTORS] if with_vectors else []), *marks]
    table = data.to_table(columns=columns)
    strange = int((table.column(LAQ_MARK).to_numpy() != metadata.mark).sum()) if marks else 0
    if strange:
        raise ValueError(
            f"{strange} of {len(table)} rows of {root} carry latent labels of another LAQ, camera or offset than "
            f"{metadata.laq_fingerprint} on {metadata.camera}, as after a merge of datasets with different labels; "
            "label the whole dataset again with hlrp-precompute-latent-codes"
        )
    with reading(root / "data", remedy=_COLUMNS_AGAIN):
        return replace(_from_table(table, metadata), are_columns=True)


def _column_metadata(root: Path) -> LabelMetadata:
    """Metadata of the label columns of the dataset in `root`, from where this or an earlier version stored it."""
    feature = _label_feature(root)
    assert feature is not None, "`find_labels` has checked that the column exists"
    old = root / OLD_COLUMN_METADATA_FILE
    if feature.get("info"):
        path, values = root / INFO_FILE, feature["info"]
    elif old.is_file():
        path, values = old, read_json(old, remedy=_COLUMNS_AGAIN)
        logger.warning(
            f"the label columns of {root} were written by an earlier version and lose their LAQ when LeRobot's tools "
            "edit the dataset; label it again with hlrp-precompute-latent-codes"
        )
    else:
        raise ValueError(
            f"{root} has the column {CODES} but nothing says which LAQ wrote it: an earlier version kept that in "
            f"{OLD_COLUMN_METADATA_FILE}, which LeRobot's tools do not copy; label the dataset again with "
            "hlrp-precompute-latent-codes"
        )
    with reading(path, remedy=_COLUMNS_AGAIN):
        return from_plain(LabelMetadata, values)


def find_labels(
    dataset_root: Path | str, labels_path: Path | str | None = None, *, with_vectors: bool = False
) -> LatentLabels:
    """Read the labels of a dataset: from `labels_path` if given, else from its folder `latents`, else from its columns.

    If a dataset has both, the folder `latents` is newer than the columns, as no tool copies it when columns are added.

    Raises:
        FileNotFoundError: If there are no labels; the message names the places that were searched.
    """
    if labels_path is not None:
        return load_labels(labels_path, with_vectors=with_vectors)
    root = Path(dataset_root)
    if (root / LABELS_DIR / METADATA_FILE).is_file():
        return load_labels(root / LABELS_DIR, with_vectors=with_vectors)
    if _label_feature(root) is not None:
        return load_label_columns(root, with_vectors=with_vectors)
    raise FileNotFoundError(
        f"no latent labels for {root}: neither {LABELS_DIR}/{METADATA_FILE} nor a column {CODES} is there; write "
        "them with hlrp-precompute-latent-codes, or name their folder"
    )


def has_labels(dataset_root: Path | str) -> bool:
    """Whether a dataset has labels, in its folder `latents` or as columns."""
    root = Path(dataset_root)
    return (root / LABELS_DIR / METADATA_FILE).is_file() or _label_feature(root) is not None


def require_labels_of(
    labels: LatentLabels,
    *,
    episode_index: Int[Tensor, " f"],
    frame_index: Int[Tensor, " f"],
    named: str = "the latent labels",
) -> None:
    """Raise unless `labels` have one row for each of the given frames, in the same order.

    Comparing the column `index` alone would miss a deleted episode: LeRobot renumbers `index` after the deletion.

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
            f"{named} are of another version of this dataset ({len(labels.codes)} labelled frames, "
            f"{len(frame_index)} in the dataset, or other episodes); write them again with hlrp-precompute-latent-codes"
        )


def _label_feature(root: Path) -> dict[str, Any] | None:
    """Entry of the column `latent_codes` in `meta/info.json` of a dataset; None if there is no such column."""
    path = root / INFO_FILE
    if not path.is_file():
        return None
    remedy = "copy or record the dataset again"
    values = read_json(path, remedy=remedy)
    with reading(path, remedy=remedy):
        features = from_plain(dict[str, dict[str, Any]], values.get("features", {}), at="features")
    return features.get(CODES)


def _from_table(table: pa.Table, metadata: LabelMetadata) -> LatentLabels:
    table = table.sort_by("index")
    index = table.column("index").to_numpy()
    if not np.array_equal(index, np.arange(len(index))):
        raise ValueError(
            "latent labels must cover every frame index once; write them again with hlrp-precompute-latent-codes"
        )

    def rows(name: str) -> Tensor:
        column = table.column(name).combine_chunks()
        if column.null_count:
            raise ValueError(f"column {name} has {column.null_count} empty values")
        if not pa.types.is_primitive(column.type):  # LeRobot stores a column of one value as plain numbers
            column = column.flatten()
        return torch.from_numpy(column.to_numpy(zero_copy_only=False).copy().reshape(len(index), -1))

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
