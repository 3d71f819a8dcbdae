"""Options that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer


def as_flow(text: str) -> Path:
    """The file of a flow given by its name or its file."""
    from ..flow.plan import flow_file

    return flow_file(text)


Flow = Annotated[
    Path | None,
    typer.Option(
        metavar="NAME|FILE",
        parser=as_flow,
        help="A flow of the package (embedded, classic, modern) or a flow file; the embedded one when not given.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[EXECUTOR.]ROLE=PATH",
        help="Weights in place of the flow's: a path, or a fetched name. Options then start from the executor's own.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
