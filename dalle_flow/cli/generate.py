"""`dalle-flow generate`: a prompt in, ranked pictures in a folder out."""

from pathlib import Path
from typing import Annotated

import typer

from .flags import AsJson, Executors, Flow, Folder, Metadata, NumImages, Quiet, Seed, Settings, Weights
from .rounds import Wish, check_encoding, into_folder, seed_or_random


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the pictures should show.")],
    num_images: NumImages = 9,
    seed: Seed = None,
    output: Folder = Path("out"),
    executor: Executors = None,
    settings: Settings = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
    metadata: Metadata = True,
    quiet: Quiet = False,
) -> None:
    """Make ranked pictures from a prompt.

    Writes 00.png, 01.png, ... and sheet.png, which shows all of them with their scores. A second run into the same
    folder replaces the files of the first and touches no others; round.json lists them.
    """
    from ..types import GenerateRequest

    check_encoding(prompt)
    request = GenerateRequest(prompt, num_images, seed_or_random(seed), executors=tuple(executor or ()))
    into_folder(request, Wish(settings, weights, flow, as_json, metadata, quiet), output)
