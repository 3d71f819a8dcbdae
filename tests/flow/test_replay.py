"""Replay: the same pixels from a recipe and what it was made from, or a reason why not."""

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import OptionError, ReplayError, UsageError
from dalle_flow.flow.replay import replay
from dalle_flow.flow.run import run_round
from dalle_flow.images import decode, encode_png, picture_id, recipe_of
from dalle_flow.types import (
    Candidate,
    ExecutorPlan,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    Ranked,
    Recipe,
    RefineRequest,
    Request,
    RoundKind,
    SegmentRequest,
    UpscaleRequest,
)

Photo = Image.Image
RECIPE = Recipe("noise", "none", "a cat", 7)


def candidates_of(engine: LocalEngine, request: Request) -> tuple[Candidate, ...]:
    *_, last = run_round(engine, request)
    assert isinstance(last, Ranked)
    return last.round.candidates


class TestGenerated:
    def test_the_same_pixels(self, engine: LocalEngine) -> None:
        for candidate in candidates_of(engine, GenerateRequest("a cat", 5, options={"noise": {"contrast": 0.5}})):
            made = replay(engine, candidate.recipe)
            assert made.id == candidate.id
            assert made.recipe == candidate.recipe

    def test_from_the_file(self, engine: LocalEngine) -> None:
        (candidate,) = candidates_of(engine, GenerateRequest("a cat"))
        image = decode(encode_png(candidate.image, candidate.recipe))
        assert replay(engine, recipe_of(image)).id == picture_id(image)

    def test_the_largest_seed(self, engine: LocalEngine) -> None:
        assert replay(engine, replace(RECIPE, seed=2**32 - 1)).recipe.seed == 2**32 - 1

    def test_a_flow_without_that_executor(self, engine: LocalEngine) -> None:
        with pytest.raises(ReplayError, match="'dalle', which this flow does not have"):
            replay(engine, replace(RECIPE, executor="dalle"))

    def test_other_weights(self, engine: LocalEngine) -> None:
        with pytest.raises(ReplayError, match="other weights of 'noise': 0123abcd, here are none"):
            replay(engine, replace(RECIPE, weights="0123abcd"))

    def test_a_ranker_makes_no_picture(self, engine: LocalEngine) -> None:
        with pytest.raises(ReplayError, match="'rank', which makes no pictures"):
            replay(engine, replace(RECIPE, executor="rank"))

    @pytest.mark.parametrize("options", [{"nope": 1}, {"contrast": "x"}, {"contrast": 9}, {"strength": 0.5}])
    def test_options_that_this_version_does_not_have(self, engine: LocalEngine, options: dict[str, Any]) -> None:
        with pytest.raises(ReplayError, match="option"):
            replay(engine, replace(RECIPE, options=options))

    @pytest.mark.parametrize("prompt", ["", " ", "x" * 10_000])
    def test_prompts_that_no_request_has(self, engine: LocalEngine, prompt: str) -> None:
        with pytest.raises(ReplayError, match="prompt"):
            replay(engine, replace(RECIPE, prompt=prompt))


class TestInterpolated:
    @pytest.mark.parametrize("number", [1, 5])
    def test_every_frame_alone(self, engine: LocalEngine, number: int) -> None:
        for candidate in candidates_of(engine, InterpolateRequest("a heart", "a moon", number, 7)):
            made = replay(engine, candidate.recipe)
            assert (made.id, made.recipe) == (candidate.id, candidate.recipe)


