"""Files on disk, handled so that nothing is ever left half-written and every failure says its cure.

Progress is told as (bytes done, bytes in all) to whoever asked; drawing a bar is not done here.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from ..errors import DalleFlowError, StorageError, WeightsError

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)

BLOCK_BYTES = 4 << 20
JSON_LIMIT_BYTES = 64 << 20  # a tokenizer.json of 50,000 words is 2 MB; nothing we read comes near


def storage_error(doing: str, path: Path, error: OSError) -> StorageError:
    """The StorageError for what the system refused, with the cure where one is known."""
    cures = {
        errno.ENOSPC: "the disk is full; free some space and try again",
        errno.EDQUOT: "the disk quota is used up; free some space and try again",
        errno.EACCES: "permission denied; choose a place you may use",
        errno.EPERM: "permission denied; choose a place you may use",
        errno.EROFS: "the file system is read-only; choose another place",
    }
    return StorageError(f"{path}: could not {doing}: {cures.get(error.errno or 0, error.strerror or str(error))}.")


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading; a missing one is a WeightsError, one that cannot be read a StorageError."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise WeightsError(f"{path}: there is no such file; fetch or convert the weights again.") from None
    except OSError as error:
        raise storage_error("read it", path, error) from error
    with file:
        try:
            yield file
        except OSError as error:
            raise storage_error("read it", path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    with reading(path) as file:
        data = file.read(JSON_LIMIT_BYTES + 1)
    if len(data) > JSON_LIMIT_BYTES:
        raise WeightsError(
            f"{path}: larger than {JSON_LIMIT_BYTES >> 20} MiB, which no such file is; is it the right one?"
        )
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON ({type(error).__name__}); it is damaged, fetch it again.") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: holds a JSON {type(value).__name__}, expected an object; is it the right file?")
    return value


@contextmanager
def writing(target: Path) -> Iterator[BinaryIO]:
    """A file that appears under `target` only when all of it is on the disk.

    It is written beside the target under a temporary name, synced and renamed; on any failure it is removed, and
    what was there before stays.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            sync(file)
        temporary.replace(target)
    except DalleFlowError:
        raise
    except OSError as error:
        raise storage_error("write it", target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(target: Path, value: object) -> None:
    with writing(target) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The hash of a file, as lower-case hexadecimal."""
    digest, done = hashlib.sha256(), 0
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if progress:
                progress(done, max(size, done))
    return digest.hexdigest()
