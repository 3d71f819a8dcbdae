"""Requests refuse what cannot be done; recipes are canonical, and are refused when they are not ours."""

import dataclasses
import json
from typing import Any

import pytest
from PIL import Image

from dalle_flow.errors import OptionError, ReplayError
from dalle_flow.types import (
    MAX_IMAGES,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    Candidate,
    GenerateRequest,
    Recipe,
    Round,
    Score,
)

RECIPE = Recipe(
    executor="dalle",
    weights="0123abcd",
    prompt="a cat, 猫, 🐱",
    seed=7,
    options={"top_k": 64, "condition_scale": 3.0, "negative": None},
    versions={"torch": "2.13.0"},
)


class TestGenerateRequest:
    def test_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            GenerateRequest("a cat").seed = 3  # type: ignore[misc]

    def test_takes_the_limits(self) -> None:
        GenerateRequest("x" * MAX_PROMPT_CHARACTERS, MAX_IMAGES, MAX_SEED - MAX_IMAGES)

    @pytest.mark.parametrize(
        ("values", "field", "allowed"),
        [
            ({"prompt": ""}, "prompt", "empty"),
            ({"prompt": " \n\t\u3000"}, "prompt", "empty"),
            ({"prompt": "x" * 10_000}, "prompt", str(MAX_PROMPT_CHARACTERS)),
            ({"num_images": 0}, "num_images", "1 to 1000, got 0"),
            ({"num_images": -1}, "num_images", "1 to 1000, got -1"),
            ({"num_images": 5000}, "num_images", "1 to 1000, got 5000"),
            ({"seed": -1}, "seed", "0 to"),
            ({"seed": MAX_SEED}, "seed", "0 to"),
            ({"prompt": "half a letter \ud800"}, "prompt", "Unicode"),
            ({"executors": ("dalle", "dalle")}, "executors", "'dalle' twice"),
        ],
    )
    def test_refuses(self, values: dict[str, Any], field: str, allowed: str) -> None:
        with pytest.raises(OptionError, match=allowed) as caught:
            GenerateRequest(**{"prompt": "a cat", **values})
        assert caught.value.field == field


class TestRecipe:
    def test_round_trip(self) -> None:
        assert Recipe.from_json(RECIPE.to_json()) == RECIPE

    def test_equal_recipes_are_equal_texts(self) -> None:
        turned = dataclasses.replace(RECIPE, options=dict(reversed(RECIPE.options.items())))
        assert turned.to_json() == RECIPE.to_json()
        assert RECIPE.to_json() == json.dumps(
            json.loads(RECIPE.to_json()), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )

    @pytest.mark.parametrize("prompt", ['"} , {"', "a\nb\r\nc\x00d", "\u202eevil\u202c", "e\u0301 é", "👩‍👩‍👧", "\\n"])
    def test_keeps_any_prompt_as_it_is(self, prompt: str) -> None:
        assert Recipe.from_json(dataclasses.replace(RECIPE, prompt=prompt).to_json()).prompt == prompt

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "null", "3", '"dalle"', "{}", "[" * 100_000, '{"executor": "dalle"}', "9" * 5000],
    )
    def test_refuses_what_is_no_recipe(self, text: str) -> None:
        with pytest.raises(ReplayError):
            Recipe.from_json(text)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("executor", 3),
            ("prompt", None),
            ("prompt", "half a letter \ud800"),
            ("seed", "7"),
            ("seed", 7.0),
            ("seed", True),
            ("seed", -1),
            ("seed", MAX_SEED + 1),
            ("options", []),
            ("options", {"temperature": float("nan")}),
            ("versions", None),
            ("versions", {"torch": 2}),
            ("parent", 3),
            ("more", 1),
        ],
    )
    def test_refuses_other_forms(self, field: str, value: object) -> None:
        data = {**json.loads(RECIPE.to_json()), field: value}
        with pytest.raises(ReplayError, match="recipe"):
            Recipe.from_json(json.dumps(data))

    def test_refuses_a_missing_field(self) -> None:
        data = json.loads(RECIPE.to_json())
        del data["weights"]
        with pytest.raises(ReplayError, match="weights"):
            Recipe.from_json(json.dumps(data))


def test_a_round_is_json() -> None:
    candidate = Candidate("f00d", Image.new("RGB", (3, 2)), RECIPE, Score(0.25, 0.5))
    finished = Round("abcd", "generate", GenerateRequest("a cat", 1, 7), (candidate,), "rank", ("careful",))
    data = json.loads(json.dumps(finished.to_dict()))
    assert data["candidates"][0]["score"] == {"cosine": 0.25, "probability": 0.5}
    assert Recipe(**data["candidates"][0]["recipe"]) == RECIPE
    assert data["request"]["prompt"] == "a cat"


def test_a_round_shows_its_sheet_in_a_notebook() -> None:
    candidate = Candidate("f00d", Image.new("RGB", (3, 2)), RECIPE)
    png = Round("abcd", "generate", GenerateRequest("a cat"), (candidate,))._repr_png_()
    assert png.startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"num_images": 2.5}, "num_images"),
        ({"num_images": True}, "num_images"),
        ({"seed": 1.5}, "seed"),
        ({"executors": "dalle"}, "executors"),
    ],
)
def test_a_request_of_the_wrong_types_is_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        GenerateRequest(**{"prompt": "a cat", **values})  # type: ignore[arg-type]
    assert caught.value.field == field
