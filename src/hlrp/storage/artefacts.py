"""Read and write the files of checkpoints and labels; errors name the damaged file and say what to do."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

COPY_AGAIN = "copy the whole folder again, or make it anew"


@contextmanager
def reading(path: Path | str, *, remedy: str = COPY_AGAIN) -> Iterator[None]:
    """Convert errors inside the block, which reads the file `path`, to a ValueError that names the file.

    Args:
        path: File that is read.
        remedy: Advice at the end of the message.

    Raises:
        ValueError: If the block fails with an error of a parser, or of a constructor that gets the file's contents.
        OSError: Unchanged if the file cannot be opened, since the message already names the file.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path} has no entry {error}; {remedy}") from error
    except (ValueError, TypeError, AttributeError) as error:  # of JSON, Parquet, or a configuration
        raise ValueError(f"{path} is damaged or of another kind ({_one_line(error)}); {remedy}") from error
    except OSError as error:
        if error.filename is not None:
            raise
        raise ValueError(f"{path} is damaged ({_one_line(error)}); {remedy}") from error  # pyarrow raises OSError


def read_json(path: Path | str, *, remedy: str = COPY_AGAIN) -> dict[str, Any]:
    """Read the JSON object in the file `path`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file holds no JSON object; the message names `path`.
    """
    with reading(path, remedy=remedy):
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object, got {type(values).__name__}")
    return values


def read_weights(model: nn.Module, path: Path | str, *, remedy: str = COPY_AGAIN) -> None:
    """Load the weights in a safetensors file into `model`; names and shapes must be the same.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, or its weights do not fit `model`; the message names `path`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; {remedy}")
    try:
        load_model(model, str(path), strict=True)
    except (SafetensorError, RuntimeError) as error:  # a file cut short, or weights of other names or sizes
        raise ValueError(
            f"{path} is damaged, or its weights are not those that the files beside it describe; {remedy}"
        ) from error


def read_pickle(path: Path | str, *, expected: str) -> Any:
    """Read what `torch.save` wrote to `path`, without executing code that a pickle may contain.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, or holds anything but tensors and plain values; the message names `path` and
            what was `expected`.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, TypeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch raises EINVAL for a file cut short
            raise
        raise ValueError(f"{path} is not {expected}, or is damaged") from error


def write_weights(model: nn.Module, path: Path | str) -> None:
    """Save the weights of `model` as safetensors, with the file permissions of an ordinary new file."""
    save_model(model, str(path))
    follow_umask(path)


def follow_umask(path: Path | str) -> None:
    """Give a file the permissions of an ordinary new file; safetensors makes its files readable by the owner only."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
