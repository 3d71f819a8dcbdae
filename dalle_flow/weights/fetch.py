"""Gets named weights from where they are published or from a folder, checks them, and puts them into the weights home.

The files of the Hugging Face Hub come through huggingface_hub's cache, so what another program has fetched is used;
those of other servers come by `https.py`. They are linked into a folder per name (copied where the disks differ), which
appears when all its files are there and checked: whole, or not.

Whom we trust, best first: the hash in our index; the hash the hub promises for large files; what the first fetch got,
noted in `weights.lock`, which later fetches and `verify` must match. `trusted` in that file says which it was.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FetchError, OptionError, UnknownNameError, WeightsError
from .disk import BLOCK_BYTES, Progress, sha256_of, storage_error, sync
from .hub import is_offline
from .index import IndexEntry, IndexFile, find_entry, folder_of, index, status_of
from .lock import Lock, LockedFile, check_files, read_lock, write_lock
from .sources import Found, find, forget, get

SPARE_BYTES = 64 << 20  # left free on the disk
BY_INDEX, BY_HUB, BY_FIRST = "index", "hub", "first fetch"


def fetch(
    name: str,
    folder: str | Path | None = None,
    *,
    source: str | Path | None = None,
    offline: bool = False,
    again: bool = False,
    progress: Progress | None = None,
    checking: Progress | None = None,
) -> Path:
    """Make sure that named weights are on this machine.

    Args:
        folder: where to; None: a folder of that name in the weights home.
        source: a local folder that has the files, instead of where they are published.
        offline: take them from the caches of this machine only; so does HF_HUB_OFFLINE.
        again: fetch even if they are there.
        progress: told the bytes fetched.
        checking: told the bytes of the file being checked, from 0 for each.

    Returns:
        The folder.

    Raises:
        UnknownNameError: the index has no such name.
        OptionError: the folder has other things in it.
        FetchError: it could not be had, or is not what it should be. The folder is as it was before.
    """
    entry = find_entry(name)
    folder = Path(folder) if folder else folder_of(name)
    if not again and status_of(entry, folder).state == "fetched":
        return folder
    known = read_lock(folder)
    if known is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OptionError(f"folder {folder} has other files in it; choose one that is new or empty.", field="folder")
    with _building(folder) as building:
        getting = _Getting(entry, building, known, again, progress, checking)
        if source is None:
            getting.from_sources(offline or is_offline())
        else:
            getting.from_folder(Path(source))
        write_lock(building, Lock(name, getting.files, getting.commits))
    getting.tidy()
    return folder


def download_size(entry: IndexEntry, *, offline: bool = False) -> tuple[int | None, int]:
    """Bytes of all files of named weights, and how many of them would have to be downloaded; asks their sources.

    The first is None where a source does not say, the second then counts the others.

    Raises:
        FetchError: a source cannot be asked, or does not have what is needed.
    """
    found = _find_all(entry, {}, offline or is_offline())
    sizes = [one.size for one in found]
    return None if None in sizes else sum(filter(None, sizes)), sum(one.size or 0 for one in found if not one.is_cached)


def verify(name_or_folder: str | Path, progress: Progress | None = None) -> Lock:
    """Read all files of named weights, or of a folder that was fetched or converted, and check their hashes.

    Returns:
        What was checked: every file with its hash and who vouches for it.

    Raises:
        UnknownNameError: neither a name nor a folder.
        WeightsError: a file is gone or changed, or there is nothing to hold the folder against.
    """
    folder = Path(name_or_folder)
    if str(name_or_folder) in index():
        folder = folder_of(str(name_or_folder))
    elif not folder.is_dir():
        raise UnknownNameError.of("weights", str(name_or_folder), index())
    lock = read_lock(folder)
    if lock is None:
        raise WeightsError(f"{folder}: was not fetched or converted here, so no hashes are known; fetch it by name.")
    if entry := index().get(lock.name):
        for file in entry.files:
            for name in lock.files.keys() & set(file.names):
                if file.sha256 and lock.files[name].sha256 != file.sha256:
                    raise WeightsError(f"{folder / name}: is not the published file; fetch the weights again.")
    check_files(folder, lock.files, progress)
    return lock


class _Getting:
    """One fetch: what it has got so far."""

    def __init__(
        self,
        entry: IndexEntry,
        building: Path,
        known: Lock | None,
        again: bool,
        progress: Progress | None,
        checking: Progress | None,
    ):
        self.entry = entry
        self.building = building
        self.known = known
        self.again = again
        self.progress = progress
        self.checking = checking
        self.found: list[Found] = []
        self.files: dict[str, LockedFile] = {}
        self.commits: dict[str, str] = {}

    def from_sources(self, offline: bool) -> None:
        again = self.again and not offline
        self.found = _find_all(self.entry, self.commits, offline)
        total = sum(one.size or 0 for one in self.found if again or not one.is_cached)
        _check_space(self.building, total)
        told = _counting(self.progress, total)
        for one in self.found:
            path, promised = get(one, self.building, told, offline=offline, again=again)
            try:
                self._check(one.file, one.name, path, promised)
            except FetchError:
                forget(one)
                raise
            if path != self.building / one.name:
                _link(path, self.building / one.name)

    def tidy(self) -> None:
        """What web servers sent is kept until all of it is here; the hub's cache is not ours."""
        for one in self.found:
            forget(one)

    def from_folder(self, source: Path) -> None:
        if not source.is_dir():
            raise FetchError(f"{source}: there is no such folder to take {self.entry.name} from.")
        found = []
        for file in self.entry.files:
            name = next((name for name in file.names if (source / name).is_file()), None)
            if name:
                found.append((file, name))
            elif not file.optional:
                raise FetchError(f"{source}: has no {' or '.join(file.names)}, which {self.entry.name} needs.")
        total = sum((source / name).stat().st_size for _, name in found)
        _check_space(self.building, total)
        told = _counting(self.progress, total)
        for file, name in found:
            _copy(source / name, self.building / name, told)
            self._check(file, name, self.building / name, None)

    def _check(self, file: IndexFile, name: str, path: Path, promised: str | None) -> None:
        """Hold a file against the hash it should have, and note it."""
        known = self.known.files.get(name) if self.known else None
        got = sha256_of(path, self.checking)
        if file.sha256 and got != file.sha256:
            _drop(path)
            raise FetchError(f"{name} of {self.entry.name}: has sha256 {got}, published is {file.sha256}; try again.")
        if promised and got != promised:
            _drop(path)
            cure = f"was damaged on its way (sha256 {got}, not {promised}); try again"
            raise FetchError(f"{name} of {self.entry.name}: {cure}.")
        if known and got != known.sha256:
            raise FetchError(
                f"{name} of {self.entry.name}: has changed since it was first fetched "
                f"(sha256 {got}, was {known.sha256}). To take the new one, remove the folder of these weights first."
            )
        trusted = BY_INDEX if file.sha256 else BY_HUB if promised else known.trusted if known else BY_FIRST
        self.files[name] = LockedFile(got, path.stat().st_size, trusted)


