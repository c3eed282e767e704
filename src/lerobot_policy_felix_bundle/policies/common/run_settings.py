"""Settings of a `lerobot-train` command that LeRobot keeps from its policies: `resume` and `rename_map`.

Both are read as LeRobot reads them: from the flag, and from the file that `--config_path` names. A resumed run saves
`resume` as true in its train_config.json, so that the next command with this file resumes without the flag.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import draccus
from draccus.cfgparsing import load_config, parse_string
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from lerobot.configs import parser
from lerobot.configs.train import TRAIN_CONFIG_NAME
from lerobot.utils.constants import CHECKPOINTS_DIR, OBS_PREFIX, PRETRAINED_MODEL_DIR


def is_resumed() -> bool:
    """Whether this command goes on with a run of `lerobot-train`."""
    flag = _flag("resume")
    return (_config_file().get("resume") if flag is None else flag) in (True, "true")


def rename_map() -> dict[str, str]:
    """Name in the policy by the name in the dataset, for every observation that LeRobot's `rename_map` renames.

    LeRobot adds the entries of the flag to those of the file. Names that are no observation stay as they are.
    """
    maps = [one for one in (_config_file().get("rename_map"), _flag("rename_map")) if isinstance(one, dict)]
    return {name: new for one in maps for name, new in one.items() if name.startswith(OBS_PREFIX)}


def columns_by_name(dataset_meta: Any) -> dict[str, str]:
    """Columns of a dataset by the name that each has in the policy, after `rename_map`.

    Raises:
        ValueError: If two columns get the same name: LeRobot would take whichever comes last in a batch.
    """
    renamed, columns = rename_map(), {}
    for column in dataset_meta.features:
        name = renamed.get(column, column)
        if name in columns:
            raise ValueError(
                f"after --rename_map, the columns {columns[name]!r} and {column!r} of the dataset are both called "
                f"{name!r}; map the one that the policy should not see to another name"
            )
        columns[name] = column
    return columns


def _flag(name: str) -> Any | None:
    """Value of `--name` on the command line, parsed as draccus parses it; None without the flag."""
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    flags.add_argument(f"--{name}", nargs="?")
    value = getattr(flags.parse_known_args()[0], name)
    return None if value is None else parse_string(value)


def _config_file() -> dict[str, Any]:
    """Entries of the file that `--config_path` names, as a file, folder or repository on the Hub; {} without a file."""
    named = parser.parse_arg("config_path")
    if named is None:
        return {}
    path = Path(named)
    if not path.exists():
        path = _file_from_hub(named)
    elif path.is_dir():
        path = path / TRAIN_CONFIG_NAME
    if not path.is_file():
        return {}
    with draccus.config_type("json"), path.open(encoding="utf-8") as stream:
        found = load_config(stream, file=path)
    return found if isinstance(found, dict) else {}


def _file_from_hub(repo_id: str) -> Path:
    """The file that LeRobot has just downloaded: that at the root of a repository, or else of the latest checkpoint."""
    try:
        folder = Path(snapshot_download(repo_id, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return Path(repo_id)  # a command other than LeRobot's may mean something else by its `--config_path`
    of_checkpoints = folder.glob(f"{CHECKPOINTS_DIR}/[0-9]*/{PRETRAINED_MODEL_DIR}/{TRAIN_CONFIG_NAME}")
    latest = max(of_checkpoints, key=lambda file: int(file.parts[-3]), default=folder)
    at_root = folder / TRAIN_CONFIG_NAME
    return at_root if at_root.is_file() else latest
