"""Gets named weights from the hub or from a folder, checks them, and puts them into the weights home: whole, or not.

The files come through huggingface_hub's cache, so what another program has fetched is used, and are linked from there
into a folder per name (copied where the disks differ). The folder appears when all its files are there and checked.

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
from .hub import HubFile, find_on_hub, get_from_hub, is_offline, promised_sha256
from .index import IndexEntry, IndexFile, find_entry, folder_of, index, status_of
from .lock import Lock, LockedFile, check_files, read_lock, write_lock

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
        source: a local folder that has the files, instead of the hub.
        offline: take them from the hub's cache only; so does HF_HUB_OFFLINE.
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
            getting.from_hub(offline or is_offline())
        else:
            getting.from_folder(Path(source))
        write_lock(building, Lock(name, getting.files, getting.commits))
    return folder


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
        self.files: dict[str, LockedFile] = {}
        self.commits: dict[str, str] = {}

    def from_hub(self, offline: bool) -> None:
        again = self.again and not offline
        found = [(file, hub) for file in self.entry.files if (hub := self._find(file, offline))]
        total = sum(hub.size for _, hub in found if again or not hub.is_cached)
        _check_space(self.building, total)
        told = _counting(self.progress, total)
        for file, hub in found:
            path = get_from_hub(hub, told, offline=offline, again=again)
            self._check(file, hub.name, path, promised_sha256(path))
            self.commits[hub.repo] = hub.commit
            _link(path, self.building / hub.name)

    def _find(self, file: IndexFile, offline: bool) -> HubFile | None:
        revision = self.commits.get(file.repo, file.revision)  # all files of one commit, whatever happens meanwhile
        for name in file.names:
            if found := find_on_hub(file.repo, name, revision, offline=offline):
                self.commits[file.repo] = found.commit
                return found
        if file.optional:
            return None
        names = " or ".join(file.names)
        if offline:
            cure = "and the network is off; fetch once with it on, or give a local folder"
            raise FetchError(f"{self.entry.name}: {names} of {file.repo} is not in the hub's cache, {cure}.")
        raise FetchError(f"{self.entry.name}: {file.repo} has no {names} at {revision[:12]}; update dalle-flow.")

    def from_folder(self, source: Path) -> None:
        if not source.is_dir():
            raise FetchError(f"{source}: there is no such folder to take {self.entry.name} from.")
        found = []
        for file in self.entry.files:
            path = next((source / name for name in file.names if (source / name).is_file()), None)
            if path:
                found.append((file, path))
            elif not file.optional:
                raise FetchError(f"{source}: has no {' or '.join(file.names)}, which {self.entry.name} needs.")
        total = sum(path.stat().st_size for _, path in found)
        _check_space(self.building, total)
        told = _counting(self.progress, total)
        for file, path in found:
            _copy(path, self.building / path.name, told)
            self._check(file, path.name, self.building / path.name, None)

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
