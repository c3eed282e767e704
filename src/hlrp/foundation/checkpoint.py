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

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model
from torch import nn

from hlrp.foundation.backends import BackendConfig, FoundationBackend, backend_class
from hlrp.foundation.config import BACKENDS
from hlrp.latents import LatentSpec
from hlrp.storage.artefacts import (
    COPY_AGAIN,
    CURVES_FILE,
    LOGGER_DIRS,
    FolderKind,
    read_json,
    read_weights,
    reading,
    write_weights,
)
from hlrp.storage.files import write_json
from hlrp.storage.hub import fetch_folder
from hlrp.storage.plain_values import from_plain
from hlrp.storage.weight_files import require_digest, require_size_of_weights, weights_digest

DESCRIPTION_FILE = "foundation.json"
WEIGHTS_FILE = "model.safetensors"
ASSETS_DIR = "backbone"
CARD_FILE = "README.md"
METRICS_FILE = "metrics.json"
PAGE_FILE = "report.html"
POLICY_PREFIX = "backend."
"""Prefix of the names of the foundation model's weights in the weight file of a policy."""
_FORMAT = 1

FOUNDATION_FOLDER = FolderKind(
    what="foundation model",
    called="foundation checkpoint",
    how_to_make="train one with hlrp-train-foundation",
    description=DESCRIPTION_FILE,
    content=WEIGHTS_FILE,
    further=(CARD_FILE, f"{ASSETS_DIR}/*"),
    local=(METRICS_FILE, PAGE_FILE, CURVES_FILE, *LOGGER_DIRS),
    format=_FORMAT,
)
"""Kind of folder that `load_foundation` reads, as in `upload_folder(path, name, FOUNDATION_FOLDER)`."""


@dataclass(frozen=True, kw_only=True)
class FoundationDescription:
    """Content of `foundation.json`."""

    format: int = _FORMAT
    """Version of the file's layout."""
    backend: str
    """Name in `BACKENDS`."""
    config: dict[str, Any]
    """Configuration of the backend; see `BackendConfig.to_dict`."""
    latent_spec: LatentSpec
    """Geometry of the codes that the model predicts."""
    laq_fingerprint: str
    """Fingerprint of the LAQ whose codes the model predicts; "" if it is not known."""
    extra: dict[str, Any]
    """Facts of the training run, such as dataset and metrics; plain JSON values."""
    weights_sha256: str | None = None
    """`weights_digest` of the file of weights beside this file; None in checkpoints of earlier versions."""

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {self.backend!r}")
        self.require_config(self.config)

    def require_config(self, values: Mapping[str, object]) -> None:
        """Raise unless `values` are a configuration of the backend.

        Raises:
            ValueError: With the first entry that is unknown or wrong.
        """
        BackendConfig.get_choice_class(self.backend).from_dict(values)

    def cameras_in(self, cameras: Collection[str], *, dataset: str | None = None) -> list[str]:
        """Dataset keys of the cameras that the model was trained on, in the order in which it takes them.

        Datasets of one training may name their cameras differently: the names are those of `dataset` if the model was
        trained on it, or else the first ones that `cameras` has, or else those of the first dataset.

        Args:
            cameras: Cameras to choose from.
            dataset: Name of the dataset that they belong to.

        Returns:
            Keys, which `cameras` may lack; empty if the checkpoint does not say which cameras it was trained on.

        Raises:
            ValueError: If the entries of the checkpoint are no lists of names.
        """
        sources = from_plain(list[dict[str, Any]], self.extra.get("sources", []), at="extra.sources")
        by_source = [(one.get("name") == dataset, one["cameras"]) for one in sources if "cameras" in one]
        of_dataset, of_others = ([names for same, names in by_source if same is wanted] for wanted in (True, False))
        known = [
            from_plain(list[str], names, at="cameras in extra")
            for names in (*of_dataset, self.extra.get("cameras", []), *of_others)
        ]
        known = [names for names in known if names]
        return next((names for names in known if set(names) <= set(cameras)), known[0] if known else [])


@dataclass(frozen=True)
class LoadedFoundation:
    """A foundation model with its description. `load_foundation` returns it in evaluation mode."""

    backend: FoundationBackend
    description: FoundationDescription


def write_foundation(
    backend: FoundationBackend,
    folder: Path | str,
    *,
    overwrite: bool = False,
    laq_fingerprint: str,
    extra: Mapping[str, Any],
    beside: Mapping[str, str],
) -> Path:
    """Write `backend` to `folder`, completely or not at all, with further text files `beside` its own, by name.

    `hlrp.report.saving.save_foundation`, which writes the model card too, explains the other arguments.

    Raises:
        FileExistsError: If `folder` exists, and `overwrite` is false or it holds no foundation model.
    """
    with FOUNDATION_FOLDER.new(folder, overwrite=overwrite, beside=beside) as new:
        write_weights(backend, new / WEIGHTS_FILE)
        write_assets(backend, new, laq_fingerprint=laq_fingerprint, extra=extra)
    return Path(folder)


