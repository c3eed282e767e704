"""Save and load a trained quantizer: one folder, which loads without a network.

laq.json             configuration, cameras, fingerprint, and a description of the training
model.safetensors    all weights
quality.json         metrics on held-out clips, if they were measured
README.md            model card for the hub: configuration, training and metrics as text
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hlrp.laq.lapa.config import lapa_config_from_description
from hlrp.laq.lapa.model import LapaQuantizer
from hlrp.laq.model import LatentActionQuantizer, config_from_description
from hlrp.storage.artefacts import COPY_AGAIN, read_json, read_weights, reading, write_weights
from hlrp.storage.files import new_directory, write_json
from hlrp.storage.hub import FolderKind, fetch_folder

DESCRIPTION_FILE = "laq.json"
WEIGHTS_FILE = "model.safetensors"
QUALITY_FILE = "quality.json"
CARD_FILE = "README.md"
CHECKPOINT_FILES = (DESCRIPTION_FILE, WEIGHTS_FILE, QUALITY_FILE, CARD_FILE)

OUR_ARCHITECTURE = "hlrp"
ARCHITECTURES: dict[str, Callable[[dict[str, Any]], LatentActionQuantizer]] = {
    OUR_ARCHITECTURE: lambda values: LatentActionQuantizer(config_from_description(values)),
    "lapa": lambda values: LapaQuantizer(lapa_config_from_description(values)),
}
"""For each architecture named in `laq.json`: a function from the stored configuration to a new quantizer."""


@dataclass(frozen=True)
class LoadedLAQ:
    """A loaded quantizer in evaluation mode, with the description from its folder."""

    model: LatentActionQuantizer
    cameras: list[str]
    """Dataset keys of the cameras of the training data, in the order of the channels; empty for plain videos."""
    fingerprint: str
    """`LatentActionQuantizer.fingerprint` of the model."""
    extra: dict[str, Any]
    """Description of the training as plain values, such as the data sources and their held-out episodes."""

    def require_cameras(self, count: int) -> None:
        """Raise unless the quantizer takes clips of `count` cameras.

        Raises:
            ValueError: If the quantizer was trained on another number of cameras.
        """
        expected = self.model.config.num_cameras
        if count != expected:
            raise ValueError(f"this LAQ was trained on {expected} cameras, got {count}; name {expected} with cameras")


def write_laq(
    model: LatentActionQuantizer,
    directory: Path | str,
    *,
    cameras: Sequence[str],
    extra: Mapping[str, object],
    beside: Mapping[str, str],
    replace: bool = False,
) -> Path:
    """Write `model` to `directory`, completely or not at all.

    Args:
        model: Quantizer to save.
        directory: Folder to write.
        cameras: Dataset keys of the cameras of the training data, in the order of the channels.
        extra: Description of the training as plain values for JSON.
        beside: Further text files of the folder, by name, such as the quality card and the model card.
        replace: Whether to replace `directory` if it already holds a quantizer.

    Raises:
        FileExistsError: If `directory` exists and may not be replaced.
    """
    with new_directory(directory, replace_if_holds=DESCRIPTION_FILE if replace else None) as folder:
        write_weights(model, folder / WEIGHTS_FILE)
        for name, text in beside.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_json(
            folder / DESCRIPTION_FILE,
            {
                "architecture": model.architecture,
                "fingerprint": model.fingerprint(),
                "config": model.description(),
                "cameras": list(cameras),
                "extra": dict(extra),
            },
        )
    return Path(directory)


def load_laq(
    path_or_repo_id: Path | str,
    device: torch.device | str = "cpu",
    *,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    token: str | bool | None = None,
) -> LoadedLAQ:
    """Load a quantizer strictly, in evaluation mode. A local folder loads without a network.

    Args:
        path_or_repo_id: Folder of the quantizer, or name of its repository on the hub (see `fetch_folder`).
        device: Device of the loaded model.
        revision: Branch, tag or commit of the repository.
        cache_dir: Folder for downloads from the hub.
        token: Access token of a private repository.

    Raises:
        FileNotFoundError: If the folder or repository does not exist, or holds no quantizer.
        ConnectionError: If the hub cannot be reached and the repository is not in the local cache.
        ValueError: If a file is damaged, the architecture is unknown, or the fingerprint does not match the weights.
    """
    directory = fetch_folder(path_or_repo_id, LAQ_FOLDER, revision=revision, cache_dir=cache_dir, token=token)
    require_checkpoint(directory)
    values = read_json(directory / DESCRIPTION_FILE)
    architecture = values.get("architecture", OUR_ARCHITECTURE)  # the first folders name no architecture
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"{directory} holds a {architecture!r} quantizer; this version knows {', '.join(ARCHITECTURES)}: install a "
            "newer one"
        )
    with reading(directory / DESCRIPTION_FILE):
        model = ARCHITECTURES[architecture](values["config"])
        loaded = LoadedLAQ(model, values["cameras"], values["fingerprint"], values["extra"])
    read_weights(model, directory / WEIGHTS_FILE)
    if model.fingerprint() != loaded.fingerprint:
        raise ValueError(
            f"the weights in {directory / WEIGHTS_FILE} do not match the {DESCRIPTION_FILE} beside it; {COPY_AGAIN}"
        )
    model.to(device).eval()
    return loaded


def require_checkpoint(directory: Path | str) -> None:
    """Raise unless `directory` is the folder of a quantizer.

    Raises:
        FileNotFoundError: If `laq.json` or `model.safetensors` is missing.
    """
    if not all((Path(directory) / name).is_file() for name in (DESCRIPTION_FILE, WEIGHTS_FILE)):
        raise FileNotFoundError(
            f"{directory} is not a LAQ checkpoint (expected {DESCRIPTION_FILE} and {WEIGHTS_FILE}); train one with "
            "hlrp-train-laq"
        )


LAQ_FOLDER = FolderKind(
    what="quantizer",
    checkpoint="LAQ checkpoint",
    how_to_make="train one with hlrp-train-laq",
    files=CHECKPOINT_FILES,
    require=require_checkpoint,
)
"""Names, files and check of a quantizer's folder, for downloads and uploads by `hlrp.storage.hub`."""