class TestFromAPicture:
    @pytest.fixture
    def mask(self, photo: Photo) -> Image.Image:
        mask = Image.new("L", photo.size)
        mask.paste(255, (2, 2, 7, 7))
        return mask

    def test_refined(self, engine: LocalEngine, photo: Photo) -> None:
        for candidate in candidates_of(engine, RefineRequest(photo, "a cat", 5, 7)):
            made = replay(engine, candidate.recipe, photo)
            assert (made.id, made.recipe) == (candidate.id, candidate.recipe)

    def test_inpainted(self, engine: LocalEngine, photo: Photo, mask: Image.Image) -> None:
        for candidate in candidates_of(engine, InpaintRequest(photo, "a cat", mask, 5, 7)):
            assert replay(engine, candidate.recipe, photo, mask).id == candidate.id

    def test_inpainted_where_it_was_transparent(self, engine: LocalEngine, photo: Photo, mask: Image.Image) -> None:
        picture = photo.convert("RGBA")
        picture.putalpha(mask)
        (candidate,) = candidates_of(engine, InpaintRequest(picture, "a cat"))
        assert replay(engine, candidate.recipe, picture).id == candidate.id

    def test_upscaled_and_segmented(self, engine: LocalEngine, photo: Photo) -> None:
        for request in (UpscaleRequest(photo), UpscaleRequest(photo, "a cat"), SegmentRequest(photo, "a cat")):
            (candidate,) = candidates_of(engine, request)
            made = replay(engine, candidate.recipe, photo)
            assert (made.id, made.recipe) == (candidate.id, candidate.recipe)

    def test_the_parent_may_be_kept_in_another_mode(self, engine: LocalEngine, photo: Photo) -> None:
        (candidate,) = candidates_of(engine, RefineRequest(photo, "a cat"))
        assert replay(engine, candidate.recipe, photo.quantize(256)).id == candidate.id

    def test_without_the_parent(self, engine: LocalEngine, photo: Photo) -> None:
        (candidate,) = candidates_of(engine, RefineRequest(photo, "a cat"))
        with pytest.raises(UsageError, match=f"with --parent, its id is {picture_id(photo)}") as caught:
            replay(engine, candidate.recipe)
        assert caught.value.field == "parent"

    def test_without_the_mask(self, engine: LocalEngine, photo: Photo, mask: Image.Image) -> None:
        (candidate,) = candidates_of(engine, InpaintRequest(photo, "a cat", mask))
        with pytest.raises(UsageError, match=f"with --mask, its id is {picture_id(mask)}"):
            replay(engine, candidate.recipe, photo)

    def test_another_parent_or_mask(self, engine: LocalEngine, photo: Photo, mask: Image.Image) -> None:
        (candidate,) = candidates_of(engine, InpaintRequest(photo, "a cat", mask))
        other = photo.transpose(Image.Transpose.ROTATE_180)
        with pytest.raises(
            UsageError, match=f"not the parent: .*{picture_id(photo)}, this one has {picture_id(other)}"
        ):
            replay(engine, candidate.recipe, other, mask)
        with pytest.raises(UsageError, match="not the mask"):
            replay(engine, candidate.recipe, photo, mask.transpose(Image.Transpose.ROTATE_180))

    def test_a_parent_that_is_not_needed(self, engine: LocalEngine, photo: Photo, mask: Image.Image) -> None:
        with pytest.raises(UsageError, match="without a parent; leave --parent out"):
            replay(engine, RECIPE, photo)
        (candidate,) = candidates_of(engine, RefineRequest(photo, "a cat"))
        with pytest.raises(UsageError, match="without a mask; leave --mask out"):
            replay(engine, candidate.recipe, photo, mask)

    def test_what_is_no_picture(self, engine: LocalEngine, photo: Photo) -> None:
        (candidate,) = candidates_of(engine, RefineRequest(photo, "a cat"))
        with pytest.raises(OptionError, match="parent must be a PIL picture"):
            replay(engine, candidate.recipe, "photo.png")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": RoundKind.REFINE}, "of kind refine and has no field 'parent'"),
        ({"kind": RoundKind.INTERPOLATE}, "of kind interpolate and has no field 'frame'"),
        ({"kind": RoundKind.INTERPOLATE, "frame": (0, 3)}, "has no field 'prompt_to'"),
        ({"parent": "f00d"}, "of kind generate and has a field 'parent'"),
        ({"frame": (0, 3)}, "has a field 'frame'"),
        ({"prompt_to": "a dog"}, "has a field 'prompt_to'"),
        ({"mask": "f00d"}, "has a field 'mask'"),
        ({"kind": RoundKind.UPSCALE}, "made by 'noise' to upscale; 'noise' can generate, refine, inpaint, interpolate"),
    ],
)
def test_recipes_that_no_round_of_ours_gives(engine: LocalEngine, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReplayError, match=message):
        replay(engine, replace(RECIPE, **changes))


def test_an_executor_that_can_no_longer_do_it(photo: Photo) -> None:
    recipe = replace(RECIPE, executor="dalle", kind=RoundKind.REFINE, parent=picture_id(photo))
    with pytest.raises(ReplayError, match="made by 'dalle' to refine; 'dalle' can generate here"):
        replay(LocalEngine({"dalle": ExecutorPlan("dalle", "dalle")}), recipe, photo)
