"""`dalle-flow show` and `dalle-flow replay`: the recipe inside a picture, and the picture made from it again."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import StorageError, UsageError
from .flags import AsJson, Flow, Weights
from .screen import bar, printable

if TYPE_CHECKING:
    from PIL import Image

    from ..types import Recipe

Picture = Annotated[Path, typer.Argument(metavar="FILE.png", help="A picture with its recipe in it.")]


def show(
    file: Picture,
    as_json: AsJson = False,
) -> None:
    """Print the recipe inside a picture."""
    from ..images import picture_id, read_picture, recipe_of

    image = read_picture(file)
    recipe = recipe_of(image)
    if as_json:
        document = {"id": picture_id(image), "width": image.width, "height": image.height}
        print(json.dumps({**document, "recipe": json.loads(recipe.to_json())}, indent=2))
    else:
        print("\n".join(_lines(image, recipe, picture_id(image))))


def _lines(image: "Image.Image", recipe: "Recipe", identity: str) -> list[str]:
    rows = [
        ("prompt", recipe.prompt),
        ("executor", recipe.executor),
        ("seed", str(recipe.seed)),
        *((f"  {name}", json.dumps(value, ensure_ascii=False)) for name, value in recipe.options.items()),
        ("weights", recipe.weights),
        *([("parent", recipe.parent)] if recipe.parent else []),
        *((f"{name} version", number) for name, number in recipe.versions.items()),
        ("picture", f"{image.width} x {image.height}, {identity}"),
    ]
    return [f"{printable(name):<22} {printable(value)}" for name, value in rows]


def replay(
    file: Picture,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT.png", help="Where to write it.")] = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture again from its recipe.

    Says whether the pixels are the same. Exit code 0 when they are, 1 when they differ: on another machine or with
    another torch, sums may be rounded differently.
    """
    from ..images import encode_png, picture_id, read_picture, recipe_of, write_file

    image = read_picture(file)
    recipe = recipe_of(image)
    if output is not None:
        _check_writable(output)
    with bar() as line:
        line.show(f"loading {recipe.executor}")
        from ..flow.replay import replay as make_again
        from .request import engine_for

        made = make_again(engine_for(flow, weights or []), recipe)
    if output is not None:
        write_file(output, encode_png(made.image, made.recipe))
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


def _plain(image: "Image.Image") -> "Image.Image":
    """In RGB, whatever the file had; in RGBA where it is transparent anywhere."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        lowest, _ = image.getchannel("A").getextrema()
        if lowest != 255:
            return image
    return image.convert("RGB")


def _difference(one: "Image.Image", other: "Image.Image") -> str:
    from PIL import ImageChops

    if one.size != other.size:
        return f"{one.width} x {one.height} there, {other.width} x {other.height} here"
    if one.mode != other.mode:
        return "one of them is transparent in places"
    extrema = ImageChops.difference(one, other).getextrema()
    return f"by at most {max(high for _, high in extrema)} of 255"  # type: ignore[misc]


def _versions(recipe: "Recipe") -> str:
    return printable(", ".join(f"{name} {number}" for name, number in recipe.versions.items()))


def _check_writable(path: Path) -> None:
    """Before the work, not after it."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; -o takes a file for the picture", field="output")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
