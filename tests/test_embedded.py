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
    return df.generate(PROMPT, num_images=number, seed=seed)


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

    other = df.generate("a green frog in the snow, pencil sketch", num_images=9, seed=7)
    engine = LocalEngine(read_plan().executors)
    ranked = rank(engine, "rank", PROMPT, [*other.candidates, *drawn(9).candidates])
    assert sum(c.recipe.prompt == PROMPT for c in ranked[:9]) >= 7


def test_the_command(command: Callable[..., Any], tmp_path: Path) -> None:
    said = command("generate", PROMPT, "-n", "5", "--seed", "7", "--json")
    assert said.returncode == 0, said.stderr
    document = json.loads(said.stdout)
    assert [Path(c["path"]).name for c in document["candidates"]] == [f"{i:02d}.png" for i in range(5)]
    for candidate in document["candidates"]:
        assert picture_id(read_picture(tmp_path / candidate["path"])) == candidate["id"]
    assert {c["id"] for c in document["candidates"]} == {c.id for c in drawn(5).candidates}
    said = command("replay", "out/03.png")
    assert (said.returncode, said.stdout) == (0, "the pixels are identical\n"), said.stderr


def test_the_weights_are_small_and_described(embedded: Path) -> None:
    assert sum(path.stat().st_size for path in embedded.rglob("*") if path.is_file()) <= 30e6
    assert (embedded / "MODEL_CARD.md").is_file()


def test_the_picture_in_the_readme_was_made_by_its_command() -> None:
    image = Path(__file__).parents[1] / "docs" / "images" / "demo.png"
    assert image.is_file()
    with Image.open(image) as opened:
        assert opened.width >= 3 * 192
