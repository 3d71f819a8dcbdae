"""`dalle-flow inpaint`: a picture with a part made new, in several ways, ranked in a folder."""

from pathlib import Path
from typing import Annotated

import typer

from .flags import (
    AsJson,
    Executors,
    Flow,
    Folder,
    Metadata,
    NumImages,
    Picture,
    Quiet,
    Seed,
    Settings,
    Strength,
    Weights,
)
from .rounds import Wish, as_number, check_encoding, into_folder, opened, seed_or_random, with_option


def inpaint(
    file: Picture,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture should show.")],
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="As large as the picture: white is made new, black kept. By default what is transparent is made new.",
        ),
    ] = None,
    num_images: NumImages = 9,
    strength: Strength = None,
    seed: Seed = None,
    output: Folder = Path("inpainted"),
    executor: Executors = None,
    settings: Settings = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
    metadata: Metadata = True,
    quiet: Quiet = False,
) -> None:
    """Make a part of a picture new.

    Writes a folder as 'dalle-flow generate' does. 'dalle-flow segment' makes masks.
    """
    from ..types import InpaintRequest

    check_encoding(prompt)
    area = None if mask is None else opened(mask)[0]
    names = tuple(executor or ())
    request = InpaintRequest(opened(file)[0], prompt, area, num_images, seed_or_random(seed), executors=names)
    settings = with_option(settings, "strength", as_number(strength))
    sources = [file, *([] if mask is None else [mask])]
    into_folder(request, Wish(settings, weights, flow, as_json, metadata, quiet), output, sources=sources)
