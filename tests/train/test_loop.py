"""The training loop: it goes on after a kill as if nothing had happened."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dalle_flow.train.loop import CHECKPOINT, Course, Lesson, averaged_state, train


class Line(Lesson):
    """Learn y = 3x - 1 from noisy points; stops itself after `last` losses, as a kill would."""

    def __init__(self, last: int | None = None):
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.last = last

    def batch(self, size: int, generator: torch.Generator) -> Tensor:
        return torch.randn(size, 1, generator=generator)

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        if self.last is not None and step >= self.last:
            raise KeyboardInterrupt
        return (self.model(batch).float() - (3 * batch - 1)).square().mean(), {"seen": float(len(batch))}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"weight": float(next(model.parameters()).detach())}


def course(steps: int = 60, **changes: object) -> Course:
    fields = {"batch_size": 5, "learning_rate": 0.05, "warmup_steps": 5, "bfloat16": False, "log_every": 10}
    return Course(steps=steps, **{**fields, "checkpoint_every_s": 0.0, **changes})  # type: ignore[arg-type]


def test_learns(tmp_path: Path) -> None:
    lesson = Line()
    assert train(lesson, course(400), tmp_path) == 400
    weight, bias = (float(p.detach()) for p in lesson.model.parameters())
    assert weight == pytest.approx(3, abs=0.05)
    assert bias == pytest.approx(-1, abs=0.05)


def test_resumed_run_equals_one_that_was_never_stopped(tmp_path: Path) -> None:
    whole = Line()
    train(whole, course(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Line(last=23), course(), tmp_path / "killed")
    assert (tmp_path / "killed" / CHECKPOINT).exists()
    resumed = Line()
    assert train(resumed, course(), tmp_path / "killed") == 60
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(
        averaged_state(tmp_path / "killed").values(), averaged_state(tmp_path / "whole").values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_a_write_that_was_cut_off_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    train(Line(), course(10), tmp_path)
    before = averaged_state(tmp_path)
    (tmp_path / "last.partial").write_bytes(b"half of a checkpoint")
    after = averaged_state(tmp_path)
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_stops_after_the_minutes_given(tmp_path: Path) -> None:
    assert train(Line(), course(10**6), tmp_path, minutes=0.005) < 10**6


def test_log_has_a_row_per_report_and_evaluates_the_average(tmp_path: Path) -> None:
    rows: list[int] = []
    average = nn.Linear(1, 1)
    train(Line(), course(30), tmp_path, average=average, report=lambda s, r: rows.append(s), evaluate_every=10)
    with (tmp_path / "metrics.csv").open() as file:
        written = list(csv.reader(file))
    assert rows == [10, 20, 30]
    assert [line[0] for line in written] == ["step", "10", "20", "30"]
    assert all("val_weight=" in line[-1] for line in written[1:])
    assert torch.equal(average.weight, averaged_state(tmp_path)["weight"])


def test_learning_rate_warms_up_and_falls() -> None:
    plan = course(100, warmup_steps=10)
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.005 * (i + 1) for i in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert plan.rate_at(100) == pytest.approx(0.05 * plan.final_learning_rate)


def test_a_step_with_an_infinite_gradient_is_skipped(tmp_path: Path) -> None:
    class Broken(Line):
        def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
            loss, figures = super().loss(batch, step)
            return (loss * float("inf") if step == 3 else loss), figures

    lesson = Broken()
    train(lesson, course(10), tmp_path)
    assert all(torch.isfinite(p).all() for p in lesson.model.parameters())
