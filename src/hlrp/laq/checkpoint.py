"""A trained quantizer as one folder that loads offline.

laq.json             configuration, cameras, fingerprint, and what it was trained on
model.safetensors    every weight
quality.json         the quality card, where it was measured
README.md            the same for people, as the hub shows it
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
"""A new quantizer from its configuration, by the name of its architecture in `DESCRIPTION_FILE`."""


@dataclass(frozen=True)
class LoadedLAQ:
    """A quantizer in evaluation mode, with what its folder says about it."""

    model: LatentActionQuantizer
    cameras: list[str]
    """Dataset keys of the cameras it was trained on, in the order of its channels; empty after plain videos."""
    fingerprint: str
    extra: dict[str, Any]

    def require_cameras(self, count: int) -> None:
        """Raise unless clips of `count` cameras fit.

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
        model: What to save.
        directory: Where to.
        cameras: Dataset keys of the cameras it was trained on, in the order of its channels.
        extra: What it was trained on, as plain values.
        beside: Further text files of the folder, by name, such as the quality card and the model card.
        replace: Whether it may take the place of an earlier quantizer.

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
    """Load a quantizer strictly, in evaluation mode; without a network where it is a folder.

    Args:
        path_or_repo_id: Folder of the quantizer, or its name on the hub; see `hlrp.storage.hub.fetch_folder`.
        device: Where to put it.
        revision: Branch, tag or commit of the repository.
        cache_dir: Where downloads are kept.
        token: Access token of a private repository.

    Raises:
        FileNotFoundError: If there is no such folder or repository, or it does not hold a quantizer.
        ConnectionError: If the hub cannot be reached and its cache does not have the repository.
        ValueError: If the weights are not those that the folder describes.
    """
    directory = fetch_folder(path_or_repo_id, LAQ_FOLDER, revision=revision, cache_dir=cache_dir, token=token)
    require_checkpoint(directory)
    values = read_json(directory / DESCRIPTION_FILE)
    architecture = values.get("architecture", OUR_ARCHITECTURE)  # before there was a second one, folders named none
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
        FileNotFoundError: Saying what is expected there.
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
"""For `hlrp.storage.hub`."""