def write_assets(
    backend: FoundationBackend,
    folder: Path,
    *,
    laq_fingerprint: str,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write a checkpoint into `folder`, except for its weights, which are there already.

    LeRobot saves the weights of a policy. The digest of the file of weights is stored, so that loading can check it.
    """
    description = FoundationDescription(
        backend=backend.backend_type,
        config=backend.config_dict(),
        latent_spec=backend.spec,
        laq_fingerprint=laq_fingerprint,
        extra=dict(extra or {}),
        weights_sha256=weights_digest(folder / WEIGHTS_FILE),
    )
    backend.save_assets(folder / ASSETS_DIR)
    write_json(folder / DESCRIPTION_FILE, asdict(description))


def read_description(folder: Path | str) -> FoundationDescription:
    """Read and check `foundation.json`.

    Raises:
        FileNotFoundError: If `folder` is not a foundation checkpoint.
        ValueError: If the file is damaged, or was written by an unknown version or backend.
    """
    FOUNDATION_FOLDER.require(folder, DESCRIPTION_FILE, hint=_hint(Path(folder)))
    return FOUNDATION_FOLDER.read(folder, FoundationDescription)


def _hint(folder: Path) -> str:
    """End of the message that `folder` is no foundation checkpoint: says what the folder seems to be instead."""
    for inner in ("pretrained_model", "checkpoints/last/pretrained_model"):
        if (folder / inner / DESCRIPTION_FILE).is_file():
            return f"; there is a policy in {folder / inner}, name that folder"
    if (folder / "adapter_config.json").is_file():
        return "; it holds the adapters of a policy alone, name the policy that they were trained on"
    return "; the folder of a policy will do, too"


def rebuild(folder: Path | str, *, overrides: Mapping[str, object] | None = None) -> LoadedFoundation:
    """Build the architecture of a checkpoint without loading weights, for a policy whose weights LeRobot loads.

    `overrides` replaces settings of training and computing, such as `freeze_backbone` or `dtype`.

    Raises:
        FileNotFoundError: If a file of the checkpoint is missing.
        ValueError: If a file of the checkpoint is damaged.
    """
    folder = Path(folder)
    description = read_description(folder)
    kind = backend_class(description.backend)
    for name in kind.asset_files:  # transformers and tokenizers do not always say which file they cannot read
        part = folder / ASSETS_DIR / name
        FOUNDATION_FOLDER.require(folder, f"{ASSETS_DIR}/{name}")
        if not read_json(part):
            raise ValueError(f"{part} holds nothing; {COPY_AGAIN}")
    config = {**description.config, **(overrides or {})}
    description.require_config(config)  # before the block below, which would blame the file for a wrong override
    with reading(folder / DESCRIPTION_FILE), torch.device("meta"):
        parts = kind.large_parts(folder / ASSETS_DIR, config=config)
    if parts is not None:
        require_size_of_weights(parts, folder / WEIGHTS_FILE, described_by=f"{ASSETS_DIR}/config.json")
    with reading(folder / DESCRIPTION_FILE):
        backend = kind.from_assets(folder / ASSETS_DIR, config=config, spec=description.latent_spec)
    return LoadedFoundation(backend, description)


def load_foundation(
    folder_or_hub_id: Path | str,
    *,
    device: torch.device | str = "cpu",
    overrides: Mapping[str, object] | None = None,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    token: str | bool | None = None,
) -> LoadedFoundation:
    """Load a checkpoint strictly, in evaluation mode; a local folder needs no network.

    Args:
        folder_or_hub_id: Folder of the checkpoint, or its name on the hub; see `fetch_folder`.
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
    folder = fetch_folder(folder_or_hub_id, FOUNDATION_FOLDER, revision=revision, cache_dir=cache_dir, token=token)
    loaded = rebuild(folder, overrides=overrides)
    FOUNDATION_FOLDER.require(folder)
    require_digest(folder / WEIGHTS_FILE, loaded.description.weights_sha256, described_by=DESCRIPTION_FILE)
    load_weights(loaded.backend, folder / WEIGHTS_FILE)
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
        read_weights(backend, file, described_by=DESCRIPTION_FILE)
        return
    inside = nn.ModuleDict({POLICY_PREFIX.removesuffix("."): backend})
    # Not strict, because the file also holds the other weights of the policy; the check below is strict for this model.
    missing, further = load_model(inside, str(file), strict=False)
    wrong = sorted([*missing, *(name for name in further if name.startswith(POLICY_PREFIX))])
    if wrong:
        raise ValueError(f"the weights of the model in {file} do not fit its architecture: {', '.join(wrong)}")
