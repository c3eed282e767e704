"""Quantizers on the Hugging Face hub: fetch the folder of one, upload the folder of one."""

from __future__ import annotations

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

from hlrp.laq.checkpoint import CHECKPOINT_FILES, require_checkpoint


def fetch_laq(
    path_or_repo_id: Path | str,
    *,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    token: str | bool | None = None,
) -> Path:
    """The local folder of a quantizer; a folder stays where it is, a repository comes from the hub or its cache.

    Args:
        path_or_repo_id: Folder, or name of a model repository.
        revision: Branch, tag or commit of the repository.
        cache_dir: Where downloads are kept; default: that of `huggingface_hub`.
        token: Access token of a private repository; default: the one `hf auth login` stored.

    Raises:
        FileNotFoundError: If there is neither such a folder nor such a repository.
        ConnectionError: If the hub cannot be reached and its cache does not have the repository.
    """
    if Path(path_or_repo_id).is_dir():
        return Path(path_or_repo_id)
    name = str(path_or_repo_id)
    try:
        with _plain_errors(f"no folder {name} here, and the hub did not give model {name}"):
            folder = snapshot_download(
                name, revision=revision, cache_dir=cache_dir, token=token, allow_patterns=list(CHECKPOINT_FILES)
            )
    except HFValidationError as error:
        raise FileNotFoundError(f"{name} is neither a folder nor the name of a hub repository") from error
    return Path(folder)


def upload_laq(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a latent action quantizer",
    token: str | bool | None = None,
) -> str:
    """Upload the folder of a quantizer, as `save_laq` and `hlrp-train-laq` write it, to a model repository.

    Args:
        folder: Folder of the quantizer.
        repo_id: Name of the repository; made where there is none.
        private: Visibility of a new repository; default: that of its owner's settings.
        revision: Branch; default: the main one.
        commit_message: Title of the commit.
        token: Access token; default: the one `hf auth login` stored.

    Returns:
        Address of the commit.

    Raises:
        FileNotFoundError: If `folder` is not that of a quantizer.
        ConnectionError: If the hub cannot be reached, or refuses.
    """
    require_checkpoint(folder)
    with _plain_errors(f"the hub did not take the quantizer as {repo_id}"):
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            revision=revision,
            commit_message=commit_message,
            allow_patterns=list(CHECKPOINT_FILES),
        ).commit_url


@contextmanager
def _plain_errors(failure: str) -> Iterator[None]:
    """One sentence in place of the hub library's many errors."""
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
