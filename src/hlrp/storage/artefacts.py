"""Read and write the files of checkpoints and labels; errors name the damaged file and say what to do."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from hlrp.storage.files import new_directory, refuse_existing
from hlrp.storage.plain_values import from_plain
from hlrp.storage.safetensors_header import sort_metadata

COPY_AGAIN = "copy the whole folder again, or make it anew"

CURVES_FILE = "curves.csv"
"""File of the training curves in the folder of a trained model."""
LOGGER_DIRS = ("tensorboard", "wandb")
"""Folders of loggers in the folder of a trained model."""


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """A kind of folder that one stage writes and another reads: its files, how it is written, and how it is checked.

    All savers and loaders raise the same errors. FileNotFoundError: a file of the folder is missing. FileExistsError:
    there is a folder already, and it may not be replaced. ValueError: a file is damaged.
    """

    what: str
    """Name of the content in messages, such as "quantizer" or "foundation model"."""
    called: str
    """Name of the folder in messages, such as "LAQ checkpoint"."""
    how_to_make: str
    """Advice in messages if there is no such folder, such as "train one with hlrp-train-laq"."""
    description: str
    """Name of the JSON file that describes the content. Only a folder that holds this file is ever replaced, and only
    if it holds no files but those named here."""
    content: str
    """Name of the file with the content itself: weights or a table."""
    further: tuple[str, ...] = ()
    """Names or patterns of files that the folder may hold beside these two."""
    local: tuple[str, ...] = ()
    """Names of files that its stage also writes there, but that are not copied from or to the hub."""
    format: int | None = None
    """Version of the layout, which the description has as the entry `format`; None if it has no such entry."""
    remedy: str = COPY_AGAIN
    """Advice in messages if a file is damaged."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names or patterns of all files of the folder."""
        return (self.description, self.content, *self.further)

    @contextmanager
    def new(
        self, folder: Path | str, *, overwrite: bool = False, beside: Mapping[str, str] | None = None
    ) -> Iterator[Path]:
        """Yield a scratch folder that becomes `folder` if the block ends without an error; see `new_directory`.

        Args:
            folder: Folder to write.
            overwrite: Whether to replace `folder` if it is of this kind.
            beside: Content of further text files by file name, such as a model card.

        Raises:
            FileExistsError: If `folder` exists, and `overwrite` is false, it is not of this kind, or it holds other
                files, too.
        """
        with new_directory(folder, replaces=self._replaced(overwrite)) as scratch:
            yield scratch
            for name, text in (beside or {}).items():
                (scratch / name).write_text(text, encoding="utf-8")

    def refuse_existing(self, folder: Path | str, *, overwrite: bool = False) -> None:
        """Raise if `new` would refuse to write `folder`; call this before long work whose result the folder holds.

        Raises:
            FileExistsError: If `folder` exists, and `overwrite` is false, it is not of this kind, or it holds other
                files, too.
        """
        refuse_existing(folder, replaces=self._replaced(overwrite))

    def _replaced(self, overwrite: bool) -> tuple[str, ...]:
        return tuple(name.partition("/")[0] for name in (*self.files, *self.local)) if overwrite else ()

    def require(self, folder: Path | str, *names: str, hint: str = "") -> None:
        """Raise unless `folder` holds the files `names`; by default, the description and the content.

        Args:
            folder: Folder to check.
            names: Names of files, relative to `folder`.
            hint: Further advice at the end of the message.

        Raises:
            FileNotFoundError: With the first file that is missing.
        """
        for name in names or (self.description, self.content):
            path = Path(folder) / name
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path.parent} has no {path.name}, so this is not a {self.called} (expected {self.description} "
                    f"and {self.content}); {self.how_to_make}, or copy the whole folder{hint}"
                )

    def read[T](self, folder: Path | str, kind: type[T]) -> T:
        """Build a `kind`, such as a dataclass, from the description in `folder`; see `from_plain`.

        Raises:
            FileNotFoundError: If `folder` has no description.
            ValueError: If the description is damaged, or of another version; the message names the file and the entry.
        """
        self.require(folder, self.description)
        path = Path(folder) / self.description
        values = read_json(path, remedy=self.remedy)
        if values.get("format") != self.format:
            raise ValueError(
                f"{path} has format {values.get('format')!r}, expected {self.format}; use the version it is from"
            )
        with reading(path, remedy=self.remedy):
            return from_plain(kind, values)


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


def read_weights(model: nn.Module, path: Path | str, *, described_by: str, remedy: str = COPY_AGAIN) -> None:
    """Load the weights in a safetensors file into `model`; names and shapes must be the same.

    Args:
        model: Model that the file `described_by` describes.
        path: The file of weights.
        described_by: Name of the description, which may be what is wrong.
        remedy: Advice at the end of the message.

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
            f"{path} is damaged, or its weights are not those that the {described_by} beside it describes; {remedy}"
        ) from error


def read_state_dict(path: Path | str, *, expected: str) -> dict[str, Tensor]:
    """Read the state dict that `torch.save` wrote to `path`, also one in a checkpoint's entry `state_dict`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, or holds anything but tensors by name; the message names `path` and what was
            `expected`.
    """
    content = _read_pickle(path, expected=expected)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is not {expected}: it holds no state dict")
    return state


def _read_pickle(path: Path | str, *, expected: str) -> Any:
    """Read what `torch.save` wrote to `path`, without executing code that a pickle may contain.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged, or holds anything but tensors and plain values; the message names `path` and
            what was `expected`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; name {expected}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, TypeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch raises EINVAL for a file cut short
            raise
        raise ValueError(f"{path} is not {expected}, or is damaged") from error


def write_weights(model: nn.Module, path: Path | str) -> None:
    """Save the weights of `model` as safetensors, with the file permissions of an ordinary new file."""
    save_model(model, str(path))
    sort_metadata(path)
    follow_umask(path)


def follow_umask(path: Path | str) -> None:
    """Give a file the permissions of an ordinary new file; safetensors makes its files readable by the owner only."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
