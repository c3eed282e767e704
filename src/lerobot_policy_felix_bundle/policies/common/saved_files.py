"""Read the configuration of a saved policy, and check its file of weights, with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from draccus import ParsingError
from huggingface_hub.constants import CONFIG_NAME
from lerobot.configs import PreTrainedConfig

from hlrp.foundation.checkpoint import DESCRIPTION_FILE, read_description
from hlrp.storage.artefacts import read_json, reading
from hlrp.storage.weight_files import require_digest, weight_count


def saved_config(folder: Path, kind: str) -> Any:
    """Configuration of the policy of type `kind` that is saved in `folder`.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or of a policy of another type.
    """
    path = folder / CONFIG_NAME
    found = read_json(path).get("type")
    if found != kind:
        raise ValueError(f"{path} describes a policy of type {found!r}, expected {kind!r}; load it as what it is")
    with reading(path):
        try:
            config = PreTrainedConfig.from_pretrained(folder)
        except ParsingError as error:
            cause = error
            while isinstance(cause.__cause__, Exception):
                cause = cause.__cause__
            raise ValueError(str(cause)) from error
        config.validate_features()
    return config


def require_saved_weights(folder: Path | None, file: str) -> None:
    """Raise unless `file`, the weights of a saved policy, can be read and is the one that was saved.

    Args:
        folder: Folder of the saved policy, with the digest of its weights; None if there is none.
        file: File of weights.

    Raises:
        FileNotFoundError: If `folder` has no description.
        ValueError: If the file is damaged or another one.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is missing or no file; copy the whole folder of the policy again")
    weight_count(file)
    if folder is not None:
        require_digest(file, read_description(folder).weights_sha256, described_by=DESCRIPTION_FILE)
