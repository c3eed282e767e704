"""A trained foundation model as one folder that loads offline.

foundation.json      backend type and configuration, LatentSpec, fingerprint of the LAQ, facts of the training run
backbone/            architecture, tokenizer, chat template and image processor, as JSON
model.safetensors    all weights
README.md            model card, as the hub shows it
metrics.json         all held-out metrics, if they were measured

The folder of a LeRobot policy of this project also has the first three. There, `model.safetensors` holds the weights of
the whole policy, and those of the foundation model have names that begin with `POLICY_PREFIX`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from torch import nn

from hlrp.foundation.backends import FoundationBackend, backend_class
from hlrp.foundation.config import BACKENDS
from hlrp.latents import LatentSpec, spec_to_dict
from hlrp.storage.artefacts import COPY_AGAIN, read_json, read_weights, reading, write_weights
from hlrp.storage.files import new_directory
from hlrp.storage.hub import FolderKind, fetch_folder

DESCRIPTION_FILE = "foundation.json"
WEIGHTS_FILE = "model.safetensors"
ASSETS_DIR = "backbone"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
POLICY_PREFIX = "backend."
"""Prefix of the names of the foundation model's weights in the weight file of a policy."""
_FORMAT = 1


@dataclass(frozen=True)
class FoundationDescription:
    """Content of `foundation.json`."""

    backend: str
    config: dict[str, Any]
    spec: LatentSpec
    laq_fingerprint: str
    """Fingerprint of the LAQ whose codes the model predicts."""
    extra: dict[str, Any]
    """Facts of the training run, such as dataset and metrics; plain JSON values."""


@dataclass(frozen=True)
class LoadedFoundation:
    """A foundation model with its description. `load_foundation` returns it in evaluation mode."""

    backend: FoundationBackend
    description: FoundationDescription


def write_foundation(
    backend: FoundationBackend,
    directory: Path | str,
    *,
    laq_fingerprint: str,
    extra: Mapping[str, Any] | None = None,
    beside: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint of `backend` to `directory`; an error leaves no incomplete folder behind.

    Args:
        backend: The model.
        directory: Folder to create.
        laq_fingerprint: Fingerprint of the LAQ that made the labels.
        extra: JSON-serialisable facts to keep with the model.
        beside: Content of further text files by file name, such as the model card and a report.
        overwrite: Replace an earlier checkpoint in `directory`.

    Raises:
        FileExistsError: If `directory` exists, and `overwrite` is false or the folder is no foundation checkpoint.
    """
    with new_directory(directory, replace_if_holds=DESCRIPTION_FILE if overwrite else None) as folder:
        write_assets(backend, folder, laq_fingerprint=laq_fingerprint, extra=extra)
        write_weights(backend, folder / WEIGHTS_FILE)
        for name, text in (beside or {}).items():
            (folder / name).write_text(text, encoding="utf-8")
    return Path(directory)


def write_assets(
    backend: FoundationBackend,
    folder: Path,
    *,
    laq_fingerprint: str,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write a checkpoint without its weights into `folder`, for a policy whose weights LeRobot saves."""
    description = {
        "format": _FORMAT,
        "backend": backend.backend_type,
        "config": backend.config_dict(),
        "latent_spec": spec_to_dict(backend.spec),
        "laq_fingerprint": laq_fingerprint,
        "extra": dict(extra or {}),
    }
    backend.save_assets(folder / ASSETS_DIR)
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2), encoding="utf-8")


def read_description(directory: Path | str) -> FoundationDescription:
    """Read and check `foundation.json`.

    Raises:
        FileNotFoundError: If `directory` is not a foundation checkpoint.
        ValueError: If it was written by an unknown version or backend.
    """
    directory = Path(directory)
    path = directory / DESCRIPTION_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} has no {DESCRIPTION_FILE}; expected a foundation checkpoint{_hint(directory)}"
        )
    values = read_json(path)
    if values.get("format") != _FORMAT:
        raise ValueError(f"{path} has format {values.get('format')!r}, expected {_FORMAT}; use the version it is from")
    if values.get("backend") not in BACKENDS:
        raise ValueError(f"{path} has the backend {values.get('backend')!r}, expected one of {', '.join(BACKENDS)}")
    with reading(path):
        return FoundationDescription(
            backend=values["backend"],
            config=dict(values["config"]),
            spec=LatentSpec(**values["latent_spec"]),
            laq_fingerprint=values["laq_fingerprint"],
            extra=values["extra"],
        )


