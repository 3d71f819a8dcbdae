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
        metavar="FLOW",
        parser=as_flow,
        help="Name of a flow (embedded, classic, modern), or a flow file; the embedded one when not given.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[[EXECUTOR.]ROLE=]PATH",
        help="Weights in place of the flow's: a path, or a fetched name. Options then start from the executor's own. "
        "Without a role: the first role of the one --executor, or of the only one of the flow that can do it.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="[EXECUTOR.]OPTION=VALUE", help="An option; 'dalle-flow executors' lists them."),
]
Executors = Annotated[
    list[str] | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="A generator of the flow, or of those installed; may be given several times. All of the flow that can "
        "do it when not given.",
    ),
]
Executor = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="One of the flow, or of those installed; the flow's first that can by default."),
]
NumImages = Annotated[
    int, typer.Option("-n", "--num-images", metavar="N", help="Pictures of each generator, 1 to 1000.")
]
Seed = Annotated[
    int | None, typer.Option(metavar="N", help="Picture i is drawn from seed + i; at random when not given.")
]
Strength = Annotated[
    str | None,  # checked with the other options, which say what they take
    typer.Option(
        metavar="X",
        help="How much is made new: above 0, at most 1, which ignores what was there; each executor's own by default.",
    ),
]
Folder = Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the pictures go.")]
Picture = Annotated[Path, typer.Argument(metavar="FILE", help="A picture: PNG, JPEG or WebP.")]
Metadata = Annotated[bool, typer.Option("--metadata/--no-metadata", help="Whether each picture carries its recipe.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No bar; print the path of what was made alone.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
