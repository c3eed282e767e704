"""A repository in the cache of `huggingface_hub`, as a download leaves it: what of the hub works without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

_COMMIT = 40 * "a"


def cache_model(folder: Path, repo_id: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put a copy of the model in `folder` into `cache`, which is used for the rest of the test; returns `repo_id`."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / _COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return repo_id
