"""The published weights we know by name (`index.toml`), and which of them are on this machine.

A name can stand wherever weights are asked for, on the command line and in flow files: `place_of` is that rule.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import OptionError, UnknownNameError, WeightsError
from ..settings import home
from .lock import read_lock


@dataclass(frozen=True)
class IndexFile:
    """One file to fetch: from a repository of the Hugging Face Hub, or from a web server."""

    names: tuple[str, ...]  # in the folder, such as "unet/config.json"; of the hub's, the first that is there is taken
    repo: str | None = None  # on the hub
    revision: str = "main"
    url: str | None = None  # of a file on a web server, where it is not on the hub
    member: str | None = None  # what is wanted of the zip archive at `url`
    sha256: str | None = None  # of the file in the folder
    size: int | None = None  # bytes of the file in the folder
    optional: bool = False


@dataclass(frozen=True)
class IndexEntry:
    """Weights that have a name."""

    name: str
    title: str
    kind: str  # what loads them: "dalle-bart", "vqgan", "clip", ...
    licence: str
    files: tuple[IndexFile, ...]
    repo: str | None = None
    revision: str | None = None
    needs: tuple[str, ...] = ()
    parameters: int | None = None
    megabytes: int | None = None

    @property
    def size_bytes(self) -> int | None:
        """Of the whole download, where it is known."""
        if self.megabytes is not None:
            return self.megabytes * 1_000_000
        sizes = [file.size for file in self.files if not file.optional]
        return sum(size for size in sizes if size) if all(sizes) else None

    @property
    def is_pinned(self) -> bool:
        """Whether somebody vouches for the weights before they are here: our index, or the hub for its large files.

        Only files of a web server without a hash are nobody's: the first fetch then decides what they are.
        """
        return all(file.repo or file.sha256 for file in self.files)


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
    here = {key: table[key] for key in ("repo", "revision") if key in table}
    files = []
    for given in table.pop("files"):
        names = tuple(given.pop("file"))
        source = {} if "repo" in given or "url" in given else here
        files.append(IndexFile(names, **source, **given))
    return IndexEntry(name=name, files=tuple(files), needs=tuple(table.pop("needs", ())), **table)


def find_entry(name: str) -> IndexEntry:
    """The entry of that name.

    Raises:
        UnknownNameError: there is none; names the nearest and all.
    """
    if name not in _parsed():
        raise UnknownNameError.of("weights", name, _parsed())
    return _parsed()[name]


def names_with_needs(names: Iterable[str]) -> list[str]:
    """The names, each followed by the names of what it cannot be used without; none twice."""
    return list(dict.fromkeys(need for name in names for need in (name, *find_entry(name).needs)))


def folder_of(name: str) -> Path:
    """Where named weights are kept once fetched: a folder of that name in the weights home (DALLE_FLOW_HOME)."""
    return home() / find_entry(name).name


def name_in(text: str) -> str | None:
    """The known name that a text begins with, as "dalle-mega" and "glid3-xl/bert.pt" do; None where it is a path."""
    name = text.partition("/")[0]
    return name if name in _parsed() else None


def place_of(text: str, folder: Path = Path()) -> Path:
    """Where the weights are that a text means: NAME or NAME/FILE of weights known by name, or else a path.

    A known name always means the fetched weights, whatever lies in the folder: "./dalle-mega" is the path.

    Args:
        folder: what a relative path is relative to.

    Raises:
        OptionError: the text is neither: it is empty, has `~` of somebody unknown, or leads out of the named weights.
    """
    name = name_in(text)
    inside = PurePosixPath(text.partition("/")[2]) if name else PurePosixPath()
    try:
        if not text or "\0" in text or inside.is_absolute() or ".." in inside.parts:
            raise ValueError
        return folder_of(name) / inside if name else folder / Path(text).expanduser()
    except (ValueError, RuntimeError):  # RuntimeError: ~somebody who has no home here
        raise OptionError(f"must be a path or the name of weights, got {text!r:.60}", field="weights") from None


def name_at(path: Path) -> str | None:
    """The name of the known weights whose folder a path is in, or would be once fetched; None for other paths."""
    try:
        name = path.relative_to(home()).parts[0]
    except (ValueError, IndexError):
        return None
    return name if name in _parsed() else None


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
