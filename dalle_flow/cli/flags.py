"""Options that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

Flow = Annotated[Path | None, typer.Option(metavar="FILE", help="A flow file; the embedded family when not given.")]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[EXECUTOR.]ROLE=PATH",
        help="Weights in place of the flow's: a path, or a fetched name. Options then start from the executor's own.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