def _hint(directory: Path) -> str:
    """End of the message that `directory` is no foundation checkpoint: names what the folder seems to be instead."""
    for inner in ("pretrained_model", "checkpoints/last/pretrained_model"):
        if (directory / inner / DESCRIPTION_FILE).is_file():
            return f"; there is a policy in {directory / inner}, name that folder"
    if (directory / "adapter_config.json").is_file():
        return ", or a policy's folder, and this one holds adapters alone: name the policy that they were trained on"
    return ", or the folder of a policy"


def rebuild(directory: Path | str, *, overrides: Mapping[str, object] | None = None) -> LoadedFoundation:
    """Build the architecture of a checkpoint without loading weights, for a policy whose weights LeRobot loads.

    `overrides` replaces settings of training and computing, such as `freeze_backbone` or `dtype`.

    Raises:
        FileNotFoundError: If a file of the checkpoint is missing.
        ValueError: If a file of the checkpoint is damaged.
    """
    directory = Path(directory)
    description = read_description(directory)
    kind = backend_class(description.backend)
    for name in kind.asset_files:  # transformers and tokenizers do not always say which file they cannot read
        part = directory / ASSETS_DIR / name
        if not part.is_file():
            raise FileNotFoundError(f"{part.parent} has no {name}; {COPY_AGAIN}")
        if not read_json(part):
            raise ValueError(f"{part} holds nothing; {COPY_AGAIN}")
    backend = kind.from_assets(
        directory / ASSETS_DIR, config={**description.config, **(overrides or {})}, spec=description.spec
    )
    return LoadedFoundation(backend, description)


def load_foundation(
    path_or_repo_id: Path | str,
    device: torch.device | str = "cpu",
    *,
    overrides: Mapping[str, object] | None = None,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    token: str | bool | None = None,
) -> LoadedFoundation:
    """Load a checkpoint strictly, in evaluation mode; a local folder needs no network.

    Args:
        path_or_repo_id: Folder of the checkpoint, or its name on the hub; see `fetch_folder`.
        device: Device of the model.
        overrides: Settings of training and computing to replace; see `rebuild`.
        revision: Branch, tag or commit of the repository.
        cache_dir: Folder of downloaded repositories; None uses the default of the hub's client.
        token: Access token of a private repository.

    Raises:
        FileNotFoundError: If there is no such folder or repository, or a file of the checkpoint is missing.
        ConnectionError: If the hub cannot be reached and its cache does not have the repository.
        ValueError: If a file is damaged, or the weights do not fit the architecture.
    """
    directory = fetch_folder(path_or_repo_id, FOUNDATION_FOLDER, revision=revision, cache_dir=cache_dir, token=token)
    loaded = rebuild(directory, overrides=overrides)
    weights = directory / WEIGHTS_FILE
    if not weights.is_file():
        raise FileNotFoundError(f"{directory} has no {WEIGHTS_FILE}; copy the whole folder")
    load_weights(loaded.backend, weights)
    loaded.backend.to(device).eval()
    return loaded


def load_weights(backend: nn.Module, file: Path | str) -> None:
    """Load a foundation model's weights strictly, from its own file or from the file of a policy that contains it.

    Raises:
        ValueError: If the file is damaged, or its weights do not fit the architecture.
    """
    try:
        with safe_open(file, framework="pt") as weights:
            belongs_to_policy = any(name.startswith(POLICY_PREFIX) for name in weights.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged; {COPY_AGAIN}") from error
    if not belongs_to_policy:
        read_weights(backend, file)
        return
    inside = nn.ModuleDict({POLICY_PREFIX.removesuffix("."): backend})
    # Not strict, because the file also holds the other weights of the policy; the check below is strict for this model.
    missing, further = load_model(inside, str(file), strict=False)
    wrong = sorted([*missing, *(name for name in further if name.startswith(POLICY_PREFIX))])
    if wrong:
        raise ValueError(f"the weights of the model in {file} do not fit its architecture: {', '.join(wrong)}")


def require_foundation(directory: Path | str) -> None:
    """Raise unless `directory` is the folder of a foundation model.

    Raises:
        FileNotFoundError: If a file is missing; the message names it.
    """
    read_description(directory)
    if not (Path(directory) / WEIGHTS_FILE).is_file():
        raise FileNotFoundError(f"{directory} has no {WEIGHTS_FILE}; copy the whole folder")


FOUNDATION_FOLDER = FolderKind(
    what="foundation model",
    checkpoint="foundation checkpoint",
    how_to_make="train one with hlrp-train-foundation",
    files=(DESCRIPTION_FILE, WEIGHTS_FILE, CARD_FILE, f"{ASSETS_DIR}/*"),
    require=require_foundation,
)
"""Kind of folder for `hlrp.storage.hub`, as in `upload_folder(path, name, FOUNDATION_FOLDER)`."""
