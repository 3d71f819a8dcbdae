"""`dalle-flow segment`: a picture and what to find in it; a mask of it out, and the thing cut out when asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .flags import AsJson, Executor, Flow, Metadata, Picture, Quiet, Settings, Weights
from .rounds import Wish, check_encoding, into_file, opened, print_document, with_option
from .target import check_target

if TYPE_CHECKING:
    from PIL import Image

    from ..types import Candidate


def segment(
    file: Picture,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to find in the picture.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MASK.png", help="Where the mask goes.")],
    cut_out: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write the picture too, transparent where the mask is black."),
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="White where it is not.")] = False,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="How sureness becomes black and white: binary, adaptive_mean, adaptive_gaussian, or none for grey.",
        ),
    ] = None,
    executor: Executor = None,
    settings: Settings = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
    metadata: Metadata = True,
    quiet: Quiet = False,
) -> None:
    """Find in a picture what a text names.

    Writes a mask as large as the picture, white where it is: what 'dalle-flow inpaint' makes new.
    """
    from ..images import cut_out as cut
    from ..images import encode_png
    from ..types import SegmentRequest

    check_encoding(prompt)
    request = SegmentRequest(opened(file)[0], prompt, executor=executor)
    check_target(output, sources=[file])
    more = {}
    if cut_out is not None:
        check_target(cut_out, "--cut-out", [file], {"-o": output})

        def encode(masks: "Sequence[Image.Image]") -> bytes:
            return encode_png(cut(request.picture, masks[0]))

        more = {cut_out: encode}
    settings = with_option(settings, "invert", invert or None)
    settings = with_option(settings, "thresholding_type", threshold)
    finished = into_file(request, Wish(settings, weights, flow, as_json, metadata, quiet), output, more)
    if as_json:
        print_document(finished, [output], {} if cut_out is None else {"cut_out": cut_out})
    elif quiet:
        print(output)
    else:
        print(f"{output}: {_found(finished.candidates[0])}")
        if cut_out is not None:
            print(f"cut out: {cut_out}")


def _found(mask: "Candidate") -> str:
    """How much was found: the white part, or of a mask that was left grey how sure the segmenter is."""
    from PIL.ImageStat import Stat

    from ..types import white_share

    if mask.recipe.options.get("thresholding_type") == "none":
        return f"grey by how sure it is, {Stat(mask.image).mean[0] / 2.55:.1f} % on average"
    return f"{100 * white_share(mask.image):.1f} % of the picture is white"
