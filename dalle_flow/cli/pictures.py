"""`dalle-flow show` and `dalle-flow replay`: the recipe inside a picture, and the picture made from it again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .flags import AsJson, Flow, Weights
from .rounds import opened
from .screen import bar, printable
from .target import check_target

if TYPE_CHECKING:
    from PIL import Image

    from ..types import Deep, Recipe

Picture = Annotated[Path, typer.Argument(metavar="FILE.png", help="A picture with its recipe in it.")]


def show(
    file: Picture,
    as_json: AsJson = False,
) -> None:
    """Print the recipe inside a picture."""
    from ..deep_picture import decode_deep
    from ..images import picture_id, read_by
    from ..types import as_any_depth

    image = read_by(decode_deep, file)
    recipe = _recipe_in(file, image)
    identity = picture_id(as_any_depth(image))  # as recipes of what is made from it have it
    if as_json:
        document = {"id": identity, "width": image.width, "height": image.height}
        print(json.dumps({**document, "recipe": json.loads(recipe.to_json())}, indent=2))
    else:
        print("\n".join(_lines(image, recipe, identity)))


def _recipe_in(file: Path, image: "Image.Image | Deep") -> "Recipe":
    """The recipe in the picture of a file; ReplayError names the file."""
    from ..errors import ReplayError
    from ..images import recipe_of

    try:
        return recipe_of(image)
    except ReplayError as error:
        raise ReplayError(f"{file}: {error.message}", field=error.field) from None


def _lines(image: "Image.Image | Deep", recipe: "Recipe", identity: str) -> list[str]:
    from ..types import SEEDLESS

    does = [recipe.executor] if recipe.executor == recipe.kind else [recipe.executor, recipe.kind]
    rows = [
        ("prompt", recipe.prompt),
        *([("to prompt", recipe.prompt_to)] if recipe.prompt_to is not None else []),
        ("made by", f"{', '.join(does)}{_frame(recipe)}"),
        *([] if recipe.kind in SEEDLESS else [("seed", str(recipe.seed))]),
        *((f"  {name}", json.dumps(value, ensure_ascii=False)) for name, value in recipe.options.items()),
        ("weights", recipe.weights),
        *([("parent", recipe.parent)] if recipe.parent else []),
        *([("mask", recipe.mask)] if recipe.mask else []),
        *((f"{name} version", number) for name, number in recipe.versions.items()),
        ("picture", f"{image.width} x {image.height}, {identity}"),
    ]
    return [f"{printable(name):<22} {printable(value)}" for name, value in rows]


def _frame(recipe: "Recipe") -> str:
    """`, picture 4 of 16`, counted from 1, of an interpolation."""
    return "" if recipe.frame is None else f", picture {recipe.frame[0] + 1} of {recipe.frame[1]}"


def replay(
    file: Picture,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT.png", help="Where to write it.")] = None,
    parent: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The picture it was made from, where its recipe names one.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The mask that was given for inpainting, where there was one.")
    ] = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture again from its recipe.

    What was refined, inpainted, upscaled or segmented needs the picture it was made from: --parent.

    Says whether the pixels are the same. Exit code 0 when they are, 1 when they differ: on another machine or with
    another torch, sums may be rounded differently.
    """
    from ..deep_picture import decode_deep, encode_deep
    from ..images import picture_id, read_by, write_file

    image = read_by(decode_deep, file)
    recipe = _recipe_in(file, image)
    sources = {"parent": parent, "mask": mask}
    given = {name: None if path is None else opened(path)[0] for name, path in sources.items()}
    if output is not None:
        check_target(output, sources=[path for path in sources.values() if path is not None])
    with bar() as line:
        line.show(f"loading {recipe.executor}")
        from ..flow.plan import EMBEDDED, read_plan
        from ..flow.replay import replay as make_again
        from ..registry import executor_names
        from .request import engine_for

        known = {*read_plan(flow or EMBEDDED).executors, *executor_names()}
        named = [recipe.executor] if recipe.executor in known else []  # as if --executor had named it
        made = make_again(engine_for(flow, weights or [], named, recipe.kind), recipe, **given)
    if output is not None:
        write_file(output, encode_deep(made.image, made.recipe))
    before, after = _plain(image), _plain(made.image)  # however the file keeps its pixels
    same = picture_id(before) == picture_id(after)
    if as_json:
        path = None if output is None else str(output)
        ids = {"id": picture_id(after), "original": picture_id(before)}
        print(json.dumps({"identical": same, **ids, "path": path}, indent=2))
    else:
        print("the pixels are identical" if same else f"the pixels differ: {_difference(before, after)}")
        if not same and made.recipe.versions != recipe.versions:
            print(f"made with {_versions(recipe)}; here is {_versions(made.recipe)}")
        if output is not None:
            print(f"written to {output}")
    if not same:
        raise typer.Exit(1)


def _plain(image: "Image.Image | Deep") -> "Image.Image | Deep":
    """Of 8 bits: in RGB, whatever the file had; in RGBA where it is transparent anywhere."""
    from ..types import Deep

    if isinstance(image, Deep) or image.mode.startswith("I;16"):
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        lowest, _ = image.getchannel("A").getextrema()
        if lowest != 255:
            return image
    return image.convert("RGB")


def _difference(one: Any, other: Any) -> str:
    from ..deep_picture import to_pixels

    if (one.width, one.height) != (other.width, other.height):
        return f"{one.width} x {one.height} there, {other.width} x {other.height} here"
    before, after = to_pixels(one), to_pixels(other)
    if before.dtype != after.dtype:
        return "one of them has 16 bits"
    if before.shape != after.shape:
        return "one of them is transparent in places"
    most = abs(before.astype(int) - after.astype(int)).max()
    return f"by at most {most} of {255 if before.itemsize == 1 else 65535}"


def _versions(recipe: "Recipe") -> str:
    return printable(", ".join(f"{name} {number}" for name, number in recipe.versions.items()))
