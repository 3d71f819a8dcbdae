"""Where one file of named weights comes from: the Hugging Face Hub, or a web server, perhaps inside a zip archive.

Finding asks how large it is and whether it is here already, and sends nothing; getting gives a path on this machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import FetchError
from .archive import extract
from .https import WebFile, find_on_web, forget_download, get_from_web
from .hub import HubFile, find_on_hub, get_from_hub, promised_sha256
from .index import IndexFile


@dataclass(frozen=True)
class Found:
    """A file of the index that its source has."""

    file: IndexFile
    name: str  # in the folder of the weights
    source: HubFile | WebFile

    @property
    def size(self) -> int | None:
        """Bytes to download; None: the server does not say."""
        return self.source.size

    @property
    def is_cached(self) -> bool:
        return self.source.is_cached


def find(file: IndexFile, commits: dict[str, str], *, offline: bool = False) -> Found | None:
    """What the source says about a file; None where it has none. Notes the commit of a repository in `commits`.

    Raises:
        FetchError: the source cannot be asked, or says no.
    """
    if file.url is not None:
        web = find_on_web(file.url, offline=offline)
        return Found(file, file.names[0], web) if web else None
    assert file.repo is not None
    revision = commits.get(file.repo, file.revision)  # all files of one commit, whatever happens meanwhile
    for name in file.names:
        if hub := find_on_hub(file.repo, name, revision, offline=offline):
            commits[file.repo] = hub.commit
            return Found(file, name, hub)
    return None


def get(
    found: Found, folder: Path, told: Callable[[int], None], *, offline: bool = False, again: bool = False
) -> tuple[Path, str | None]:
    """The path of the file, and the sha256 that its source promises for it, if any.

    What comes in an archive is put into `folder`; anything else lies in a cache, and is not to be changed.

    Raises:
        FetchError: it could not be had.
    """
    if isinstance(found.source, HubFile):
        path = get_from_hub(found.source, told, offline=offline, again=again)
        return path, promised_sha256(path)
    file, url = found.file, found.source.url
    path = get_from_web(url, told, again=again, pinned=file.sha256 is not None and file.member is None)
    if file.member is None:
        if file.size is not None and path.stat().st_size != file.size:
            got = path.stat().st_size
            forget(found)
            raise FetchError(f"{url}: has {got:,} bytes, published are {file.size:,}; try again.")
        return path, None
    target = folder / found.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        extract(path, file.member, target)
    except FetchError:
        forget(found)
        raise
    return target, None


def forget(found: Found) -> None:
    """Remove a damaged file from where it is kept, so that the next try gets it anew; of the hub's, the caller does."""
    if isinstance(found.source, WebFile):
        forget_download(found.source.url)
