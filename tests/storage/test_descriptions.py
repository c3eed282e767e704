"""Descriptions altered by hand: a wrong entry gives one ValueError that names the file, and never another exception."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hlrp.data.labels import load_labels
from hlrp.data.recordings import trained_sources
from hlrp.foundation.checkpoint import load_foundation
from hlrp.laq.checkpoint import load_laq

SAVED = Path(__file__).parents[1] / "fixtures" / "saved_by_version_0_1"
WRONG: dict[str, object] = {"null": None, "list": [], "text": "x", "negative": -1, "huge": 1e30}
IDENTITY = {"name": "a", "episodes": 3, "fps": 10.0, "lengths": "0" * 16, "duration_s": 4.0, "actions": None}
FRAMES = {"episodes": "0" * 16, "records": None, "pictures": "1" * 16}
Weights = dict[str, Tensor]


def laq_weights(folder: Path) -> Weights:
    return dict(load_laq(folder).model.state_dict())


def foundation_weights(folder: Path) -> Weights:
    return dict(load_foundation(folder).backend.state_dict())


def label_tensors(folder: Path) -> Weights:
    labels = load_labels(folder)
    return {"codes": labels.codes, "valid": labels.valid}


KINDS: list[tuple[str, str, Callable[[Path], Weights]]] = [
    ("laq", "laq.json", laq_weights),
    ("labels", "labels.json", label_tensors),
    ("foundation_qwen3vl_chat", "foundation.json", foundation_weights),
    ("foundation_smol_latent_head", "foundation.json", foundation_weights),
]


def described(folder: str, file: str) -> dict[str, Any]:
    """The description in a fixture, with the entries that this version adds."""
    values = json.loads((SAVED / folder / file).read_text())
    if file == "labels.json":
        return {**values, "frames": FRAMES, "further_cameras": []}
    return values


def places(values: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Paths of all entries of a description: of a list, only of the first one; `extra` may hold anything."""
    if path:
        yield path
    if isinstance(values, dict) and path != ("extra",):
        for name, inner in values.items():
            yield from places(inner, *path, name)
    if isinstance(values, list) and values:
        yield from places(values[0], *path, 0)


def altered(values: Any, path: tuple[str | int, ...], wrong: object) -> Any:
    copy = json.loads(json.dumps(values))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = wrong
    return copy


def outcome[T](work: Callable[[], T]) -> tuple[T | None, str]:
    """What `work` returns; None and the message, if it raises one of the errors that a loader may raise."""
    try:
        return work(), ""
    except (ValueError, FileNotFoundError) as error:
        return None, str(error)


CASES = [
    pytest.param(folder, file, load, path, id=f"{folder}-{'.'.join(map(str, path))}")
    for folder, file, load in KINDS
    for path in places(described(folder, file))
]


@pytest.fixture(scope="module")
def originals() -> dict[str, Weights]:
    return {folder: load(SAVED / folder) for folder, _, load in KINDS}


@pytest.mark.parametrize(("folder", "file", "load", "path"), CASES)
def test_a_wrong_entry_is_named_or_has_no_effect(
    originals: dict[str, Weights],
    tmp_path: Path,
    folder: str,
    file: str,
    load: Callable[[Path], Weights],
    path: tuple[str | int, ...],
) -> None:
    values = described(folder, file)
    shutil.copytree(SAVED / folder, tmp_path / folder)
    for wrong in WRONG.values():
        (tmp_path / folder / file).write_text(json.dumps(altered(values, path, wrong)))
        found, message = outcome(lambda: load(tmp_path / folder))
        if found is None:
            assert file in message, wrong
        else:
            before = originals[folder]
            assert found.keys() == before.keys(), wrong
            assert all(torch.equal(found[name], before[name]) for name in before), wrong


@pytest.mark.parametrize(
    ("folder", "file", "path", "named"),
    [
        ("laq", "laq.json", ("config", "spec", "codebook_size"), "config.spec.codebook_size must be a whole number"),
        ("laq", "laq.json", ("cameras",), "cameras must be a list"),
        ("labels", "labels.json", ("codebook", 0, 1), r"codebook\[0\]\[1\] must be a list"),
        ("labels", "labels.json", ("frames",), "frames must be a JSON object"),
        ("foundation_qwen3vl_chat", "foundation.json", ("config", "lora", "rank"), "config.lora.rank must be a whole"),
    ],
)
def test_the_message_names_file_entry_and_what_was_expected(
    tmp_path: Path, folder: str, file: str, path: tuple[str | int, ...], named: str
) -> None:
    shutil.copytree(SAVED / folder, tmp_path / folder)
    (tmp_path / folder / file).write_text(json.dumps(altered(described(folder, file), path, "x")))
    load = next(load for name, _, load in KINDS if name == folder)
    with pytest.raises(ValueError, match=rf'{re.escape(file)} .*{named}.*, got "x"'):
        load(tmp_path / folder)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("name", ["sources", "name", "held_out_episodes", "identity", *IDENTITY])
def test_what_a_quantizer_was_trained_on_is_checked_too(name: str, wrong: object) -> None:
    source: dict[str, Any] = {"name": "a", "held_out_episodes": [1], "identity": dict(IDENTITY)}
    extra: dict[str, Any] = {"sources": [source]}
    assert trained_sources(extra)[0].identity is not None
    owner = extra if name == "sources" else source if name in source and name != "episodes" else source["identity"]
    owner[name] = wrong
    found, message = outcome(lambda: trained_sources(extra))
    if found is None:
        assert name in message
    else:
        assert (name, wrong) in [
            *((text, "x") for text in ("name", "lengths", "actions")),
            *((optional, None) for optional in ("identity", "duration_s", "actions")),
            *((number, value) for number in ("episodes", "fps", "duration_s") for value in (-1, 1e30)),
            ("sources", []),
            ("held_out_episodes", []),
        ]
