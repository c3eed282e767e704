"""Download and upload folders of models from and to the Hugging Face hub, with one-sentence error messages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hlrp.storage.artefacts import FolderKind

logger = logging.getLogger(__name__)


def fetch_folder(
    folder_or_hub_id: Path | str,
    kind: FolderKind,
    *,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    token: str | bool | None = None,
) -> Path:
    """Local folder of a model: `folder_or_hub_id` itself if it is a folder, else a download from the hub or its cache.

    Args:
        folder_or_hub_id: Folder, or name (owner/name) of a model repository on the hub.
        kind: Kind of the model folder.
        revision: Branch, tag or commit of the repository.
        cache_dir: Folder for downloads; default: the cache of `huggingface_hub`.
        token: Access token of a private repository; default: the token stored by `hf auth login`.

    Raises:
        FileNotFoundError: If there is neither such a folder nor such a repository.
        ConnectionError: If the hub cannot be reached and the repository is not in the local cache.
    """
    if Path(folder_or_hub_id).is_dir():
        return Path(folder_or_hub_id)
    name = str(folder_or_hub_id)
    neither = (
        f"{name} is not a {kind.called} ({kind.how_to_make}): it is neither a folder nor the name of a hub repository"
    )
    if name.count("/") != 1 or Path(name).exists():  # a repository is called owner/name
        raise FileNotFoundError(neither)
    logger.info(f"no folder {name} here; taking the {kind.what} {name} from the hub or its cache")
    try:
        with _plain_errors(f"no folder {name} here, and the hub did not give model {name} ({kind.how_to_make})"):
            folder = snapshot_download(
                name, revision=revision, cache_dir=cache_dir, token=token, allow_patterns=list(kind.files)
            )
    except HFValidationError as error:
        raise FileNotFoundError(neither) from error
    return Path(folder)


def upload_folder(
    folder: Path | str,
    repo_id: str,
    kind: FolderKind,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload the folder of a model to a model repository.

    Args:
        folder: Folder of the model.
        repo_id: Name of the repository, which is created if it does not exist.
        kind: Kind of the model folder.
        private: Whether a new repository is private; default: as in its owner's settings.
        revision: Branch; default: the main branch.
        commit_message: Title of the commit.
        token: Access token; default: the token stored by `hf auth login`.

    Returns:
        Address of the commit.

    Raises:
        FileNotFoundError: If `folder` is not of this kind.
        ConnectionError: If the hub cannot be reached, or refuses the upload.
    """
    kind.require(folder)
    with _plain_errors(f"the hub did not take the {kind.what} as {repo_id}"):
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            revision=revision,
            commit_message=commit_message or f"Upload a {kind.what}",
            allow_patterns=list(kind.files),
        ).commit_url


@contextmanager
def _plain_errors(failure: str) -> Iterator[None]:
    """Convert the errors of the hub library inside the block to built-in errors, with `failure` and a hint."""
    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        message = f"{failure}: no such repository or revision, or it is private; check the name and `hf auth login`"
        raise FileNotFoundError(message) from error
    except LocalTokenNotFoundError as error:
        raise ConnectionError(f"{failure}: nobody is logged in; run `hf auth login`") from error
    except HfHubHTTPError as error:
        raise ConnectionError(
            f"{failure}: it answered {error.response.status_code}; check your access to it"
        ) from error
    except (httpx.HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        message = f"{failure}: it cannot be reached; check the network and HF_HUB_OFFLINE, or use a local folder"
        raise ConnectionError(message) from error
