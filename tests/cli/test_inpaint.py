"""`dalle-flow inpaint`: what the mask keeps is kept to the pixel; masks that say nothing are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle_flow.images import picture_id, read_picture
from dalle_flow.types import Recipe, RoundKind

Cli = Callable[..., Any]


@pytest.fixture
def mask(photo: Path) -> Path:
    """White in the left half."""
    image = Image.new("L", (12, 10))
    image.paste(255, (0, 0, 6, 10))
    image.save(photo.with_name("mask.png"))
    return photo.with_name("mask.png")


@pytest.mark.parametrize("number", [1, 5, 6])
def test_a_part_is_made_new(
    round_of: Cli, photo: Path, mask: Path, tmp_path: Path, recipes_in: Callable[[str], list[Recipe]], number: int
) -> None:
    said = round_of("inpaint", "photo.png", "a top hat", "--mask", "mask.png", "-n", str(number), "--strength", "1")
    assert (said.code, said.err) == (0, "")
    made = recipes_in("inpainted")
    assert len(made) == number
    for recipe in made:
        assert (recipe.kind, recipe.prompt, recipe.options["strength"]) == (RoundKind.INPAINT, "a top hat", 1.0)
        assert (recipe.parent, recipe.mask) == (picture_id(read_picture(photo)), picture_id(read_picture(mask)))
    for path in (tmp_path / "inpainted").glob("[0-9]*.png"):
        right, whole = read_picture(path).crop((6, 0, 12, 10)), read_picture(photo)
        assert right.tobytes() == whole.crop((6, 0, 12, 10)).tobytes()
        assert read_picture(path).tobytes() != whole.tobytes()


def test_what_is_transparent_is_made_new(round_of: Cli, photo: Path, mask: Path, tmp_path: Path) -> None:
    image = read_picture(photo)
    image.putalpha(read_picture(mask).point([255 - value for value in range(256)]))
    image.save(tmp_path / "hole.png")
    arguments = ["a top hat", "-n", "2", "--seed", "7"]
    assert round_of("inpaint", "hole.png", *arguments, "-o", "one").code == 0
    assert round_of("inpaint", "photo.png", *arguments, "--mask", "mask.png", "-o", "two").code == 0
    for name in ("00.png", "01.png"):
        assert read_picture(tmp_path / "one" / name).tobytes() == read_picture(tmp_path / "two" / name).tobytes()


def test_the_mask_is_not_replaced_either(round_of: Cli, picture: Path, photo: Path) -> None:
    said = round_of("inpaint", "photo.png", "a hat", "--mask", "out/02.png", "-o", "out", "-n", "1")
    assert said.code == 2
    assert (picture.parent / "02.png").exists()


def save(path: Path, image: Image.Image) -> list[str]:
    image.save(path)
    return ["--mask", path.name]


@pytest.mark.parametrize(
    ("mask_", "message"),
    [
        (None, "there is no mask, and no part of the picture is transparent; give a mask"),
        (Image.new("L", (12, 9), 255), "the mask is 12 x 9 and the picture 12 x 10; they must be of one size"),
        (
            Image.new("L", (12, 10), 0),
            "the mask is black; white is made new, black is kept: there is nothing to make new",
        ),
        (Image.new("1", (12, 10), 0), "there is nothing to make new"),
        (
            Image.new("L", (12, 10), 127),
            "no pixel of the mask is white, which is made new: its brightest is 127 of 255, and 128 or more counts as",
        ),
        (Image.new("RGBA", (12, 10), (255, 255, 255, 9)), "the mask is transparent in places"),
    ],
)
def test_refused_masks(round_of: Cli, photo: Path, tmp_path: Path, mask_: Image.Image | None, message: str) -> None:
    arguments = [] if mask_ is None else save(tmp_path / "m.png", mask_)
    said = round_of("inpaint", "photo.png", "a hat", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert message in said.err
    assert not (tmp_path / "inpainted").exists()


def test_a_mask_that_is_not_there(round_of: Cli, photo: Path) -> None:
    said = round_of("inpaint", "photo.png", "a hat", "--mask", "none.png")
    assert (said.code, "none.png: No such file" in said.err) == (2, True)


@pytest.mark.parametrize(("alpha", "code"), [(127, 0), (128, 2)])
def test_what_counts_as_transparent(round_of: Cli, photo: Path, alpha: int, code: int) -> None:
    image = read_picture(photo)
    image.putalpha(alpha)
    image.save(photo)
    said = round_of("inpaint", "photo.png", "a hat", "-n", "1")
    assert said.code == code, said.err
    if code:
        assert "the clearest has an alpha of 128, and up to 127 counts as transparent" in said.err
