"""One hash for the weights an executor was loaded from, so that a recipe says which weights made a picture."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ..errors import StorageError, WeightsError
from ..settings import home
from .disk import read_json, sha256_of, write_json

REMEMBERED_BYTES = 64 * 2**20  # hashing more than that is noticed at every start, so it is remembered
WEIGHTS = (".safetensors", ".msgpack", ".pt", ".pth", ".bin", ".ckpt", ".gz", ".json", ".txt", ".model")
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "bpe_*.txt.gz")


def weights_id(weights: Mapping[str, Path | Iterable[Path]]) -> str:
    """sha256 (hex) over every file's role, name and content; where the files are and in which order does not matter.

    Args:
        weights: by role a file, a folder (the weights and tokenizers right in it count), or several of these. The role
            counts because two files that change places make another picture.

    Raises:
        WeightsError: a file cannot be read.
    """
    files = {
        (role, file)
        for role, given in weights.items()
        for path in ([given] if isinstance(given, Path) else given)
        for file in (_all_in(path) if path.is_dir() else [path])
    }
    hashes = {file: _sha256(file) for file in {file for _, file in files}}  # a file may have several roles
    lines = sorted({(role, file.name, hashes[file]) for role, file in files})
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()  # JSON: no name can look like the end of a line


def beside(path: Path, *patterns: str) -> list[Path]:
    """The path and, where it is a file, those beside it that match a pattern. A folder is read as a whole anyway."""
    return [path] if path.is_dir() else [path, *files_in(path.parent, *patterns)]


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """The files right in a folder that match a pattern; what is not there is no part of the weights."""
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _all_in(folder: Path) -> list[Path]:
    return [file for file in files_in(folder, "*") if file.suffix in WEIGHTS]


def _sha256(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return sha256_of(path)  # which says what is wrong with it
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
