"""Recipes are canonical, come back as they went, and are refused when they are not ours."""

import dataclasses
import json

import pytest

from dalle_flow.errors import ReplayError
from dalle_flow.types import MAX_SEED, Recipe, RoundKind

RECIPE = Recipe(
    executor="dalle",
    weights="0123abcd",
    prompt="a cat, 猫, 🐱",
    seed=7,
    options={"top_k": 64, "condition_scale": 3.0, "negative": None},
    versions={"torch": "2.13.0"},
)
INPAINTED = dataclasses.replace(RECIPE, kind=RoundKind.INPAINT, parent="f00d", mask="beef")
FRAME = dataclasses.replace(RECIPE, kind=RoundKind.INTERPOLATE, prompt_to="a dog", frame=(3, 16))
LATER = ("kind", "prompt_to", "frame", "mask")


class TestRecipe:
    @pytest.mark.parametrize("recipe", [RECIPE, INPAINTED, FRAME])
    def test_round_trip(self, recipe: Recipe) -> None:
        found = Recipe.from_json(recipe.to_json())
        assert found == recipe
        assert found.to_json() == recipe.to_json()
        assert isinstance(found.kind, RoundKind)

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
            ("kind", "draw"),
            ("kind", None),
            ("kind", ["generate"]),
            ("prompt_to", 3),
            ("mask", 3),
            ("frame", 3),
            ("frame", [3]),
            ("frame", [3, 3]),
            ("frame", [-1, 3]),
            ("frame", [0, 1001]),
            ("frame", [0.0, 3]),
            ("frame", [True, 3]),
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

    def test_a_recipe_from_before_there_were_other_rounds_is_of_generating(self) -> None:
        data = json.loads(RECIPE.to_json())
        for name in LATER:
            del data[name]
        assert Recipe.from_json(json.dumps(data)) == RECIPE

    @pytest.mark.parametrize("name", LATER)
    def test_all_of_the_later_fields_or_none(self, name: str) -> None:
        data = json.loads(RECIPE.to_json())
        del data[name]
        with pytest.raises(ReplayError, match=name):
            Recipe.from_json(json.dumps(data))

    @pytest.mark.parametrize(
        ("frame", "shows"),
        [((0, 5), "a cat"), ((2, 5), "a cat"), ((3, 5), "a dog"), ((0, 1), "a cat"), (None, "a cat")],
    )
    def test_what_a_picture_between_two_prompts_shows(self, frame: tuple[int, int] | None, shows: str) -> None:
        recipe = dataclasses.replace(RECIPE, prompt="a cat", prompt_to=frame and "a dog", frame=frame)
        assert recipe.shows == shows
