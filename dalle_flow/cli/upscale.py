"""`dalle-flow upscale`: a picture in, a larger one out."""

from pathlib import Path
from typing import Annotated

import typer

from .flags import AsJson, Executor, Flow, Metadata, Picture, Quiet, Settings, Weights
from .rounds import Wish, as_number, into_file, opened, print_document, with_option
from .target import check_target


def upscale(
    file: Picture,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.png", help="Where the larger picture goes.")],
    scale: Annotated[
        str | None,
        typer.Option(metavar="X", help="How many times as wide and high; as the network was made for by default."),
    ] = None,
    executor: Executor = None,
    settings: Settings = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
    metadata: Metadata = True,
    quiet: Quiet = False,
) -> None:
    """Make a picture larger.

    Its transparency is made larger with it.
    """
    from ..types import UpscaleRequest

    image, recipe = opened(file)
    check_target(output, sources=[file])
    request = UpscaleRequest(image, recipe.shows if recipe else "", executor=executor)
    settings = with_option(settings, "scale", as_number(scale))
    finished = into_file(request, Wish(settings, weights, flow, as_json, metadata, quiet), output)
    before, after = (f"{size.width} x {size.height}" for size in (request.picture, finished.candidates[0].image))
    if as_json:
        print_document(finished, [output], {})
    else:
        print(output if quiet else f"{output}: {after}, from {before}")
