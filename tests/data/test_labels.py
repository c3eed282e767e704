from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from damaged_files import damaged
from hlrp.data import label_file
from hlrp.data.labels import (
    LABELS_DIR,
    LABELS_FILE,
    METADATA_FILE,
    LabelMetadata,
    LatentLabels,
    find_labels,
    load_labels,
    require_labels_of,
    save_labels,
)
from hlrp.latents import NO_LABEL, LatentSpec

LENGTHS = (4, 3)


def make_labels(spec: LatentSpec | None = None) -> LatentLabels:
    """Labels of two episodes, of which the last frame has none."""
    spec = spec or LatentSpec(codebook_size=5, code_seq_len=3, num_frames=3, code_dim=2)
    lengths = torch.tensor(LENGTHS)
    frame_index = torch.cat([torch.arange(n) for n in LENGTHS])
    valid = frame_index < torch.repeat_interleave(lengths, lengths) - 1
    codes = torch.randint(spec.codebook_size, (7, spec.num_codes))
    return LatentLabels(
        metadata=LabelMetadata(
            laq_fingerprint="0123456789abcdef",
            spec=spec,
            camera="observation.images.top",
            fps=10.0,
            codebook=torch.randn(spec.code_seq_len, spec.codebook_size, spec.code_dim).tolist(),
        ),
        codes=torch.where(valid[:, None], codes, NO_LABEL),
        valid=valid,
        episode_index=torch.repeat_interleave(torch.arange(2), lengths),
        frame_index=frame_index,
        vectors=torch.randn(7, spec.num_codes * spec.code_dim),
    )


def assert_same(one: LatentLabels, other: LatentLabels) -> None:
    assert one.metadata == other.metadata
    for name in ("codes", "valid", "episode_index", "frame_index"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype, name
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(
    "spec",
    [
        LatentSpec(),
        LatentSpec(code_seq_len=1),
        LatentSpec(code_seq_len=1, code_dim=1),
        LatentSpec(num_frames=4, codebook_size=300),
    ],
)
def test_labels_come_back_as_they_were_written(tmp_path: Path, spec: LatentSpec) -> None:
    labels = make_labels(spec)
    folder = save_labels(labels, tmp_path / "latents")
    loaded = load_labels(folder, with_vectors=True)
    assert_same(loaded, labels)
    assert loaded.vectors is not None
    assert labels.vectors is not None
    assert torch.equal(loaded.vectors, labels.vectors)
    assert torch.equal(loaded.codebook, labels.codebook)


def test_vectors_are_read_only_on_request(tmp_path: Path) -> None:
    assert load_labels(save_labels(make_labels(), tmp_path / "latents")).vectors is None


def test_labels_are_not_overwritten_unasked_and_other_folders_never(tmp_path: Path) -> None:
    folder = save_labels(make_labels(), tmp_path / "latents")
    with pytest.raises(FileExistsError):
        save_labels(make_labels(), folder)
    new = replace(make_labels(), codes=torch.zeros(7, 6, dtype=torch.int64))
    save_labels(new, folder, overwrite=True)
    assert_same(load_labels(folder), new)

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").touch()
    with pytest.raises(FileExistsError):
        save_labels(make_labels(), tmp_path / "thesis", overwrite=True)


def test_a_full_disk_keeps_the_old_labels_and_leaves_no_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_labels()
    folder = save_labels(old, tmp_path / "latents")

    def full(*args: object, **kwargs: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(label_file.pq.ParquetWriter, "write_table", full)  # after the head of the file was written
    with pytest.raises(OSError, match="No space left"):
        save_labels(make_labels(), folder, overwrite=True)
    with pytest.raises(OSError, match="No space left"):
        save_labels(make_labels(), tmp_path / "other")
    assert list(tmp_path.iterdir()) == [folder]
    assert_same(load_labels(folder), old)


def test_labels_of_this_very_dataset_are_accepted() -> None:
    labels = make_labels()
    require_labels_of(labels, episode_index=labels.episode_index, frame_index=labels.frame_index)


def drop_first_episode(labels: LatentLabels) -> tuple[Tensor, Tensor]:
    return labels.episode_index[4:] - 1, labels.frame_index[4:]


def swap_episodes(labels: LatentLabels) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor(LENGTHS[::-1])
    return torch.repeat_interleave(torch.arange(2), lengths), torch.cat([torch.arange(3), torch.arange(4)])


def add_a_frame(labels: LatentLabels) -> tuple[Tensor, Tensor]:
    return (
        torch.cat([labels.episode_index, torch.tensor([1])]),
        torch.cat([labels.frame_index, torch.tensor([3])]),
    )


@pytest.mark.parametrize("change", [drop_first_episode, swap_episodes, add_a_frame])
def test_labels_of_a_renumbered_dataset_are_refused(
    change: Callable[[LatentLabels], tuple[Tensor, Tensor]],
) -> None:
    labels = make_labels()
    episode_index, frame_index = change(labels)
    with pytest.raises(ValueError, match=r"of another version of this dataset .* write them again"):
        require_labels_of(labels, episode_index=episode_index, frame_index=frame_index)


@pytest.mark.parametrize("code", [5, -2])
def test_a_code_out_of_range_is_refused(code: int) -> None:
    labels = make_labels()
    codes = labels.codes.clone()
    codes[0, 2] = code
    with pytest.raises(ValueError, match="expected 0 to 4 or -1; write them again with hlrp-precompute"):
        replace(labels, codes=codes)


def test_a_frame_that_counts_must_have_all_its_codes() -> None:
    labels = make_labels()
    codes = labels.codes.clone()
    codes[0, 2] = NO_LABEL
    with pytest.raises(ValueError, match="a frame marked valid lacks a code; write them again"):
        replace(labels, codes=codes)


def test_a_label_of_another_length_than_the_metadata_says_is_refused() -> None:
    labels = make_labels()
    with pytest.raises(ValueError, match="labels hold 5 codes a frame, their metadata says 6"):
        replace(labels, codes=labels.codes[:, :5])


def test_an_incomplete_table_is_refused(tmp_path: Path) -> None:
    labels = make_labels()
    folder = save_labels(labels, tmp_path / "latents")
    table = pq.read_table(folder / LABELS_FILE)
    pq.write_table(table.slice(1), folder / LABELS_FILE)
    with pytest.raises(ValueError, match=f"{re.escape(str(folder / LABELS_FILE))} .*must cover every frame index once"):
        load_labels(folder)


@pytest.mark.parametrize(
    ("column", "value"), [("latent_codes", None), ("latent_codes", [9] * 6), ("latent_valid", None)]
)
def test_a_file_with_a_value_that_cannot_be_is_named(tmp_path: Path, column: str, value: object) -> None:
    folder = save_labels(make_labels(), tmp_path / "latents")
    table = pq.read_table(folder / LABELS_FILE)
    place = table.schema.get_field_index(column)
    values = pa.array([value, *table.column(column).to_pylist()[1:]], table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), values), folder / LABELS_FILE)
    with pytest.raises(ValueError, match=f"{re.escape(str(folder / LABELS_FILE))} .*write the labels again"):
        load_labels(folder)


