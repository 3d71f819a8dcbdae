"""`dalle-flow evaluate`: how good the embedded family is, in numbers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .flags import AsJson, Flow
from .screen import bar


def evaluate(
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Captions to draw; nine pictures are made of each.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the first picture.")] = 0,
    work: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of a training run, with its rendered scenes and its judge.")
    ] = Path(".train/s0"),
    judge: Annotated[str, typer.Option(metavar="NAME", help="Name of the judge in that folder.")] = "judge",
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Scenes to take the captions from: val or heldout.")
    ] = "val",
    sheet: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Where to write a PNG of the first pictures, unchosen.")
    ] = None,
    flow: Flow = None,
    as_json: AsJson = False,
) -> None:
    """Judge generator, ranker and codec.

    Draws captions of scenes whose contents are known and asks a trained judge whether the pictures show them: objects,
    colours, relations, counts, style and background, each with a 95 % interval. Needs the scenes and the
    judge of a training run: 'python -m dalle_flow.train scenes' and 'python -m dalle_flow.train judge' make them.
    """
    with bar() as line:
        line.show("loading")
        from ..flow.plan import EMBEDDED
        from ..train import evaluate as evaluation

        found = evaluation.evaluate(
            work,
            flow=flow or EMBEDDED,
            judge=judge,
            samples=samples,
            seed=seed,
            split=split,
            sheet=sheet,
            progress=lambda done, of: line.show("captions", done, of),
        )
    print(json.dumps(found, indent=2) if as_json else evaluation.markdown(found))
