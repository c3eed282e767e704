"""Checks of a file of weights before it is loaded: is it the file that its description was written for?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError, safe_open
from torch import nn

from hlrp.storage.artefacts import COPY_AGAIN

DOWNLOAD_AGAIN = "download the model again, or name another one"
"""Advice in messages if a file of a pretrained model is damaged."""


def weights_digest(path: Path | str) -> str:
    """SHA-256 of a file of weights, as 64 hexadecimal digits; about a second for every gigabyte."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_digest(path: Path | str, expected: str | None, *, described_by: str) -> None:
    """Raise unless the file `path` has the digest that its description stores.

    Args:
        path: File of weights.
        expected: Stored `weights_digest`; None in descriptions of earlier versions, which stored none.
        described_by: Name of the file that stores it.

    Raises:
        ValueError: If the file has another digest: it was changed after it was written, or belongs elsewhere.
    """
    if expected is not None and Path(path).is_file() and weights_digest(path) != expected:
        raise ValueError(
            f"{path} is damaged, or is not the file that the {described_by} beside it was written for (their digests "
            f"differ); {COPY_AGAIN}"
        )


def require_size_of_weights(model: nn.Module, path: Path | str, *, described_by: str) -> None:
    """Raise if `model` has more numbers than the file of its weights, before memory is taken for them.

    Args:
        model: The described architecture, or parts of it, built on the device "meta".
        path: File of weights. A file that is missing passes, since loading it gives a better message.
        described_by: Name of the file that describes the architecture.

    Raises:
        ValueError: If the file cannot be read, or is too small.
    """
    if not Path(path).is_file():
        return
    needed, held = sum(weight.numel() for weight in model.parameters()), weight_count(path)
    if needed > held:
        raise ValueError(
            f"the {described_by} beside {path} describes a model of {needed:,} weights or more, and the file holds "
            f"{held:,}; {COPY_AGAIN}"
        )


def weight_count(path: Path | str) -> int:
    """Number of weights in a safetensors file, by its header alone.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as content:
            return sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable file of weights, or is cut short; {COPY_AGAIN}") from error


@contextmanager
def unpickled_safely() -> Iterator[None]:
    """Convert the error for a pickle that holds anything but tensors to a ValueError; transformers never runs it.

    Raises:
        ValueError: If a file of weights in the block is damaged, or would run code.
    """
    try:
        yield
    except (UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(
            "a file of weights is damaged, or is a pickle that holds more than tensors, which is never run; prefer the "
            "format safetensors"
        ) from error