def test_the_order_of_rows_in_the_file_does_not_matter(tmp_path: Path) -> None:
    labels = make_labels()
    folder = save_labels(labels, tmp_path / "latents")
    table = pq.read_table(folder / LABELS_FILE)
    pq.write_table(table.take([6, 0, 3, 5, 1, 2, 4]), folder / LABELS_FILE)
    assert_same(load_labels(folder), labels)


@pytest.mark.parametrize("name", [METADATA_FILE, LABELS_FILE])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    file = save_labels(make_labels(), tmp_path / "labels") / name
    for _ in damaged(file):
        with pytest.raises(ValueError, match=f"{re.escape(str(file))} .*write the labels again"):
            load_labels(file.parent)


@pytest.mark.parametrize("missing", [LABELS_FILE, METADATA_FILE])
def test_half_a_label_set_is_refused(tmp_path: Path, missing: str) -> None:
    folder = save_labels(make_labels(), tmp_path / "latents")
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"has no {missing}, .*hlrp-precompute-latent-codes"):
        load_labels(folder)


def test_labels_are_found_beside_the_videos_or_where_they_are_said_to_be(tmp_path: Path) -> None:
    beside, elsewhere = make_labels(), make_labels()
    save_labels(beside, tmp_path / LABELS_DIR)
    save_labels(elsewhere, tmp_path / "elsewhere")
    assert_same(find_labels(tmp_path), beside)
    assert_same(find_labels(tmp_path, tmp_path / "elsewhere"), elsewhere)


def test_a_dataset_without_labels_is_an_error_that_names_the_places_searched(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"neither latents/labels.json nor a column latent_codes is there; write them with"
    ):
        find_labels(tmp_path)


def continuous_labels() -> LatentLabels:
    labels = make_labels()
    return replace(
        labels, metadata=replace(labels.metadata, codebook=[]), codes=torch.full_like(labels.codes, NO_LABEL)
    )


def test_labels_without_codes_keep_their_vectors(tmp_path: Path) -> None:
    labels = continuous_labels()
    loaded = load_labels(save_labels(labels, tmp_path / "latents"), with_vectors=True)
    assert_same(loaded, labels)
    assert loaded.valid.any()
    assert loaded.vectors is not None
    assert labels.vectors is not None
    assert torch.equal(loaded.vectors, labels.vectors)


def test_who_needs_codes_is_told_that_there_are_none() -> None:
    make_labels().require_codes()
    labels = continuous_labels()
    for ask in (labels.require_codes, lambda: labels.codebook):
        with pytest.raises(ValueError, match="continuous LAQ and hold vectors but no codes; write labels with a LAQ"):
            ask()


def test_codes_without_a_codebook_are_refused() -> None:
    labels = make_labels()
    with pytest.raises(ValueError, match="labels hold codes but their metadata has no codebook"):
        replace(labels, metadata=replace(labels.metadata, codebook=[]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, -1e30])
def test_vectors_that_no_quantizer_writes_are_refused(tmp_path: Path, value: float) -> None:
    labels = make_labels()
    assert labels.vectors is not None
    with pytest.raises(ValueError, match="latent vectors lie between"):
        replace(labels, vectors=torch.cat([labels.vectors[:-1], torch.full_like(labels.vectors[:1], value)]))
    codebook = [[[value, *vector[1:]] for vector in slot] for slot in labels.metadata.codebook]
    with pytest.raises(ValueError, match="codebook holds numbers that are not finite"):
        replace(labels.metadata, codebook=codebook)


def test_a_flipped_bit_in_the_table_is_noticed(tmp_path: Path) -> None:
    save_labels(make_labels(), tmp_path / "labels")
    path = tmp_path / "labels" / "labels.parquet"
    content = path.read_bytes()
    place = pq.read_metadata(path).row_group(0).column(4).data_page_offset + 60  # inside the page of the vectors
    path.write_bytes(content[:place] + bytes([content[place] ^ 0x01]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"labels\.parquet .* is damaged"):
        load_labels(tmp_path / "labels", with_vectors=True)
