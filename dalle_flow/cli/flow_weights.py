"""What `dalle-flow weights fetch --flow` shows and asks before it fetches: the weights that a flow needs."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from ..errors import FetchError, UsageError
from .screen import Bar, printable

if TYPE_CHECKING:
    from ..weights.index import IndexEntry

NOT_PINNED = "not pinned: nobody has told a hash yet; the first fetch notes the one it gets, later ones must match it"


@dataclass(frozen=True)
class Need:
    """Weights that a flow needs: what is known of them before they are fetched."""

    entry: "IndexEntry"
    state: str  # as `WeightsStatus.state`
    size: int | None  # bytes of all of it; None: not known
    to_fetch: int  # bytes that are known to be missing
    problem: str = ""  # why the size is not known

    def row(self) -> tuple[str, str, str, str, str]:
        entry = self.entry
        state = {"fetched": "is here", "absent": "to fetch"}.get(self.state, "to mend")
        source = places(entry) + ("" if entry.is_pinned else "; not pinned")
        return entry.name, state, readable(self.size), entry.licence, source


def needs_of(names: Iterable[str], line: Bar, *, offline: bool, again: bool) -> list[Need]:
    """What is here of these weights and how large the rest is; asks their sources where the index does not know."""
    from ..weights.fetch import download_size
    from ..weights.index import find_entry, folder_of, status_of

    found = []
    for name in names:
        line.show(f"looking at {name}")
        entry = find_entry(name)
        status = status_of(entry, folder_of(name))
        if status.state == "fetched" and not again:
            found.append(Need(entry, status.state, status.size_bytes, 0))
            continue
        size, to_fetch, problem = entry.size_bytes, entry.size_bytes or 0, ""
        if size is None:
            try:
                size, to_fetch = download_size(entry, offline=offline)
            except FetchError as error:
                problem = error.message
        state = "absent" if status.state == "fetched" else status.state
        found.append(Need(entry, state, size, to_fetch, problem))
    return found


def table(needs: list[Need]) -> str:
    """The needs as text: a row each, the total, and what there is to know."""
    rows = [("weights", "", "size", "licence", "source"), *(need.row() for need in needs)]
    wide = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:<{wide[0]}}  {state:<{wide[1]}}  {size:>{wide[2]}}  {licence:<{wide[3]}}  {source}"
        for name, state, size, licence, source in rows
    ]
    missing = [need for need in needs if need.state != "fetched"]
    total = readable(sum(need.to_fetch for need in missing))
    unknown = any(need.size is None for need in missing)
    lines.append(f"to fetch: {len(missing)} of {len(needs)}, {'at least ' if unknown else ''}{total}")
    if not all(need.entry.is_pinned for need in needs):
        lines.append(NOT_PINNED)
    lines += [f"size not known: {printable(need.problem)}" for need in needs if need.problem]
    return "\n".join(lines)


def confirm(yes: bool) -> bool:
    """Whether the person wants it; UsageError where nobody can be asked."""
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("nobody can be asked whether to fetch this: there is no terminal; add --yes", field="yes")
    return typer.confirm("fetch them?", default=False)


def places(entry: "IndexEntry") -> str:
    """Where the files come from: repositories of the hub, and servers."""
    found = [f"hub {file.repo}" if file.repo else str(urlsplit(file.url or "").hostname) for file in entry.files]
    return ", ".join(dict.fromkeys(found))


def readable(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size:,} B"
