"""One file out of a zip archive, and nothing else of it.

Only the bytes of the member that was asked for are copied, to a name of ours: names, links and modes in the archive
have no effect, and how long the file may become is known before it is written.
"""

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ..errors import FetchError
from .disk import BLOCK_BYTES, sync

MOST_BYTES = 8 << 30  # of one member; weights in archives are small, the large ones come as they are
ENCRYPTED = 1  # flag bit


def extract(archive: Path, member: str, target: Path) -> None:
    """Copy the member of that name, in whatever folder of the archive, to `target`.

    Raises:
        FetchError: it is no zip archive, has no such member or several, or the member is damaged or no plain file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entry = _find(opened, member)
            done = 0
            with opened.open(entry) as source, target.open("wb") as file:
                while block := source.read(BLOCK_BYTES):
                    done += len(block)
                    if done > entry.file_size:  # said one size, has another
                        raise zipfile.BadZipFile
                    file.write(block)
                sync(file)
            if done != entry.file_size:
                raise zipfile.BadZipFile
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise FetchError(f"{member}: the archive it comes in is damaged or no zip archive; try again.") from None


def _find(opened: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    found = [entry for entry in opened.infolist() if not entry.is_dir() and _name(entry) == member]
    if len(found) != 1:
        names = ", ".join(sorted({_name(entry) for entry in opened.infolist() if not entry.is_dir()}))
        number = "several files of that name" if found else "no file of that name"
        raise FetchError(f"{member}: the archive has {number}; it has {names[:300]!r}.")
    (entry,) = found
    mode = entry.external_attr >> 16
    if entry.flag_bits & ENCRYPTED or (mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
        raise FetchError(f"{member}: is encrypted or no plain file in its archive; it is not taken.")
    if entry.file_size > MOST_BYTES:
        raise FetchError(f"{member}: would have {entry.file_size:,} bytes; at most {MOST_BYTES:,} are taken.")
    return entry


def _name(entry: zipfile.ZipInfo) -> str:
    return PurePosixPath(entry.filename).name
