"""`dalle-flow refine`: a picture in, ranked pictures like it in a folder out."""

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


def refine(
    file: Picture,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="PROMPT", help="What the pictures should show; the prompt in FILE's recipe by default."),
    ] = None,
    num_images: NumImages = 9,
    strength: Strength = None,
    seed: Seed = None,
    output: Folder = Path("refined"),
    executor: Executors = None,
    settings: Settings = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
    metadata: Metadata = True,
    quiet: Quiet = False,
) -> None:
    """Make ranked pictures like a given one.

    Writes a folder as 'dalle-flow generate' does. All generators take part that can refine.
    """
    from ..errors import OptionError
    from ..types import RefineRequest

    check_encoding(prompt)
    image, recipe = opened(file)
    if prompt is None and not (recipe and recipe.shows):
        raise OptionError(
            f"{file} carries no recipe with a prompt; say what the pictures should show with --prompt", field="prompt"
        )
    shows = prompt if prompt is not None else recipe.shows if recipe else ""
    request = RefineRequest(image, shows, num_images, seed_or_random(seed), executors=tuple(executor or ()))
    settings = with_option(settings, "strength", as_number(strength))
    into_folder(request, Wish(settings, weights, flow, as_json, metadata, quiet), output, sources=[file])
