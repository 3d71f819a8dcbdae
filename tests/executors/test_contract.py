"""The promise of executors/base.py, asked of every executor there is: built in, from a plug-in, or added tomorrow.

A new executor is tested by being registered; nothing here knows any of them by name.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import OptionError, WeightsError
from dalle_flow.executors.base import Done, Executor, Output, Preview, Progress, Task
from dalle_flow.types import MAX_SEED, Kind

PROMPT = "a purple elephant, watercolor"
NEAR = 2  # of 255; sums are rounded differently in batches of different size
MIDDLE = 3  # the seed that is compared


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    """How many threads torch uses, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def task_of(executor: Executor, seeds: Iterable[int], prompt: str = PROMPT, preview_every: int = 0) -> Task:
    return Task(prompt, executor.Options(), seeds=tuple(seeds), preview_every=preview_every)


def results(outputs: Iterable[Output]) -> dict[int, Any]:
    """Index -> picture or score; each exactly once."""
    done = [output for output in outputs if isinstance(output, Done)]
    counts = Counter(output.slot.index for output in done)
    assert set(counts.values()) <= {1}, counts
    return {output.slot.index: output.result for output in done}


def picture(executor: Executor, seed: int, **changes: Any) -> np.ndarray:
    return pixels(results(run_slots(executor, task_of(executor, [seed], **changes)))[0])


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image, np.int16)


def distance(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one - other).max())


class TestEveryExecutor:
    def test_says_what_it_is(self, executor: Executor) -> None:
        assert isinstance(executor.kind, Kind)
        assert isinstance(executor.roles, tuple)
        assert executor.capacity >= 1
        assert executor.weights_id
        assert list(executor.remarks("a cat")) == list(executor.remarks("a cat"))

    def test_options_forbid_extras(self, executor: Executor) -> None:
        with pytest.raises(OptionError, match="no option 'nope'") as caught:
            executor.Options.parse({"nope": 1})
        assert caught.value.field == "nope"

    def test_every_option_has_a_default_and_says_what_it_is_for(self, executor: Executor) -> None:
        executor.Options.parse({})
        for name, field in executor.option_schema().get("properties", {}).items():
            assert field.get("description"), name
            assert "default" in field, name

    def test_refuses_options_of_other_kinds(self, executor: Executor) -> None:
        for name, field in executor.option_schema().get("properties", {}).items():
            with pytest.raises(OptionError) as caught:
                executor.Options.parse({name: [] if field.get("type") != "array" else 1})
            assert caught.value.field == name

    def test_missing_weights_are_a_weights_error(self, executor: Executor, tmp_path: Path) -> None:
        if not executor.roles:
            pytest.skip("needs no weights")
        with pytest.raises(WeightsError):
            type(executor).load({role: tmp_path / "nowhere" / role for role in executor.roles}, "cpu")


