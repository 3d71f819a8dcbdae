"""`dalle-flow refine`: pictures like a given one, by its own prompt or another, that never replace what they are of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle_flow.images import encode_png, picture_id, read_picture
from dalle_flow.types import Recipe, RoundKind

Cli = Callable[..., Any]
Recipes = Callable[[str], list[Recipe]]


@pytest.mark.parametrize("number", [1, 5, 6, 36])
def test_exactly_as_many_as_asked_for(round_of: Cli, picture: Path, recipes_in: Recipes, number: int) -> None:
    said = round_of("refine", "out/01.png", "-n", str(number), "--seed", "7")
    assert (said.code, said.err) == (0, "")
    which = f"{number} pictures, best first: refined/00.png to" if number > 1 else "1 picture: refined/00.png"
    assert said.out.startswith(which)
    made = recipes_in("refined")
    assert {recipe.seed for recipe in made} == set(range(7, 7 + number))
    assert len(made) == number
    for recipe in made:
        assert (recipe.kind, recipe.prompt) == (RoundKind.REFINE, "a fox"), "the prompt of the picture's recipe"
        assert recipe.parent == picture_id(read_picture(picture))


def test_strength_and_settings(round_of: Cli, picture: Path, recipes_in: Recipes) -> None:
    arguments = ["refine", "out/01.png", "-n", "1", "--strength", "0.5"]
    assert round_of(*arguments).code == 0
    assert recipes_in("refined")[0].options["strength"] == 0.5
    assert round_of(*arguments, "--set", "noise.strength=0.25", "--set", "contrast=0.5").code == 0
    assert [recipes_in("refined")[0].options[name] for name in ("strength", "contrast")] == [0.25, 0.5]
    assert round_of("refine", "out/01.png", "-n", "1", "--strength", "1").code == 0


def test_a_picture_without_a_recipe_needs_a_prompt(round_of: Cli, photo: Path, recipes_in: Recipes) -> None:
    said = round_of("refine", "photo.png")
    assert (said.code, said.out) == (2, "")
    assert "photo.png carries no recipe with a prompt; say what the pictures should show with --prompt" in said.err
    assert round_of("refine", "photo.png", "--prompt", "a dog", "-n", "2").code == 0
    assert {recipe.prompt for recipe in recipes_in("refined")} == {"a dog"}


def test_of_an_upscaled_picture_the_prompt_goes_on(round_of: Cli, picture: Path, recipes_in: Recipes) -> None:
    assert round_of("upscale", "out/01.png", "-o", "large.png").code == 0
    assert round_of("refine", "large.png", "-n", "1").code == 0
    assert recipes_in("refined")[0].prompt == "a fox"


def test_json(round_of: Cli, picture: Path) -> None:
    data = json.loads(round_of("refine", "out/01.png", "-n", "2", "--seed", "7", "--json").out)
    assert (data["kind"], data["seed"], data["sheet"]) == ("refine", 7, "refined/sheet.png")
    assert data["request"]["picture"] == picture_id(read_picture(picture))
    assert [candidate["path"] for candidate in data["candidates"]] == ["refined/00.png", "refined/01.png"]
    for candidate in data["candidates"]:
        assert picture_id(read_picture(Path(candidate["path"]))) == candidate["id"]


def test_quiet_and_without_metadata(round_of: Cli, picture: Path) -> None:
    said = round_of("refine", "out/01.png", "-n", "1", "-q", "--no-metadata", "-o", "b")
    assert said.out == "b/sheet.png\n"
    assert read_picture(Path("b/00.png")).info == {}


@pytest.mark.parametrize("given", ["out/01.png", "out/02.png", "./out/../out/01.png"])
def test_never_replaces_what_it_is_made_from(round_of: Cli, picture: Path, tmp_path: Path, given: str) -> None:
    """Also what would only be removed, for the new round has fewer pictures."""
    before = {path.name: path.read_bytes() for path in picture.parent.iterdir()}
    said = round_of("refine", given, "-n", "2", "-o", "out")
    assert said.code == 2
    assert f"the new round would replace {Path(given)}, which it is made from" in said.err
    assert {path.name: path.read_bytes() for path in picture.parent.iterdir()} == before


def test_another_picture_in_the_folder_may_be_given(round_of: Cli, picture: Path, photo: Path) -> None:
    photo.rename(picture.parent / "photo.png")
    assert round_of("refine", "out/photo.png", "--prompt", "a dog", "-n", "1", "-o", "out").code == 0
    assert (picture.parent / "photo.png").exists()


def test_a_picture_from_a_camera(round_of: Cli, photo: Path, tmp_path: Path) -> None:
    """Held upright: the file lies on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).save(tmp_path / "photo.jpg", exif=exif)
    assert round_of("refine", "photo.jpg", "--prompt", "a dog", "-n", "1").code == 0
    assert read_picture(tmp_path / "refined" / "00.png").size == (10, 12)


