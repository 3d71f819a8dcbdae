"""The embedded family, end to end: no download, no network, no GPU; a prompt in, ranked pictures out."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dalle_flow as df
from dalle_flow.images import picture_id, read_picture

pytestmark = pytest.mark.usefixtures("embedded")
PROMPT = "a red heart on a blue background"


@cache
def drawn(number: int, seed: int = 7) -> df.Round:
    return df.generate(PROMPT, num_images=number, seed=seed, executors=["dalle"])


def test_nine_ranked_pictures() -> None:
    found = drawn(9)
    assert len({c.id for c in found.candidates}) == 9
    cosines = [c.score.cosine for c in found.candidates if c.score]
    assert len(cosines) == 9
    assert cosines == sorted(cosines, reverse=True)
    assert found.warnings == ()


@pytest.mark.parametrize("number", [1, 5, 6])
def test_a_picture_is_the_same_alone_and_in_any_batch(number: int) -> None:
    nine = {c.recipe.seed: c.image for c in drawn(9).candidates}
    few = {c.recipe.seed: c.image for c in drawn(number).candidates}
    assert sorted(few) == list(range(7, 7 + number))
    for seed, image in few.items():
        difference = np.abs(np.asarray(image, np.int16) - np.asarray(nine[seed], np.int16))
        assert difference.max() <= 2


def test_forty() -> None:
    assert len({c.recipe.seed for c in drawn(40).candidates}) == 40


def test_replay_gives_the_same_pixels() -> None:
    for candidate in drawn(9).candidates[:3]:
        assert df.replay(candidate).id == candidate.id


def test_pictures_show_something() -> None:
    for candidate in drawn(9).candidates:
        assert candidate.image.mode == "RGB"
        assert np.asarray(candidate.image).std() > 5, "one flat colour"


def test_words_it_does_not_know_are_named() -> None:
    (warning,) = df.generate("a cat by Matisse", seed=1).warnings
    assert "I do not know 'Matisse'" in warning


def test_the_ranker_prefers_what_was_asked_for() -> None:
    """A picture made for the prompt before one made for another, mostly."""
    from dalle_flow.engine.local import LocalEngine
    from dalle_flow.flow.plan import read_plan
    from dalle_flow.flow.run import rank

    other = df.generate("a green frog in the snow, pencil sketch", num_images=9, seed=7, executors=["dalle"])
    engine = LocalEngine(read_plan().executors)
    ranked = rank(engine, "rank", PROMPT, [*other.candidates, *drawn(9).candidates])
    assert sum(c.recipe.prompt == PROMPT for c in ranked[:9]) >= 7


def test_the_command(command: Callable[..., Any], tmp_path: Path) -> None:
    said = command("generate", PROMPT, "-n", "5", "--seed", "7", "--executor", "dalle", "--json")
    assert said.returncode == 0, said.stderr
    document = json.loads(said.stdout)
    assert [Path(c["path"]).name for c in document["candidates"]] == [f"{i:02d}.png" for i in range(5)]
    for candidate in document["candidates"]:
        assert picture_id(read_picture(tmp_path / candidate["path"])) == candidate["id"]
    assert {c["id"] for c in document["candidates"]} == {c.id for c in drawn(5).candidates}
    said = command("replay", "out/03.png")
    assert (said.returncode, said.stdout) == (0, "the pixels are identical\n"), said.stderr


class TestTheWholeLoop:
    """Every kind of round, through the library, on the weights that ship."""

    @pytest.fixture
    def pick(self) -> df.Candidate:
        return drawn(9).candidates[0]

    def test_generators_side_by_side(self) -> None:
        found = df.generate(PROMPT, num_images=2, seed=7)
        assert sorted(c.recipe.executor for c in found.candidates) == ["dalle"] * 2 + ["diffusion"] * 2
        cosines = [c.score.cosine for c in found.candidates if c.score]
        assert cosines == sorted(cosines, reverse=True)
        assert len(cosines) == 4

    @pytest.mark.parametrize("number", [1, 5, 6, 36])
    def test_refining_gives_as_many_as_asked(self, pick: df.Candidate, number: int) -> None:
        found = df.refine(pick, num_images=number, seed=3, options={"diffusion": {"num_inference_steps": 5}})
        assert len({c.recipe.seed for c in found.candidates}) == number
        assert {c.recipe.parent for c in found.candidates} == {pick.id}

    def test_a_recipe_says_whose_code_drew_it(self, pick: df.Candidate) -> None:
        refined = df.refine(pick, num_images=1, seed=3, options={"diffusion": {"num_inference_steps": 5}}).candidates[0]
        assert sorted(refined.recipe.versions) == ["dalle_flow", "diffusers", "torch"]
        assert sorted(pick.recipe.versions) == ["dalle_flow", "torch"]

    def test_more_strength_goes_further(self, pick: df.Candidate) -> None:
        def change(strength: float) -> float:
            found = df.refine(pick, num_images=3, seed=3, options={"diffusion": {"strength": strength}})
            pictures = [np.asarray(c.image, np.int16) for c in found.candidates]
            return float(np.mean([np.abs(one - np.asarray(pick.image, np.int16)).mean() for one in pictures]))

        assert change(0.2) < change(0.9)

    def test_a_refined_picture_replays(self, pick: df.Candidate) -> None:
        refined = df.refine(pick, num_images=3, seed=3).candidates[0]
        assert df.replay(refined, parent=pick.image).id == refined.id

    def test_upscaling_keeps_the_picture(self, pick: df.Candidate) -> None:
        (large,) = df.upscale(pick).candidates
        assert large.image.size == (4 * pick.image.width, 4 * pick.image.height)
        small = large.image.resize(pick.image.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(small, np.int16) - np.asarray(pick.image, np.int16)).mean() < 6

    def test_tiles_leave_no_seam(self, pick: df.Candidate) -> None:
        (whole,) = df.upscale(pick).candidates
        (tiled,) = df.upscale(pick, options={"tile": 24}).candidates
        assert np.abs(np.asarray(whole.image, np.int16) - np.asarray(tiled.image, np.int16)).max() <= 1

    def test_the_mask_is_where_the_thing_is_and_inpainting_stays_in_it(self, pick: df.Candidate) -> None:
        (found,) = df.segment(pick, "the red heart").candidates
        mask = np.asarray(found.image) > 127
        red = np.asarray(pick.image, np.int16)[..., 0] - np.asarray(pick.image, np.int16)[..., 2] > 60
        assert (mask & red).sum() > 0.5 * (mask | red).sum()
        (new,) = df.inpaint(pick, "a blue moon", mask=found.image, seed=1).candidates
        before, after = np.asarray(pick.image, np.int16), np.asarray(new.image, np.int16)
        assert np.array_equal(before[~mask], after[~mask])
        assert np.abs(before[mask] - after[mask]).mean() > 10

    def test_a_morph_goes_from_one_to_the_other(self) -> None:
        found = df.interpolate("a red heart", "a blue moon", num_images=5, seed=1)
        frames = [np.asarray(c.image, np.float32) for c in found.candidates]
        steps = [float(np.abs(frame - frames[0]).mean()) for frame in frames]
        assert steps[0] == 0
        assert steps[4] == max(steps) > 5


def test_the_weights_are_small_and_described(embedded: Path) -> None:
    assert sum(path.stat().st_size for path in embedded.rglob("*") if path.is_file()) <= 33e6
    assert (embedded / "MODEL_CARD.md").is_file()


def test_the_picture_in_the_readme_was_made_by_its_command() -> None:
    image = Path(__file__).parents[1] / "docs" / "images" / "demo.png"
    assert image.is_file()
    with Image.open(image) as opened:
        assert opened.width >= 3 * 192
