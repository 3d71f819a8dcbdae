"""Rounds from pictures and between prompts: which executors do them, what they are given, what their recipes say."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle_flow.deep_picture import from_pixels, to_pixels
from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import OptionError, UnknownNameError, UsageError
from dalle_flow.executors.base import Task
from dalle_flow.flow.replay import replay
from dalle_flow.flow.run import run_round
from dalle_flow.types import (
    Candidate,
    Event,
    ExecutorPlan,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    Previewed,
    Progressed,
    Ranked,
    RefineRequest,
    Request,
    Round,
    RoundKind,
    SegmentRequest,
    UpscaleRequest,
    Warned,
    picture_id,
)

Photo = Image.Image


def events_of(engine: LocalEngine, request: Request) -> list[Event]:
    return list(run_round(engine, request))


def round_of(engine: LocalEngine, request: Request) -> Round:
    last = events_of(engine, request)[-1]
    assert isinstance(last, Ranked)
    return last.round


def only(found: Round) -> Candidate:
    (candidate,) = found.candidates
    return candidate


def without(engine: LocalEngine, *names: str) -> LocalEngine:
    return LocalEngine({name: plan for name, plan in engine.executors.items() if name not in names})


def left_white(photo: Photo) -> Image.Image:
    mask = Image.new("L", photo.size)
    mask.paste(255, (0, 0, photo.width // 2, photo.height))
    return mask


def hole_in(photo: Photo) -> Image.Image:
    picture = photo.convert("RGBA")
    picture.putalpha(left_white(photo).point([255 - value for value in range(256)]))
    return picture


class TestRefine:
    @pytest.mark.parametrize("number", [1, 5, 6, 36])
    def test_exact_counts_best_first(self, engine: LocalEngine, photo: Photo, number: int) -> None:
        found = round_of(engine, RefineRequest(photo, "a cat", number, 7))
        assert {c.recipe.seed for c in found.candidates} == set(range(7, 7 + number))
        assert len({c.id for c in found.candidates}) == len(found.candidates) == number
        cosines = [c.score.cosine for c in found.candidates if c.score]
        assert len(cosines) == number
        assert cosines == sorted(cosines, reverse=True)
        assert found.ranker == "rank"

    def test_strength_is_how_much_is_made_new(self, engine: LocalEngine, photo: Photo) -> None:
        def distance(strength: float) -> float:
            options = {"noise": {"strength": strength}}
            made = only(round_of(engine, RefineRequest(photo, "a cat", 1, 7, options=options))).image
            assert made.size == photo.size
            return float(np.abs(np.asarray(made, float) - np.asarray(photo, float)).mean())

        assert distance(0.01) < 2
        assert 2 < distance(0.3) < distance(1.0)

    @pytest.mark.parametrize("strength", [0, 1.5, -0.5, "half"])
    def test_refuses_strengths(self, engine: LocalEngine, photo: Photo, strength: Any) -> None:
        with pytest.raises(OptionError, match=r"'strength'.*; it takes number > 0 <= 1") as caught:
            round_of(engine, RefineRequest(photo, "a cat", options={"noise": {"strength": strength}}))
        assert caught.value.field == "strength"

    def test_a_recipe_says_everything(self, engine: LocalEngine, photo: Photo) -> None:
        recipe = only(round_of(engine, RefineRequest(photo, "a cat", 1, 7))).recipe
        assert (recipe.kind, recipe.parent, recipe.mask) == (RoundKind.REFINE, picture_id(photo), None)
        assert (recipe.prompt, recipe.seed, recipe.options["strength"]) == ("a cat", 7, 0.75)

    def test_transparent_places_are_taken_for_white_and_that_is_said(self, engine: LocalEngine, photo: Photo) -> None:
        picture = hole_in(photo)
        events = events_of(engine, RefineRequest(picture, "a cat", options={"noise": {"strength": 1e-9}}))
        warning = "the picture is transparent in places, which are taken for white"
        assert events[0] == Warned(warning)
        assert isinstance(events[-1], Ranked)
        found = events[-1].round
        assert found.warnings == (warning,)
        assert only(found).image.getpixel((0, 0)) == (255, 255, 255)
        assert only(found).recipe.parent == picture_id(picture)

    @pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "1"])
    def test_any_picture_is_given_as_rgb(self, engine: LocalEngine, photo: Photo, mode: str) -> None:
        assert only(round_of(engine, RefineRequest(photo.convert(mode), "a cat"))).image.mode == "RGB"


class TestInpaint:
    @pytest.mark.parametrize("number", [1, 5, 6])
    def test_what_the_mask_keeps_is_kept(self, engine: LocalEngine, photo: Photo, number: int) -> None:
        found = round_of(engine, InpaintRequest(photo, "a hat", left_white(photo), number, 7))
        assert len(found.candidates) == number
        right = (photo.width // 2, 0, *photo.size)
        for candidate in found.candidates:
            assert candidate.image.crop(right).tobytes() == photo.crop(right).tobytes()
            assert candidate.image.tobytes() != photo.tobytes()
            recipe = candidate.recipe
            assert (recipe.kind, recipe.parent) == (RoundKind.INPAINT, picture_id(photo))
            assert recipe.mask == picture_id(left_white(photo))

    def test_without_a_mask_the_transparent_part_is_made_new(self, engine: LocalEngine, photo: Photo) -> None:
        picture = hole_in(photo)
        found = round_of(engine, InpaintRequest(picture, "a hat", None, 1, 7))
        given = round_of(engine, InpaintRequest(photo, "a hat", left_white(photo), 1, 7))
        assert only(found).id == only(given).id
        assert (only(found).recipe.parent, only(found).recipe.mask) == (picture_id(picture), None)
        assert found.warnings == ()

    def test_a_mask_on_a_transparent_picture_is_said(self, engine: LocalEngine, photo: Photo) -> None:
        found = round_of(engine, InpaintRequest(hole_in(photo), "a hat", Image.new("L", photo.size, 255)))
        assert found.warnings == ("the picture is transparent in places, which are taken for white",)


class TestInterpolate:
    @pytest.mark.parametrize("number", [1, 5, 6, 36])
    def test_a_row_in_order(self, engine: LocalEngine, number: int) -> None:
        found = round_of(engine, InterpolateRequest("a heart", "a moon", number, 7))
        assert [c.recipe.frame for c in found.candidates] == [(i, number) for i in range(number)]
        assert {c.recipe.seed for c in found.candidates} == {7}, "the same noise in every frame"
        assert {(c.recipe.prompt, c.recipe.prompt_to) for c in found.candidates} == {("a heart", "a moon")}
        assert (found.ranker, {c.score for c in found.candidates}) == (None, {None})

    def test_from_the_first_prompt_to_the_second(self, engine: LocalEngine) -> None:
        frames = round_of(engine, InterpolateRequest("a heart", "a moon", 5, 7)).candidates
        for frame, prompt in ((frames[0], "a heart"), (frames[-1], "a moon")):
            assert frame.id == only(round_of(engine, GenerateRequest(prompt, 1, 7))).id
        start, end = (np.asarray(frame.image, float) for frame in (frames[0], frames[-1]))
        distances = [float(np.abs(np.asarray(frame.image, float) - start).mean()) for frame in frames]
        assert distances == sorted(set(distances))
        assert distances[2] == pytest.approx(np.abs(end - start).mean() / 2, abs=1)

    def test_remarks_on_both_prompts(self, engine: LocalEngine) -> None:
        found = round_of(engine, InterpolateRequest("an unseen heart", "an unheard moon", 2))
        assert found.warnings == ("I do not know 'unseen'", "I do not know 'unheard'")


class TestUpscale:
    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
    def test_one_larger_picture(self, engine: LocalEngine, photo: Photo, mode: str) -> None:
        picture = photo.convert(mode)
        made = only(round_of(engine, UpscaleRequest(picture, "a cat")))
        assert (made.image.size, made.image.mode) == ((48, 40), mode)
        recipe = made.recipe
        assert (recipe.kind, recipe.parent, recipe.prompt) == (RoundKind.UPSCALE, picture_id(picture), "a cat")
        assert (recipe.seed, recipe.options) == (0, {"scale": 4})
        assert made.score is None

    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_16_bits_stay(self, engine: LocalEngine, channels: int) -> None:
        pixels = np.random.default_rng(0).integers(0, 65536, (3, 5, channels), dtype=np.uint16)
        picture: Any = from_pixels(pixels)
        made = only(round_of(engine, UpscaleRequest(picture, options={"scale": 2})))
        assert np.array_equal(to_pixels(made.image), pixels.repeat(2, 0).repeat(2, 1))
        assert made.recipe.parent == picture_id(picture)
        assert replay(engine, made.recipe, picture).id == made.id
        refined = only(round_of(engine, RefineRequest(picture, "a cat")))
        assert refined.image.mode == "RGB"
        assert replay(engine, refined.recipe, picture).id == refined.id

    def test_options(self, engine: LocalEngine, photo: Photo) -> None:
        assert only(round_of(engine, UpscaleRequest(photo, options={"scale": 2}))).image.size == (24, 20)
        with pytest.raises(OptionError, match="'scale'"):
            round_of(engine, UpscaleRequest(photo, options={"scale": 99}))


class TestSegment:
    def test_a_mask(self, engine: LocalEngine, photo: Photo) -> None:
        mask = only(round_of(engine, SegmentRequest(photo, "the cat")))
        assert (mask.image.mode, mask.image.size) == ("L", photo.size)
        assert set(mask.image.tobytes()) == {0, 255}
        recipe = mask.recipe
        assert (recipe.kind, recipe.parent, recipe.prompt) == (RoundKind.SEGMENT, picture_id(photo), "the cat")
        inverted = only(round_of(engine, SegmentRequest(photo, "the cat", options={"invert": True})))
        assert inverted.image.tobytes() == mask.image.point([255 - v for v in range(256)]).tobytes()


class TestWhoDoesIt:
    def test_all_generators_that_can(self, engine: LocalEngine, photo: Photo) -> None:
        two = LocalEngine({**engine.executors, "grey": ExecutorPlan("grey", "noise", options={"palette": "grey"})})
        found = round_of(two, RefineRequest(photo, "a cat", 5))
        assert [c.recipe.executor for c in found.candidates].count("grey") == 5
        assert len(found.candidates) == 10
        named = round_of(two, RefineRequest(photo, "a cat", 5, executors=("grey",)))
        assert {c.recipe.executor for c in named.candidates} == {"grey"}

    def test_a_generator_that_cannot_is_left_out(self, engine: LocalEngine, photo: Photo) -> None:
        """DALL·E can only generate; its weights are not even looked for."""
        two = LocalEngine({"dalle": ExecutorPlan("dalle", "dalle"), **engine.executors})
        assert only(round_of(two, RefineRequest(photo, "a cat"))).recipe.executor == "noise"
        with pytest.raises(OptionError, match="'dalle' cannot refine; noise can"):
            round_of(two, RefineRequest(photo, "a cat", executors=("dalle",)))

    def test_one_executor_is_the_first_that_can(self, engine: LocalEngine, photo: Photo) -> None:
        two = LocalEngine({**engine.executors, "other": ExecutorPlan("other", "repeat")})
        assert only(round_of(two, UpscaleRequest(photo))).recipe.executor == "repeat"
        assert only(round_of(two, UpscaleRequest(photo, executor="other"))).recipe.executor == "other"

    @pytest.mark.parametrize(
        ("missing", "make", "message"),
        [
            ("repeat", lambda p: UpscaleRequest(p), r"the flow has no upscaler; its executors are: noise \(generate, "),
            ("find", lambda p: SegmentRequest(p, "a cat"), "the flow has no segmenter; its executors are: noise"),
            (
                "noise",
                lambda p: RefineRequest(p, "a cat"),
                "the flow has no generator; its executors are: rank, repeat",
            ),
            ("noise", lambda p: InterpolateRequest("a", "b"), "the flow has no generator"),
        ],
    )
    def test_a_flow_without(self, engine: LocalEngine, photo: Photo, missing: str, make: Any, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            round_of(without(engine, missing), make(photo))

    def test_a_flow_whose_generators_cannot(self, engine: LocalEngine, photo: Photo) -> None:
        flow = LocalEngine({"dalle": ExecutorPlan("dalle", "dalle"), **without(engine, "noise").executors})
        with pytest.raises(
            UsageError, match=r"no generator that can refine; its executors are: dalle \(generate\), rank"
        ):
            round_of(flow, RefineRequest(photo, "a cat"))

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (
                lambda p: UpscaleRequest(p, executor="noise"),
                OptionError,
                "'noise' is not an upscaler; upscalers are: repeat",
            ),
            (lambda p: UpscaleRequest(p, executor="repeet"), UnknownNameError, "did you mean 'repeat'"),
            (lambda p: SegmentRequest(p, "x", executor="rank"), OptionError, "'rank' is not a segmenter"),
            (lambda p: InterpolateRequest("x", "y", executor="find"), OptionError, "'find' is not a generator"),
            (
                lambda p: RefineRequest(p, "x", options={"rank": {}}),
                OptionError,
                "'rank', which is not asked to refine",
            ),
            (lambda p: InterpolateRequest("x", "y", options={"strength": 1}), OptionError, "no option 'strength'"),
        ],
    )
    def test_refusals_before_anything_is_loaded(
        self,
        engine: LocalEngine,
        photo: Photo,
        monkeypatch: pytest.MonkeyPatch,
        make: Any,
        error: type[Exception],
        message: str,
    ) -> None:
        monkeypatch.setattr(engine, "load", lambda name: pytest.fail("loaded"))
        with pytest.raises(error, match=message):
            round_of(engine, make(photo))


def test_the_flows_options_apply_to_every_round_that_knows_them(engine: LocalEngine, photo: Photo) -> None:
    plan = ExecutorPlan("noise", "noise", options={"contrast": 0.5, "strength": 0.25})
    flow = LocalEngine({"noise": plan})
    assert only(round_of(flow, GenerateRequest("a cat"))).recipe.options["contrast"] == 0.5
    refined = only(round_of(flow, RefineRequest(photo, "a cat"))).recipe.options
    assert (refined["contrast"], refined["strength"]) == (0.5, 0.25)


def test_previews_and_progress_of_every_round_of_a_generator(engine: LocalEngine, photo: Photo) -> None:
    for request in (RefineRequest(photo, "a cat", 2), InterpolateRequest("a", "b", 2)):
        events = list(run_round(engine, request, preview_every=1))
        assert {event.index for event in events if isinstance(event, Previewed)} == {0, 1}
        assert [event for event in events if isinstance(event, Progressed)][-1] == Progressed("noise", 6, 6)


@pytest.mark.parametrize("number", [3, 9])
def test_a_frame_knows_its_place_however_many_fit_at_a_time(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    noise: Any = engine.load("noise")[0]
    parts: list[Task] = []
    admit = noise.admit
    monkeypatch.setattr(noise, "admit", lambda task: parts.append(task) or admit(task))
    round_of(engine, InterpolateRequest("a", "b", number))
    assert sum(len(part) for part in parts) == number
    assert [(part.first, part.of, part.kind) for part in parts] == [
        (first, number, RoundKind.INTERPOLATE) for first in range(0, number, 4)
    ]
