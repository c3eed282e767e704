"""A trained foundation model as one folder that loads offline.

foundation.json      backend type and configuration, LatentSpec, fingerprint of the LAQ, extra facts
backbone/            architecture, tokenizer, chat template and image processor, as JSON
model.safetensors    every weight
README.md            the same for people, as the hub shows it
metrics.json         every held-out figure, where it was measured

The folder of a LeRobot policy of this project has the first three too, the weights of its model among the policy's own.
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

from hlrp.artefacts import COPY_AGAIN, read_json, read_weights, reading, write_weights
from hlrp.files import new_directory
from hlrp.foundation.backends import BACKENDS, FoundationBackend
from hlrp.foundation.card import foundation_card
from hlrp.foundation.code_metrics import CodeFigures
from hlrp.foundation.language import LanguageFigures
from hlrp.hub import FolderKind, fetch_folder
from hlrp.latents import LatentSpec, spec_to_dict

DESCRIPTION_FILE = "foundation.json"
WEIGHTS_FILE = "model.safetensors"
ASSETS_DIR = "backbone"
ASSET_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
    "chat_template.json",
)
"""What every backend writes into `ASSETS_DIR`."""
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
POLICY_PREFIX = "backend."
"""Begins the names of the model's weights where they lie among those of a policy."""
_FORMAT = 1


@dataclass(frozen=True)
class FoundationDescription:
    """What `foundation.json` says, without loading a weight."""

    backend: str
    config: dict[str, Any]
    spec: LatentSpec
    laq_fingerprint: str
    """Fingerprint of the LAQ whose codes the model predicts."""
    extra: dict[str, Any]
    """Facts of the training run, such as metrics and dataset."""


@dataclass(frozen=True)
class LoadedFoundation:
    """A model in evaluation mode, with its description."""

    backend: FoundationBackend
    description: FoundationDescription


def save_foundation(
    backend: FoundationBackend,
    directory: Path | str,
    *,
    laq_fingerprint: str,
    extra: Mapping[str, Any] | None = None,
    quality: CodeFigures | None = None,
    language: LanguageFigures | None = None,
    beside: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write `backend` to `directory`: complete, or not at all.

    Args:
        backend: The model.
        directory: Folder to create.
        laq_fingerprint: Fingerprint of the LAQ that made the labels.
        extra: JSON-serialisable facts to keep with the model.
        quality: Its held-out figures, for the card; None where nobody has measured them.
        language: The same frames under other instructions, for the card.
        beside: Further text files, by name, such as a report.
        overwrite: Replace an earlier checkpoint in `directory`.

    Raises:
        FileExistsError: If `directory` exists and is not to be, or is not safe to be, replaced.
    """
    with new_directory(directory, replace_if_holds=DESCRIPTION_FILE if overwrite else None) as folder:
        write_assets(backend, folder, laq_fingerprint=laq_fingerprint, extra=extra)
        write_weights(backend, folder / WEIGHTS_FILE)
        card = foundation_card(
            backend, laq_fingerprint=laq_fingerprint, extra=extra or {}, quality=quality, language=language
        )
        for name, text in {CARD_FILE: card, **(beside or {})}.items():
            (folder / name).write_text(text, encoding="utf-8")
    return Path(directory)


def write_assets(
    backend: FoundationBackend,
    folder: Path,
    *,
    laq_fingerprint: str,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write all of a checkpoint but its weights into `folder`: for a host that saves weights itself."""
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
        raise ValueError(f"{path} has format {values.get('format')!r}, expected {_FORMAT}; load it with its version")
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
    """What else `directory` may be, to end the message that it is not a foundation checkpoint."""
    for inner in ("pretrained_model", "checkpoints/last/pretrained_model"):
        if (directory / inner / DESCRIPTION_FILE).is_file():
            return f"; there is a policy in {directory / inner}, name that folder"
    if (directory / "adapter_config.json").is_file():
        return ", or a policy's folder, and this one holds adapters alone: name the policy that they were trained on"
    return ", or the folder of a policy"


def rebuild(directory: Path | str, *, overrides: Mapping[str, object] | None = None) -> LoadedFoundation:
    """The architecture of a checkpoint with weights still to be loaded: for a host that loads them itself.

    `overrides` replaces settings of training and computing, such as `freeze_backbone` or `dtype`.

    Raises:
        FileNotFoundError: If a file of the checkpoint is missing.
        ValueError: If one is damaged.
    """
    directory = Path(directory)
    description = read_description(directory)
    for name in ASSET_FILES:  # transformers and tokenizers do not always say which file they cannot read
        part = directory / ASSETS_DIR / name
        if not part.is_file():
            raise FileNotFoundError(f"{part.parent} has no {name}; {COPY_AGAIN}")
        if not read_json(part):
            raise ValueError(f"{part} holds nothing; {COPY_AGAIN}")
    backend = BACKENDS[description.backend].from_assets(
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
    """Load a checkpoint strictly, in evaluation mode; without a network where it is a folder.

    Args:
        path_or_repo_id: Folder of the checkpoint, or its name on the hub; see `hlrp.hub.fetch_folder`.
        device: Where to put the model.
        overrides: Settings of training and computing to replace; see `rebuild`.
        revision: Branch, tag or commit of the repository.
        cache_dir: Where downloads are kept.
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
    """Load a model's weights strictly, out of a file of its own or of the policy that it is a part of.

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
    missing, further = load_model(inside, str(file), strict=False)  # the policy's other weights are not expected
    wrong = sorted([*missing, *(name for name in further if name.startswith(POLICY_PREFIX))])
    if wrong:
        raise ValueError(f"the weights of the model in {file} do not fit its architecture: {', '.join(wrong)}")


def require_foundation(directory: Path | str) -> None:
    """Raise unless `directory` is the folder of a foundation model.

    Raises:
        FileNotFoundError: Saying what is expected there.
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
"""For `hlrp.hub`, as in `upload_folder(path, name, FOUNDATION_FOLDER)`."""
