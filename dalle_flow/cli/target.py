"""One picture as a command's result: whether it can be written is found out before the work, not after it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import StorageError, UsageError


def check_target(
    path: Path, flag: str = "-o", sources: Sequence[Path] = (), others: Mapping[str, Path] | None = None
) -> None:
    """Whether a PNG can be written there.

    Raises:
        UsageError: it is a folder or of another kind by its name; or is one of `sources`, which the picture is made of,
            or of `others`, what else the command writes, by flag.
        StorageError: it cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; {flag} takes a file for the picture", field="output")
    if path.suffix.lower() != ".png":
        raise UsageError(
            f"{flag} takes the name of a PNG, such as {path.stem or 'picture'}.png; got {path}", field="output"
        )
    for source in sources:
        if path.resolve() == source.resolve():
            raise UsageError(
                f"{path} is what the picture is made from; choose another name with {flag}", field="output"
            )
    for other, place in (others or {}).items():
        if path.resolve() == place.resolve():
            raise UsageError(
                f"{other} and {flag} are one file, {path}; choose another name with {flag}", field="output"
            )
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
