"""One file from the Hugging Face Hub, through its own package: its cache, its login, its mirrors, its offline mode.

The environment is huggingface_hub's: HF_HOME (cache and login), HF_ENDPOINT (a mirror), HF_TOKEN, HF_HUB_OFFLINE.
Its many errors become FetchError, with what to do about each.
"""

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import FetchError

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file that is on the hub or in its cache already."""

    repo: str
    name: str
    commit: str
    size: int
    is_cached: bool


def find_on_hub(repo: str, name: str, revision: str, *, offline: bool = False) -> HubFile | None:
    """What the hub, or in offline mode its cache, says about a file; None where the repository has no such file.

    Raises:
        FetchError: the hub cannot be asked, or says no.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    try:
        found = _download(repo, name, revision, dry_run=True, local_files_only=offline)
    except RemoteEntryNotFoundError:
        return None
    except LocalEntryNotFoundError as error:
        if offline or is_offline():
            return None
        raise explain(error, repo, name, revision) from error
    except Exception as error:
        raise explain(error, repo, name, revision) from error
    return HubFile(repo, name, found.commit_hash, found.file_size or 0, found.is_cached)


def get_from_hub(file: HubFile, told: Callable[[int], None], *, offline: bool = False, again: bool = False) -> Path:
    """The path of the file in the hub's cache, downloaded if it is not there; `told` gets the bytes as they come.

    Args:
        again: download even if it is there.

    Raises:
        FetchError: as the download failed.
    """
    try:
        path = _download(
            file.repo, file.name, file.commit, tqdm_class=_bar(told), local_files_only=offline, force_download=again
        )
    except Exception as error:
        raise explain(error, file.repo, file.name, file.commit) from error
    return Path(path)


def promised_sha256(path: Path) -> str | None:
    """The hash the hub promises for a file in its cache: large files are stored under it."""
    name = path.resolve().name
    return name if SHA256.fullmatch(name) else None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _download(repo: str, name: str, revision: str, **options: Any) -> Any:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(repo, name, revision=revision, endpoint=_endpoint(), library_name="dalle-flow", **options)


def _endpoint() -> str:
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def _bar(told: Callable[[int], None]) -> type:
    """What huggingface_hub takes for a progress bar: hands the bytes on and draws nothing."""

    class Bar:
        def __init__(self, *_args: Any, total: int | None = None, initial: int = 0, **_options: Any):
            self.total, self.n = total, initial
            told(initial)

        def update(self, size: int = 1) -> None:
            self.n += size
            told(size)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        def nothing(self, *_args: Any, **_options: Any) -> None:
            pass

        close = refresh = set_postfix_str = update_transfer = set_transfer_postfix_str = nothing

    return Bar


def explain(error: Exception, repo: str, name: str, revision: str) -> FetchError:
    """A FetchError for whatever huggingface_hub raised, with its cure."""
    from huggingface_hub import constants, errors

    what = f"{repo}/{name} (revision {revision[:12]})"
    endpoint = _endpoint()
    cures: list[tuple[type[Exception] | tuple[type[Exception], ...], str]] = [
        (errors.GatedRepoError, f"its owners ask for consent; accept on {endpoint}/{repo}, then log in: hf auth login"),
        (errors.RepositoryNotFoundError, f"{endpoint} has no such repository, or it is private: hf auth login"),
        (errors.RevisionNotFoundError, "the repository has no such revision; update dalle-flow"),
        (errors.RemoteEntryNotFoundError, "the repository has no such file; update dalle-flow"),
        (errors.OfflineModeIsEnabled, "the network is forbidden by HF_HUB_OFFLINE; unset it, or give a local folder"),
        (errors.LocalEntryNotFoundError, f"{endpoint} cannot be reached; check the network, or give a local folder"),
    ]
    for kind, cure in cures:
        if isinstance(error, kind):
            return FetchError(f"{what}: {cure}.")
    response = getattr(error, "response", None)
    if response is not None:
        return FetchError(f"{what}: {endpoint} answered {response.status_code}; try again later.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FetchError(f"{what}: the disk is full; free some space in {constants.HF_HUB_CACHE}, or set HF_HOME.")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FetchError(f"{what}: {constants.HF_HUB_CACHE} cannot be written; set HF_HOME to a folder you may use.")
    if "Consistency check failed" in str(error):
        return FetchError(f"{what}: the download ended early; try again.")
    return FetchError(f"{what}: the download failed ({type(error).__name__}: {_brief(error)}); try again.")


def _brief(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
