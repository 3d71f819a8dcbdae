"""The slot loop: exact counts, a full device, and nothing held once a task has ended in whatever way."""

from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import FailureError
from dalle_flow.executors.base import Done, Executor, Output, Preview, Progress, Task


@pytest.fixture
def noise(plugin: ModuleType) -> Any:
    """A generator of pictures of noise: 4 at a time, 3 steps each, that says what it holds."""
    return plugin.NoiseGenerator()


def task_of(executor: Executor, number: int, **options: Any) -> Task:
    return Task("a cat", executor.Options(**options), seeds=tuple(range(100, 100 + number)))


def done(outputs: list[Output]) -> list[int]:
    return [output.slot.index for output in outputs if isinstance(output, Done)]


@pytest.mark.parametrize("number", [1, 4, 5, 6, 40])
def test_exact_counts(noise: Any, number: int) -> None:
    assert Counter(done(list(run_slots(noise, task_of(noise, number))))) == Counter(range(number))
    assert not noise.held


def test_the_device_is_kept_full(noise: Any) -> None:
    list(run_slots(noise, task_of(noise, 10)))
    assert noise.widths == [4] * 6 + [2] * 3
    assert sum(noise.widths) == 10 * 3


def test_a_finished_slot_makes_room_at_the_next_step(noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that take differently long: no step runs with a free place while a picture waits."""
    admit = noise.admit

    def uneven(task: Task) -> Any:
        slots = admit(task)
        for slot in slots:
            slot.of = 1 + slot.index % 3
        return slots

    monkeypatch.setattr(noise, "admit", uneven)
    assert sorted(done(list(run_slots(noise, task_of(noise, 20))))) == list(range(20))
    full = [width == 4 for width in noise.widths]
    assert full == sorted(full, reverse=True), noise.widths


def test_no_pictures_asked_for(noise: Any) -> None:
    assert list(run_slots(noise, task_of(noise, 0))) == []


@pytest.mark.parametrize("number", [1, 5, 40])
def test_progress_tells_of_all_pictures_together(noise: Any, number: int) -> None:
    told = [output for output in run_slots(noise, task_of(noise, number)) if isinstance(output, Progress)]
    steps = [progress.step for progress in told]
    assert steps == sorted(set(steps))
    assert steps[-1] == number * 3
    assert {progress.of for progress in told} == {number * 3}


def test_previews_are_passed_on(noise: Any) -> None:
    task = Task("a cat", noise.Options(), seeds=(1, 2), preview_every=1)
    previews = [output.slot.index for output in run_slots(noise, task) if isinstance(output, Preview)]
    assert previews == [0, 1, 0, 1]


@pytest.mark.parametrize("kind", [Preview, Progress, Done])
def test_closing_drops_the_slots(noise: Any, kind: type[Output]) -> None:
    task = Task("a cat", noise.Options(), seeds=tuple(range(9)), preview_every=1)
    running = run_slots(noise, task)
    next(output for output in running if isinstance(output, kind))
    assert noise.held
    close(running)
    assert not noise.held


def test_closing_before_the_first_step(noise: Any) -> None:
    close(run_slots(noise, task_of(noise, 3)))
    assert not noise.held


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize(("crash", "error"), [(False, FailureError), (True, RuntimeError)])
def test_a_failure_drops_the_slots_and_is_passed_on(noise: Any, step: int, crash: bool, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(run_slots(noise, task_of(noise, 6, fail_at=step, crash=crash)))
    assert not noise.held


def test_an_interrupt_drops_the_slots(noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(noise, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run_slots(noise, task_of(noise, 6)))
    assert not noise.held


def test_after_a_failure_the_next_task_runs(noise: Any) -> None:
    with pytest.raises(FailureError):
        list(run_slots(noise, task_of(noise, 6, fail_at=1)))
    assert len(done(list(run_slots(noise, task_of(noise, 6))))) == 6


def close(running: Iterator[Output]) -> None:
    running.close()  # type: ignore[attr-defined]
