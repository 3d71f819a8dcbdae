"""`dalle-flow interpolate`: a row of pictures in its order, and animations of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle_flow.types import Recipe

Cli = Callable[..., Any]
Recipes = Callable[[str], list[Recipe]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", [1, 5, 6, 36])
def test_a_row_in_its_order(round_of: Cli, tmp_path: Path, recipes_in: Recipes, number: int) -> None:
    said = round_of("interpolate", "a red heart", "a blue moon", "-n", str(number), "--seed", "7", "-o", "morph")
    assert (said.code, said.err) == (0, "")
    which = f"{number} pictures, in order: morph/00.png to" if number > 1 else "1 picture: morph/00.png (seed 7)"
    assert said.out.startswith(which)
    assert said.out.endswith("animation: morph/animation.webp\nsheet: morph/sheet.png\n")
    assert [recipe.frame for recipe in recipes_in("morph")] == [(i, number) for i in range(number)]
    with Image.open(tmp_path / "morph" / "animation.webp") as animation:
        assert getattr(animation, "n_frames", 1) == number


def test_sixteen_by_default(round_of: Cli, recipes_in: Recipes) -> None:
    assert round_of("interpolate", "a", "b").code == 0
    assert len(recipes_in("interpolated")) == 16


def test_a_gif_too_and_back_again(round_of: Cli, tmp_path: Path) -> None:
    said = round_of("interpolate", "a", "b", "-n", "5", "--gif", "--back", "--ms-per-frame", "50", "--json")
    data = json.loads(said.out)
    assert data["animation.webp"] == "interpolated/animation.webp"
    assert data["animation.gif"] == "interpolated/animation.gif"
    for name in ("animation.webp", "animation.gif"):
        with Image.open(tmp_path / "interpolated" / name) as animation:
            assert animation.n_frames == 8  # type: ignore[attr-defined]
            animation.seek(3)
            animation.load()
            assert animation.info["duration"] == 50


def test_a_later_round_takes_the_animation_away(round_of: Cli, tmp_path: Path) -> None:
    assert round_of("interpolate", "a", "b", "-n", "3", "--gif", "-o", "out").code == 0
    assert names(tmp_path / "out") == [
        *("00.png", "01.png", "02.png", "animation.gif", "animation.webp", "round.json", "sheet.png")
    ]
    assert round_of("interpolate", "a", "b", "-n", "2", "-o", "out").code == 0
    assert names(tmp_path / "out") == ["00.png", "01.png", "animation.webp", "round.json", "sheet.png"]
    assert round_of("generate", "a", "-n", "1", "-o", "out").code == 0
    assert names(tmp_path / "out") == ["00.png", "round.json", "sheet.png"]


@pytest.mark.parametrize("name", ["animation.webp", "animation.gif"])
def test_anothers_animation_is_not_replaced(round_of: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"mine")
    said = round_of("interpolate", "a", "b", "-n", "1", "--gif", "-o", "out")
    assert said.code == 2
    assert f"out/{name} exists and is not a picture of an earlier round" in said.err
    assert round_of("generate", "a", "-n", "1", "-o", "out").code == 0
    assert (tmp_path / "out" / name).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "Missing argument"),
        (["a", " "], "the second prompt is empty"),
        (["", "b"], "the prompt is empty"),
        (["a", "b \udcff"], "the prompt is not valid UTF-8"),
        (["a", "b", "-n", "0"], "num_images must be 1 to 1000"),
        (["a", "b", "--ms-per-frame", "0"], "--ms-per-frame takes a whole number, 20 to 10000; got '0'"),
        (["a", "b", "--ms-per-frame", "19"], "20 to 10000; got '19'"),
        (["a", "b", "--ms-per-frame", "10001"], "20 to 10000; got '10001'"),
        (["a", "b", "--ms-per-frame", "1e2"], "20 to 10000; got '1e2'"),
        (["a", "b", "--set", "strength=0.5"], "no option named 'strength'"),
        (["a", "b", "--executor", "find"], "'find' is not a generator"),
    ],
)
def test_refusals(round_of: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    said = round_of("interpolate", *arguments)
    assert (said.code, said.out) == (2, "")
    assert message in said.err
    assert names(tmp_path) == ["all.yml"]
