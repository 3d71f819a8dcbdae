"""`weights.lock`: which files lie in a folder of weights, with the hash each must have.

JSON. Written by `fetch` and `convert` when a folder is complete; `verify` holds the folder against it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import WeightsError
from .disk import Progress, read_json, sha256_of, write_json

LOCK_FILE = "weights.lock"


@dataclass(frozen=True)
class LockedFile:
    sha256: str
    size: int
    trusted: str  # who says so: "index", "hub", "first fetch", or "converted"


@dataclass(frozen=True)
class Lock:
    name: str  # in the index, or where it was converted from
    files: Mapping[str, LockedFile]
    commits: Mapping[str, str] = field(default_factory=dict)  # repository -> commit it was fetched at


def read_lock(folder: Path) -> Lock | None:
    """The lock of a folder; None where it has none.

    Raises:
        WeightsError: it is damaged.
    """
    path = folder / LOCK_FILE
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        files = {str(name): LockedFile(**noted) for name, noted in values["files"].items()}
        lock = Lock(str(values["name"]), files, dict(values.get("commits", {})))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise WeightsError(f"{path}: no lock of weights; remove it and fetch them again.") from None
    for name, file in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts or type(file.size) is not int:
            raise WeightsError(f"{path}: no lock of weights ({name!r}); remove it and fetch them again.")
    return lock


def write_lock(folder: Path, lock: Lock) -> None:
    write_json(folder / LOCK_FILE, asdict(lock))


def lock_files(folder: Path, name: str, progress: Progress | None = None) -> Lock:
    """Note all files of a folder as they are now."""
    files = {}
    for path in sorted(file for file in folder.iterdir() if file.is_file() and file.name != LOCK_FILE):
        files[path.name] = LockedFile(sha256_of(path, progress), path.stat().st_size, "converted")
    write_lock(folder, lock := Lock(name, files))
    return lock


def check_files(folder: Path, files: Mapping[str, LockedFile], progress: Progress | None = None) -> None:
    """Hold the files of a folder against what is noted of them.

    Raises:
        WeightsError: naming each that is gone, of another size, or of other content.
    """
    problems, total, done = [], sum(noted.size for noted in files.values()), 0
    for name, noted in files.items():
        path = folder / name
        here = path.stat().st_size if path.is_file() else None
        if here is None:
            problems.append(f"{name} is missing")
        elif here != noted.size:
            problems.append(f"{name} has {here} bytes, expected {noted.size}")
        elif (got := sha256_of(path, _shifted(progress, done, total))) != noted.sha256:
            problems.append(f"{name} has sha256 {got[:12]}..., expected {noted.sha256[:12]}...")
        done += noted.size
    if problems:
        raise WeightsError(f"{folder}: {'; '.join(problems)}. Fetch or convert the weights again.")


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, _total: progress(before + done, total)
