"""The folder of one round: 00.png, 01.png, ... best first, sheet.png, and round.json, which says what belongs to it.

Rounds that are to be watched have animations too.

A round is written whole or not at all: into a hidden folder beside, then moved. A later round into the same folder
replaces the files of the earlier one, those that round.json lists and that were not changed since, and no others.
Where anybody else's file is in the way, the command refuses before any work is done; where it came while the work was
done, the round goes into a folder of its own.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StorageError, UsageError

MANIFEST = "round.json"
SHEET = "sheet.png"
OURS = re.compile(
    r"\d{2,}\.png|sheet\.png|animation\.(webp|gif)"
)  # a manifest that lists anything else is not believed


def picture_names(number: int) -> list[str]:
    """00.png, 01.png, ...: at least two digits, more where needed, so that they sort."""
    digits = max(2, len(str(number - 1)))
    return [f"{i:0{digits}d}.png" for i in range(number)]


class RoundFolder:
    """A folder made ready for a round of known size."""

    def __init__(self, path: Path, names: Sequence[str], staging: Path, sources: Sequence[Path] = ()):
        self.path = path
        self.names = [*names, SHEET]
        self._staging = staging
        self._earlier = _listed(path)
        if name := self._in_the_way():
            raise UsageError(
                f"{path / name} exists and is not a picture of an earlier round here, or was changed since; "
                "move it away, or choose another folder with -o",
                field="output",
            )
        for source in sources:
            if source.name in {*self.names, *self._earlier} and source.resolve().parent == path.resolve():
                raise UsageError(
                    f"the new round would replace {source}, which it is made from; choose another folder with -o",
                    field="output",
                )

    def save(self, round_id: str, files: Mapping[str, bytes]) -> None:
        """Write all files of the round, then replace those of the earlier one.

        Raises:
            StorageError: it could not be written, and the folder is as it was (only where the disk fails between two
                renames, some pictures are of the new round already); or somebody changed the folder meanwhile: then
                their files stay, and the new round lies in a folder of its own beside them.
        """
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = json.dumps({"round": round_id, "files": hashes}, indent=1) + "\n"
        for name, data in {MANIFEST: manifest.encode(), **files}.items():
            try:
                (self._staging / name).write_bytes(data)
            except OSError as error:
                raise _cannot("write", self.path / name, error) from None
        with _uninterrupted():
            if changed := self._changed_meanwhile():
                raise self._kept_apart(changed)
            stale = [name for name in self._earlier if name not in files and self._is_ours(name)]
            for name in (MANIFEST, *files):  # the manifest first: what is listed and not there does no harm
                try:
                    (self._staging / name).replace(self.path / name)
                except OSError as error:
                    raise _cannot("write", self.path / name, error) from None
            for name in stale:
                (self.path / name).unlink(missing_ok=True)

    def _in_the_way(self) -> str | None:
        """The first file that must not be replaced."""
        return next((n for n in self.names if os.path.lexists(self.path / n) and not self._is_ours(n)), None)

    def _changed_meanwhile(self) -> str | None:
        """The first file that was edited, or written by another run, since the round began."""
        try:
            listed = _listed(self.path)
        except UsageError:
            return MANIFEST
        return self._in_the_way() or (MANIFEST if listed != self._earlier else None)

    def _kept_apart(self, changed: str) -> StorageError:
        place = self.path / self._staging.name.removeprefix(".")
        try:
            self._staging.chmod(0o755)  # a temporary folder is private; a result is an ordinary one
            self._staging.replace(place)
        except OSError as error:
            return _cannot("write", place, error)
        return StorageError(
            f"{self.path / changed} was changed while the pictures were made, and is left as it is; they are in {place}"
        )

    def _is_ours(self, name: str) -> bool:
        if name not in self._earlier or not (self.path / name).is_file():
            return False
        try:
            return hashlib.sha256((self.path / name).read_bytes()).hexdigest() == self._earlier[name]
        except OSError:
            return False


@contextmanager
def round_folder(path: Path, names: Sequence[str], sources: Sequence[Path] = ()) -> Iterator[RoundFolder]:
    """The folder, made when missing and proved writable; when the round fails, everything made for it is removed.

    Args:
        names: of all files but the sheet and the list.
        sources: pictures that the round is made from.

    Raises:
        StorageError: the folder cannot be made or written.
        UsageError: another's file, or what the round is made from, is in the way.
    """
    if os.path.lexists(path) and not path.is_dir():
        kind = "a link to nothing" if path.is_symlink() and not path.exists() else "a file"
        raise UsageError(f"{path} is {kind}; -o takes a folder", field="output")
    made: list[Path] = []
    staging = None
    try:
        try:
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".round-", dir=path))
        except OSError as error:
            raise _cannot("write into", path, error) from None
        yield RoundFolder(path, names, staging, sources)
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # it is not empty: the round was saved
                folder.rmdir()


def _listed(path: Path) -> dict[str, str]:
    """File name -> sha256 of the files that an earlier round left here; nothing when there was none."""
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {name: str(digest) for name, digest in files.items() if OURS.fullmatch(name)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(
            f"{path / MANIFEST} is not the list of an earlier round's files; choose another folder with -o",
            field="output",
        ) from None


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cannot(what: str, path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot {what} {path}: {error.strerror or error}")
