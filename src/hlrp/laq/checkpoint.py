"""Save and load a trained quantizer: one folder, which loads without a network.

laq.json             configuration, cameras, fingerprint, and a description of the training
model.safetensors    all weights
quality.json         metrics on held-out clips, if they were measured
README.md            model card for the hub: configuration, training and metrics as text
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hlrp.laq.config import LAQConfig
from hlrp.laq.lapa.config import LapaConfig
from hlrp.laq.lapa.model import LapaQuantizer
from hlrp.laq.model import LatentActionQuantizer
from hlrp.storage.artefacts import (
    COPY_AGAIN,
    CURVES_FILE,
    LOGGER_DIRS,
    FolderKind,
    read_weights,
    reading,
    write_weights,
)
from hlrp.storage.files import write_json
from hlrp.storage.hub import fetch_folder
from hlrp.storage.plain_values import from_plain
from hlrp.storage.weight_files import require_size_of_weights

DESCRIPTION_FILE = "laq.json"
WEIGHTS_FILE = "model.safetensors"
QUALITY_FILE = "quality.json"
CARD_FILE = "README.md"

LAQ_FOLDER = FolderKind(
    what="quantizer",
    called="LAQ checkpoint",
    how_to_make="train one with hlrp-train-laq",
    description=DESCRIPTION_FILE,
    content=WEIGHTS_FILE,
    further=(QUALITY_FILE, CARD_FILE),
    local=(CURVES_FILE, *LOGGER_DIRS),
)
"""Kind of folder that `load_laq` reads, as in `upload_folder(path, name, LAQ_FOLDER)` of `hlrp.storage.hub`."""

OUR_ARCHITECTURE = "hlrp"
ARCHITECTURES: dict[str, tuple[type[LAQConfig] | type[LapaConfig], type[LatentActionQuantizer]]] = {
    OUR_ARCHITECTURE: (LAQConfig, LatentActionQuantizer),
    "lapa": (LapaConfig, LapaQuantizer),
}
"""Classes of configuration and quantizer of each architecture that `laq.json` can name."""


@dataclass(frozen=True, kw_only=True)
class _Description:
    """Content of `laq.json`."""

    architecture: str = OUR_ARCHITECTURE
    """Name in `ARCHITECTURES`; the first folders name none."""
    fingerprint: str
    config: dict[str, Any]
    cameras: list[str]
    extra: dict[str, Any]


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

    def require_cameras(self, cameras: Sequence[str]) -> None:
        """Raise unless the quantizer takes clips of `cameras`, in this order; empty for a plain video.

        Cameras of another dataset may have other names.

        Raises:
            ValueError: If the quantizer was trained on another number of cameras, or on these in another order.
        """
        expected, count = self.model.config.num_cameras, max(len(cameras), 1)
        if sorted(cameras) == sorted(self.cameras) and list(cameras) != self.cameras:
            raise ValueError(
                f"this LAQ was trained on the cameras {', '.join(self.cameras)}, in this order, got "
                f"{', '.join(cameras)}; name them in its order, or none"
            )
        if count != expected:
            raise ValueError(f"this LAQ was trained on {expected} cameras, got {count}; name {expected} with cameras")


def write_laq(
    model: LatentActionQuantizer,
    folder: Path | str,
    *,
    overwrite: bool = False,
    cameras: Sequence[str],
    extra: Mapping[str, object],
    beside: Mapping[str, str],
) -> Path:
    """Write `model` to `folder`, completely or not at all, with further text files `beside` its own, by name.

    `hlrp.report.saving.save_laq`, which writes the model card too, explains the other arguments.

    Raises:
        FileExistsError: If `folder` exists, and `overwrite` is false or it holds no quantizer.
    """
    description = _Description(
        architecture=model.architecture,
        fingerprint=model.fingerprint(),
        config=model.description(),
        cameras=list(cameras),
        extra=dict(extra),
    )
    with LAQ_FOLDER.new(folder, overwrite=overwrite, beside=beside) as new:
        write_weights(model, new / WEIGHTS_FILE)
        write_json(new / DESCRIPTION_FILE, asdict(description))
    return Path(folder)


def load_laq(
    folder_or_hub_id: Path | str,
    *,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    token: str | bool | None = None,
) -> LoadedLAQ:
    """Load a quantizer strictly, in evaluation mode. A local folder loads without a network.

    Args:
        folder_or_hub_id: Folder of the quantizer, or name of its repository on the hub (see `fetch_folder`).
        device: Device of the loaded model.
        revision: Branch, tag or commit of the repository.
        cache_dir: Folder for downloads from the hub.
        token: Access token of a private repository.

    Raises:
        FileNotFoundError: If the folder or repository does not exist, or holds no quantizer.
        ConnectionError: If the hub cannot be reached and the repository is not in the local cache.
        ValueError: If a file is damaged, the architecture is unknown, or the fingerprint does not match the weights.
    """
    folder = fetch_folder(folder_or_hub_id, LAQ_FOLDER, revision=revision, cache_dir=cache_dir, token=token)
    LAQ_FOLDER.require(folder)
    description = LAQ_FOLDER.read(folder, _Description)
    path = folder / DESCRIPTION_FILE
    if description.architecture not in ARCHITECTURES:
        raise ValueError(
            f"{path} holds a {description.architecture!r} quantizer; this version knows {', '.join(ARCHITECTURES)}: "
            "install a newer one"
        )
    config_class, quantizer_class = ARCHITECTURES[description.architecture]
    with reading(path):
        config = from_plain(config_class, description.config, at="config")
        if description.cameras and len(description.cameras) != config.num_cameras:
            raise ValueError(f"cameras names {len(description.cameras)}, config.num_cameras says {config.num_cameras}")
        with torch.device("meta"):
            parts = quantizer_class.large_parts(config)
    require_size_of_weights(parts, folder / WEIGHTS_FILE, described_by=DESCRIPTION_FILE)
    with reading(path):
        model = quantizer_class(config)
    read_weights(model, folder / WEIGHTS_FILE, described_by=DESCRIPTION_FILE)
    if model.fingerprint() != description.fingerprint:
        raise ValueError(
            f"the weights in {folder / WEIGHTS_FILE} do not match the {DESCRIPTION_FILE} beside it; {COPY_AGAIN}"
        )
    model.to(device).eval()
    return LoadedLAQ(model, description.cameras, description.fingerprint, description.extra)
