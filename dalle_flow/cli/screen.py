"""What the terminal shows: text made safe to print, and progress on stderr."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

JOINERS = "\u200c\u200d"  # zero-width joiners: part of Persian words and of many emoji, and harmless
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, direction overrides, half characters, line ends


def printable(text: str) -> str:
    """The text on one line without anything that a terminal obeys; such characters are shown as escapes."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in UNSAFE and c not in JOINERS else c
        for c in text
    )


class Bar:
    """One line on stderr: what is being done and how far; nothing when stderr is not a terminal or quiet is asked."""

    def __init__(self, progress: Any):
        self._progress = progress
        self._line = progress.add_task("", total=None)

    def show(self, doing: str, done: int = 0, of: int | None = None) -> None:
        """`of` None: nobody knows how long it takes."""
        self._progress.update(self._line, description=doing, completed=done, total=of)

    def warn(self, message: str) -> None:
        """A warning above the bar, that stays; shown whether there is a bar or not."""
        text = f"warning: {printable(message)}"
        self._progress.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


@contextmanager
def bar(*, quiet: bool = False, in_bytes: bool = False) -> Iterator[Bar]:
    """A progress bar that is gone when the work is done. `in_bytes`: its numbers are bytes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *([DownloadColumn(), TransferSpeedColumn()] if in_bytes else [TaskProgressColumn()]),
        TimeElapsedColumn(),
    ]
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        yield Bar(progress)
