"""One hash for the weights an executor was loaded from, so that a recipe says which weights made a picture."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import StorageError, WeightsError
from ..settings import home
from .disk import read_json, sha256_of, write_json

REMEMBERED_BYTES = 64 * 2**20  # hashing more than that is noticed at every start, so it is remembered
WEIGHTS = (".safetensors", ".msgpack", ".pt", ".pth", ".bin", ".ckpt", ".gz", ".json", ".txt")


def weights_id(paths: Iterable[Path]) -> str:
    """sha256 (hex) over the names and contents of these files, and of the weights and tokenizers in these folders.

    Raises:
        WeightsError: a file cannot be read.
    """
    lines = []
    for path in paths:
        files = [path] if path.is_file() else sorted(f for f in path.iterdir() if f.suffix in WEIGHTS)
        lines += [f"{file.name} {_sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _sha256(path: Path) -> str:
    status = path.stat()
    if status.st_size < REMEMBERED_BYTES:
        return sha256_of(path)
    # The memory spares time and nothing else: damaged, in the way or on a full disk, it costs one more hashing.
    try:
        memory = home() / "hashes.json"
        known = read_json(memory)
    except (OSError, RuntimeError, StorageError, WeightsError):
        known = {}
    key = json.dumps([str(path.resolve()), status.st_size, status.st_mtime_ns])
    if not isinstance(known.get(key), str):
        known[key] = sha256_of(path)
        with suppress(OSError, RuntimeError, StorageError):
            write_json(home() / "hashes.json", known)
    return str(known[key])