def _find_all(entry: IndexEntry, commits: dict[str, str], offline: bool) -> list[Found]:
    """What the sources have of some named weights; FetchError where something is missing that is not optional."""
    all_found = []
    for file in entry.files:
        if found := find(file, commits, offline=offline):
            all_found.append(found)
        elif not file.optional:
            raise _missing(entry, file, offline)
    return all_found


def _missing(entry: IndexEntry, file: IndexFile, offline: bool) -> FetchError:
    names = " or ".join(file.names)
    if offline and file.repo:
        cure = "and the network is off; fetch once with it on, or give a local folder"
        return FetchError(f"{entry.name}: {names} of {file.repo} is not in the hub's cache, {cure}.")
    if offline:
        return FetchError(f"{entry.name}: {names} is not here, and the network is off; fetch once with it on.")
    if file.repo:
        return FetchError(f"{entry.name}: {file.repo} has no {names} at {file.revision[:12]}; update dalle-flow.")
    cure = "update dalle-flow, or get the file elsewhere and give its folder with --from"
    return FetchError(f"{entry.name}: there is no {names} at {file.url} any more; {cure}.")


@contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when all went well, and goes away when not.

    Where `folder` is a link, that of which it is one: the link stays, and the new folder is on the same disk.
    """
    folder = folder.resolve()
    building = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        yield building
        if folder.exists():
            folder.rename(before)
        building.rename(folder)
    except OSError as error:
        raise FetchError(storage_error("put the weights there", folder, error).message) from error
    finally:
        if before.exists() and not folder.exists():
            before.rename(folder)
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def _check_space(building: Path, size: int) -> None:
    free = shutil.disk_usage(building).free
    if size and free < size + SPARE_BYTES:
        need, have = (size + SPARE_BYTES) / 1e9, free / 1e9
        raise FetchError(f"{building.parent}: {need:.2f} GB are needed, {have:.2f} GB are free; free some space.")


def _counting(progress: Progress | None, total: int) -> Callable[[int], None]:
    """Adds up what comes in pieces. A download that has to begin anew takes its pieces back."""
    done = 0

    def told(size: int) -> None:
        nonlocal done
        done += size
        if progress:
            progress(min(done, total), total)

    return told


def _link(path: Path, target: Path) -> None:
    """The file under another name, without a copy where the disk allows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:
        _copy(path, target, lambda size: None)


def _copy(path: Path, target: Path, told: Callable[[int], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as old, target.open("wb") as new:
        while block := old.read(BLOCK_BYTES):
            new.write(block)
            told(len(block))
        sync(new)


def _drop(path: Path) -> None:
    """Remove a damaged file, from the hub's cache also what it is a link to, so that the next try gets it anew."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
