"""The published weights we know by name (`index.toml`), and which of them are on this machine."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError, WeightsError
from ..settings import home
from .lock import read_lock


@dataclass(frozen=True)
class IndexFile:
    """One file to fetch."""

    names: tuple[str, ...]  # the first that is there is taken
    repo: str
    revision: str
    sha256: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class IndexEntry:
    """Weights that have a name."""

    name: str
    title: str
    kind: str  # what loads them: "dalle-bart", "vqgan" or "clip"
    repo: str
    revision: str
    licence: str
    files: tuple[IndexFile, ...]
    needs: tuple[str, ...] = ()
    parameters: int | None = None
    megabytes: int | None = None


@dataclass(frozen=True)
class WeightsStatus:
    """Named weights, and what is here of them."""

    entry: IndexEntry
    folder: Path
    state: str  # "absent", "fetched", or "incomplete": files of it are gone or damaged
    size_bytes: int  # on the disk


def index() -> dict[str, IndexEntry]:
    """All entries by name."""
    return dict(_parsed())


@cache
def _parsed() -> Mapping[str, IndexEntry]:
    text = resources.files("dalle_flow.weights").joinpath("index.toml").read_text("utf-8")
    return {name: _entry(name, table) for name, table in tomllib.loads(text).items()}


def _entry(name: str, table: dict[str, Any]) -> IndexEntry:
    here = {"repo": table["repo"], "revision": table["revision"]}
    files = []
    for given in table.pop("files"):
        names = tuple(given.pop("file"))
        elsewhere = {"repo": given["repo"], "revision": "main"} if "repo" in given else here
        files.append(IndexFile(names, **{**given, **elsewhere}))
    return IndexEntry(name=name, files=tuple(files), needs=tuple(table.pop("needs", ())), **table)


def find_entry(name: str) -> IndexEntry:
    """The entry of that name.

    Raises:
        UnknownNameError: there is none; names the nearest and all.
    """
    if name not in _parsed():
        raise UnknownNameError.of("weights", name, _parsed())
    return _parsed()[name]


def names_with_needs(name: str) -> list[str]:
    """The name, then the names of what it cannot be used without."""
    return [name, *find_entry(name).needs]


def folder_of(name: str) -> Path:
    """Where named weights are kept once fetched: a folder of that name in the weights home (DALLE_FLOW_HOME)."""
    return home() / find_entry(name).name


def list_weights() -> list[WeightsStatus]:
    """Every known name with what is on this machine; looks at sizes only, `verify` looks at contents."""
    return [status_of(entry, folder_of(name)) for name, entry in _parsed().items()]


def status_of(entry: IndexEntry, folder: Path) -> WeightsStatus:
    """What is in a folder of some named weights."""
    try:
        lock = read_lock(folder)
    except WeightsError:
        return WeightsStatus(entry, folder, "incomplete", 0)
    if lock is None:
        return WeightsStatus(entry, folder, "absent", 0)
    sizes = {name: _size(folder / name) for name in lock.files}
    whole = all(sizes[name] == noted.size for name, noted in lock.files.items())
    return WeightsStatus(entry, folder, "fetched" if whole else "incomplete", sum(sizes.values()))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