def test_a_transparent_picture_is_told(round_of: Cli, photo: Path, tmp_path: Path) -> None:
    image = read_picture(photo).convert("RGBA")
    image.putpixel((3, 3), (0, 0, 0, 0))
    (tmp_path / "clear.png").write_bytes(encode_png(image))
    said = round_of("refine", "clear.png", "--prompt", "a dog", "-n", "1")
    assert (said.code, said.err) == (0, "warning: the picture is transparent in places, which are taken for white\n")


BAD: dict[str, tuple[list[str], int, str]] = {
    "no file": ([], 2, "Missing argument"),
    "missing file": (["none.png"], 2, "none.png: No such file"),
    "a folder": (["out"], 2, "out: Is a directory"),
    "no picture": (["all.yml", "--prompt", "x"], 2, "all.yml: not a picture of a kind that is read here"),
    "strength 0": (["out/01.png", "--strength", "0"], 2, "option 'strength': got 0; it takes number > 0 <= 1"),
    "strength 1.5": (["out/01.png", "--strength", "1.5"], 2, "option 'strength': got 1.5; it takes number > 0 <= 1"),
    "strength nan": (["out/01.png", "--strength", "nan"], 2, "option 'strength': got 'nan'; it takes number > 0 <= 1"),
    "strength inf": (["out/01.png", "--strength", "inf"], 2, "option 'strength': got 'inf'; it takes number > 0 <= 1"),
    "strength abc": (["out/01.png", "--strength", "abc"], 2, "option 'strength': got 'abc'; it takes number > 0 <= 1"),
    "strength twice": (
        ["out/01.png", "--strength", ".5", "--set", "strength=0.3"],
        2,
        "option 'strength' is said twice: '0.5' and '0.3'; say it once, by its flag or by --set",
    ),
    "empty prompt": (["out/01.png", "--prompt", " "], 2, "the prompt is empty"),
    "half a character": (["out/01.png", "--prompt", "a \udcff"], 2, "the prompt is not valid UTF-8"),
    "none": (["out/01.png", "-n", "0"], 2, "num_images must be 1 to 1000, got 0"),
    "seed": (["out/01.png", "--seed", "-1"], 2, "seed must be 0 to"),
    "cannot": (["out/01.png", "--executor", "dalle"], 2, "'dalle' cannot refine; noise can"),
    "an upscaler": (["out/01.png", "--executor", "repeat"], 2, "'repeat' is not a generator; generators are: noise"),
    "unknown": (["out/01.png", "--executor", "noize"], 2, "no executor named 'noize'; did you mean 'noise'?"),
    "option of another": (["out/01.png", "--set", "repeat.scale=2"], 2, "'repeat' is not asked to refine"),
    "unknown option": (
        ["out/01.png", "--set", "strenght=1"],
        2,
        "no option named 'strenght'; did you mean 'strength'?",
    ),
    "failing": (["out/01.png", "--set", "fail_at=1"], 1, "the noise ran out"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(round_of: Cli, picture: Path, tmp_path: Path, case: str) -> None:
    arguments, code, message = BAD[case]
    said = round_of("refine", *arguments)
    assert (said.code, said.out) == (code, ""), said.err
    assert message in said.err
    assert said.err.startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.yml", "out"], "something was left behind"
