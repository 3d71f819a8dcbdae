"""`dalle-flow segment`: a mask of what a text names, which inpaint takes, and the thing cut out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle_flow.cli.segment import _found as told
from dalle_flow.images import picture_id, read_picture, recipe_of
from dalle_flow.types import Candidate, Recipe, RoundKind

Cli = Callable[..., Any]


def test_a_mask_with_its_recipe(round_of: Cli, photo: Path, tmp_path: Path) -> None:
    said = round_of("segment", "photo.png", "the wall", "-o", "mask.png")
    assert (said.code, said.out, said.err) == (0, "mask.png: 50.0 % of the picture is white\n", "")
    mask = read_picture(tmp_path / "mask.png")
    assert (mask.mode, mask.size) == ("L", (12, 10))
    assert [mask.getpixel((x, 5)) for x in (0, 5, 6, 11)] == [0, 0, 255, 255]
    recipe = recipe_of(mask)
    assert (recipe.kind, recipe.prompt) == (RoundKind.SEGMENT, "the wall")
    assert recipe.parent == picture_id(read_picture(photo))
    assert round_of("inpaint", "photo.png", "a door", "--mask", "mask.png", "-n", "1").code == 0


def test_inverted(round_of: Cli, photo: Path, tmp_path: Path) -> None:
    assert round_of("segment", "photo.png", "the wall", "-o", "mask.png", "--invert").code == 0
    assert read_picture(tmp_path / "mask.png").getpixel((0, 0)) == 255
    assert recipe_of(read_picture(tmp_path / "mask.png")).options == {"invert": True}


def test_nothing_found(round_of: Cli, photo: Path) -> None:
    said = round_of("segment", "photo.png", "nothing", "-o", "mask.png")
    assert (said.code, said.out) == (0, "mask.png: 0.0 % of the picture is white\n")


def test_cut_out(round_of: Cli, photo: Path, tmp_path: Path) -> None:
    said = round_of("segment", "photo.png", "the wall", "-o", "mask.png", "--cut-out", "new/cut.png")
    assert said.out.endswith("cut out: new/cut.png\n")
    cut = read_picture(tmp_path / "new" / "cut.png")
    assert (cut.mode, cut.getpixel((0, 0)), cut.getpixel((11, 0))) == ("RGBA", (20, 30, 40, 0), (200, 180, 160, 255))
    assert cut.info == {}, "no recipe of ours makes these pixels"
    assert round_of("inpaint", "new/cut.png", "a forest", "-n", "1").code == 0


def test_a_grey_mask_has_no_white_part() -> None:
    """Of a mask without a threshold."""
    image = Image.new("L", (5, 3), 102)
    recipe = Recipe("find", "none", "a wall", 0, {"thresholding_type": "none"}, kind=RoundKind.SEGMENT)
    assert told(Candidate("id", image, recipe)) == "grey by how sure it is, 40.0 % on average"
    binary = replace(recipe, options={"thresholding_type": "binary"})
    assert told(Candidate("id", image, binary)) == "0.0 % of the picture is white"


def test_json(round_of: Cli, photo: Path) -> None:
    said = round_of("segment", "photo.png", "the wall", "-o", "mask.png", "--cut-out", "cut.png", "--json")
    data = json.loads(said.out)
    assert (data["kind"], data["candidates"][0]["path"], data["cut_out"]) == ("segment", "mask.png", "cut.png")
    assert data["candidates"][0]["id"] == picture_id(read_picture(Path("mask.png")))
    assert round_of("segment", "photo.png", "the wall", "-o", "mask.png", "-q").out == "mask.png\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo.png", "-o", "mask.png"], "Missing argument"),
        (["photo.png", "x"], "Missing option"),
        (["photo.png", " ", "-o", "mask.png"], "the prompt is empty"),
        (["photo.png", "x", "-o", "photo.png"], "is what the picture is made from"),
        (["photo.png", "x", "-o", "m.png", "--cut-out", "photo.png"], "choose another name with --cut-out"),
        (
            ["photo.png", "x", "-o", "m.png", "--cut-out", "./m.png"],
            "-o and --cut-out are one file, m.png; choose another name with --cut-out",
        ),
        (["photo.png", "x", "-o", "m.png", "--invert", "--set", "invert=false"], "option 'invert' is said twice"),
        (["photo.png", "x", "-o", "m.png", "--cut-out", "c.webp"], "--cut-out takes the name of a PNG"),
        (["photo.png", "x", "-o", "m.png", "--threshold", "none"], "no option named 'thresholding_type'"),
        (
            ["photo.png", "x", "-o", "m.png", "--executor", "repeat"],
            "'repeat' is not a segmenter; segmenters are: find",
        ),
    ],
)
def test_refusals(round_of: Cli, photo: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    said = round_of("segment", *arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.yml", "photo.png"]


def test_flags_are_options_of_our_segmenter(round_of: Cli, photo: Path) -> None:
    """Its thresholds by their names; there are no weights, which is found after them."""
    arguments = ["segment", "photo.png", "x", "-o", "m.png", "--executor", "segment", "--weights", "/nowhere"]
    for kind in ("binary", "adaptive_mean", "adaptive_gaussian", "none"):
        said = round_of(*arguments, "--threshold", kind, "--invert")
        assert (said.code, "segment: no weights at /nowhere" in said.err) == (1, True), said.err
    said = round_of(*arguments, "--threshold", "none", "--set", "thresholding_type=binary")
    assert (said.code, "option 'thresholding_type' is said twice: 'none' and 'binary'" in said.err) == (2, True)
    said = round_of(*arguments, "--threshold", "some")
    assert (said.code, "option 'thresholding_type'" in said.err) == (2, True)