class TestGenerator:
    @pytest.mark.parametrize("number", [1, 5, 6])
    def test_exact_counts(self, generator: Executor, number: int) -> None:
        assert sorted(results(run_slots(generator, task_of(generator, range(number))))) == list(range(number))

    @pytest.mark.parametrize("number", [5, 9])
    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_picture_is_the_same_alone_and_in_a_batch(
        self, generator: Executor, number: int, threads: int, torch_threads: Callable[[int], None]
    ) -> None:
        torch_threads(threads)
        alone = picture(generator, MIDDLE)
        batch = results(run_slots(generator, task_of(generator, range(number))))
        assert distance(pixels(batch[MIDDLE]), alone) <= NEAR

    def test_a_picture_is_the_same_beside_another_request(self, generator: Executor) -> None:
        """Two tasks of different length of prompt; the second joins after the first step."""
        if generator.capacity < 2:
            pytest.skip("holds one picture at a time")
        alone = picture(generator, MIDDLE)
        other = task_of(generator, [MIDDLE], prompt="three red pumpkins at night in a field, oil painting")
        active = list(generator.admit(other))
        [*_] = generator.step(active)
        active += generator.admit(task_of(generator, [MIDDLE]))
        mine, found = active[-1], None
        while found is None:
            done = [output for output in generator.step(active) if isinstance(output, Done)]
            active = [slot for slot in active if slot not in [output.slot for output in done]]
            found = next((output.result for output in done if output.slot is mine), None)
        generator.drop(active)
        assert isinstance(found, Image.Image)
        assert distance(pixels(found), alone) <= NEAR

    def test_the_same_seed_is_the_same_picture(self, generator: Executor) -> None:
        """Whatever the state of torch's own random numbers, which stays as it was."""
        torch.manual_seed(1)
        first = picture(generator, MIDDLE)
        torch.manual_seed(2)
        state = torch.get_rng_state()
        second = picture(generator, MIDDLE)
        assert torch.equal(torch.get_rng_state(), state)
        assert distance(first, second) == 0

    def test_another_instance_makes_the_same_picture(self, generator: Executor) -> None:
        assert distance(picture(generator, MIDDLE), picture(type(generator).tiny(), MIDDLE)) == 0

    def test_other_seeds_are_other_pictures(self, generator: Executor) -> None:
        """Most of them: a toy model may have few pictures to give. A seed that is only cut short repeats them."""
        seeds = [*range(9), *range(MAX_SEED - 8, MAX_SEED + 1)]
        drawn = results(run_slots(generator, task_of(generator, seeds)))
        assert len({pixels(drawn[i]).tobytes() for i in range(9)}) > 4
        assert {pixels(drawn[i]).tobytes() for i in range(9)} != {pixels(drawn[i]).tobytes() for i in range(9, 18)}

    def test_another_prompt_is_another_picture(self, generator: Executor) -> None:
        assert distance(picture(generator, 0), picture(generator, 0, prompt="a teapot in space")) > NEAR

    @pytest.mark.parametrize("prompt", ["x", "猫 и кот", "👩‍👩‍👧", "a\nb\x00c", "\u202e", "word " * 400, "#HashTag"])
    def test_any_prompt_gives_a_picture(self, generator: Executor, prompt: str) -> None:
        picture(generator, 0, prompt=prompt)
        assert all(isinstance(remark, str) for remark in generator.remarks(prompt))

    def test_steps_are_counted_to_the_end(self, generator: Executor) -> None:
        slots = list(generator.admit(task_of(generator, [0])))
        (slot,) = slots
        assert (slot.step, slot.of >= 1) == (0, True)
        for step in range(1, slot.of + 1):
            outputs = list(generator.step(slots))
            assert slot.step == step
            assert any(isinstance(output, Done) for output in outputs) == (step == slot.of)

    def test_progress_ends_at_its_end(self, generator: Executor) -> None:
        told = [o for o in run_slots(generator, task_of(generator, range(5))) if isinstance(o, Progress)]
        assert [p.step for p in told] == sorted({p.step for p in told})
        assert {p.of for p in told} == {told[-1].step}

    def test_dropped_slots_make_room(self, generator: Executor) -> None:
        """Again and again, at every step of the way; what is dropped twice, or is done, does no harm."""
        fresh = picture(generator, MIDDLE)
        full = task_of(generator, range(generator.capacity))
        for steps in (0, 1, 2):
            slots = list(generator.admit(full))
            for _ in range(min(steps, slots[0].of - 1)):
                [*_] = generator.step(slots)
            generator.drop(slots)
            generator.drop(slots)
        assert distance(picture(generator, MIDDLE), fresh) <= NEAR
        assert len(results(run_slots(generator, full))) == generator.capacity

    def test_closing_at_the_first_picture_makes_room(self, generator: Executor) -> None:
        full = task_of(generator, range(generator.capacity + 1))
        for _ in range(2):
            running = run_slots(generator, full)
            assert next(output for output in running if isinstance(output, Done))
            running.close()  # type: ignore[attr-defined]
        assert len(results(run_slots(generator, full))) == generator.capacity + 1

    def test_previews_look_like_the_picture(self, generator: Executor) -> None:
        """As large as asked for, at most; of the same shape; none when not asked for."""
        outputs = list(run_slots(generator, task_of(generator, [0], preview_every=1)))
        final = results(outputs)[0]
        for preview in (output.image for output in outputs if isinstance(output, Preview)):
            assert preview.mode == "RGB"
            assert preview.width <= final.width
            assert math.isclose(preview.width / preview.height, final.width / final.height, rel_tol=0.05)
        assert not [o for o in run_slots(generator, task_of(generator, [0])) if isinstance(o, Preview)]

    def test_previews_do_not_change_the_picture(self, generator: Executor) -> None:
        assert distance(picture(generator, 0), picture(generator, 0, preview_every=1)) == 0


class TestRanker:
    @staticmethod
    def images(number: int) -> list[Image.Image]:
        rng = np.random.default_rng(0)
        sizes = [(32, 32), (17, 5), (1, 1), (64, 40)]
        noise = [rng.integers(0, 256, (*sizes[i % 4][::-1], 3), dtype=np.uint8) // (1 + i % 3) for i in range(number)]
        return [Image.fromarray(array) for array in noise]

    @staticmethod
    def scores(ranker: Executor, images: Sequence[Image.Image], prompt: str = PROMPT) -> list[float]:
        found = results(run_slots(ranker, Task(prompt, ranker.Options(), images=tuple(images))))
        assert sorted(found) == list(range(len(images)))
        return [found[i] for i in range(len(images))]

    @pytest.mark.parametrize("number", [1, 5, 6])
    def test_one_score_per_picture(self, ranker: Executor, number: int) -> None:
        scores = self.scores(ranker, self.images(number))
        assert len(scores) == number
        assert all(isinstance(score, float) and -1 <= score <= 1 for score in scores)

    def test_a_score_is_the_same_alone_and_in_a_batch(self, ranker: Executor) -> None:
        images = self.images(9)
        batch = self.scores(ranker, images)
        for i in (0, 4, 8):
            assert self.scores(ranker, [images[i]])[0] == pytest.approx(batch[i], abs=1e-5)

    def test_other_pictures_have_other_scores(self, ranker: Executor) -> None:
        assert len({round(score, 6) for score in self.scores(ranker, self.images(5))}) == 5

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
    def test_any_mode_of_picture(self, ranker: Executor, mode: str) -> None:
        self.scores(ranker, [image.convert(mode) for image in self.images(2)])

    @pytest.mark.parametrize("prompt", ["x", "猫", "word " * 400, "https://example.com/cat.png"])
    def test_any_prompt(self, ranker: Executor, prompt: str) -> None:
        self.scores(ranker, self.images(1), prompt)

    def test_more_pictures_than_fit_at_once(self, ranker: Executor) -> None:
        image = self.images(1)[0]
        assert len(self.scores(ranker, [image] * (ranker.capacity + 1))) == ranker.capacity + 1
