"""`dalle-flow interpolate`: a row of pictures from one prompt to another, and an animation of them."""

import re
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .flags import AsJson, Executor, Flow, Folder, Metadata, Quiet, Settings, Weights
from .rounds import Wish, check_encoding, into_folder, seed_or_random


def interpolate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the first picture should show.")],
    prompt_to: Annotated[str, typer.Argument(metavar="PROMPT_TO", help="What the last picture should show.")],
    num_images: Annotated[
        int, typer.Option("-n", "--num-images", metavar="N", help="Pictures from one to the other, 1 to 1000.")
    ] = 16,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="All pictures are drawn from it; at random when not given.")
    ] = None,
    output: Folder = Path("interpolated"),
    ms_per_frame: Annotated[
        str, typer.Option(metavar="MS", help="How long the animation shows each picture, 20 to 10000 milliseconds.")
    ] = "120",
    back: Annotated[
        bool, typer.Option("--back", help="The animation goes back again, so that it has no jump.")
    ] = False,
    gif: Annotated[bool, typer.Option("--gif", help="Write animation.gif too.")] = False,
    executor: Executor = None,
    settings: Settings = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
    metadata: Metadata = True,
    quiet: Quiet = False,
) -> None:
    """Make a row of pictures between two prompts.

    Writes 00.png, 01.png, ... in their order, sheet.png, and animation.webp, into a folder as 'dalle-flow generate'
    does.
    """
    from ..images import encode_animation
    from ..types import InterpolateRequest

    check_encoding(prompt, prompt_to)
    shown_ms = _shown_ms(ms_per_frame)
    request = InterpolateRequest(prompt, prompt_to, num_images, seed_or_random(seed), executor=executor)
    forms = {"animation.webp": "WEBP", **({"animation.gif": "GIF"} if gif else {})}
    animations = {
        name: partial(encode_animation, form=form, ms_per_frame=shown_ms, back=back) for name, form in forms.items()
    }
    into_folder(request, Wish(settings, weights, flow, as_json, metadata, quiet), output, animations=animations)


def _shown_ms(text: str) -> int:
    from ..errors import OptionError

    if not (re.fullmatch("[0-9]{1,9}", text) and 20 <= int(text) <= 10_000):
        raise OptionError(f"--ms-per-frame takes a whole number, 20 to 10000; got {text!r:.60}", field="ms_per_frame")
    return int(text)
