"""The one training loop: learning rate, moving average, checkpoints that survive a kill, metrics as CSV.

A model's own file (judge, codec, dalle, clip) says what a batch is and what its loss is, by subclassing `Lesson`;
everything else is here, the same on CPU and GPU. A run is a folder: `last.pt` (all state, replaced in one rename),
`metrics.csv`, and whatever the lesson exports.
"""

import csv
import math
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError

CHECKPOINT = "last.pt"


@dataclass(frozen=True)
class Course:
    """How long and how hard to train. `steps` fixes the cosine schedule; resuming with more steps stretches it."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 200
    final_learning_rate: float = 0.02  # share of the peak that is left at the last step
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    bfloat16: bool = True
    checkpoint_every_s: float = 120.0
    log_every: int = 50

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine down to `final_learning_rate` of the peak."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        low = self.final_learning_rate
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))


class Lesson(ABC):
    """What is learnt: a module, its batches and its loss."""

    model: nn.Module

    @abstractmethod
    def batch(self, size: int, generator: torch.Generator) -> Any:
        """Draw one batch; the generator is the only source of chance, so that a resumed run goes on as it was."""

    @abstractmethod
    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise, and figures for the log."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Figures on held-out data, for the log; `model` holds the averaged weights."""
        return {}


class Average:
    """Exponential moving average of a model's weights and buffers, with the usual short memory at the start."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.state = {k: v.detach().clone().float() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                mine.append(self.state[name])
                theirs.append(value.detach().float())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    def copy_to(self, model: nn.Module) -> None:
        model.load_state_dict({k: v.to(model.state_dict()[k].dtype) for k, v in self.state.items()})


def train(
    lesson: Lesson,
    course: Course,
    folder: Path,
    *,
    device: str = "cpu",
    minutes: float | None = None,
    average: nn.Module | None = None,
    report: Callable[[int, dict[str, float]], None] | None = None,
    evaluate_every: int = 1000,
) -> int:
    """Train until `course.steps`, or until `minutes` have passed; returns the step reached.

    `folder/last.pt` is read when it exists, and written every `checkpoint_every_s` seconds and at the end. `average`
    is a second instance of the model: it receives the averaged weights at each evaluation and at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = lesson.model.to(device)
    optimizer = torch.optim.AdamW(_groups(model, course.weight_decay), lr=course.learning_rate, betas=course.betas)
    ema = Average(model, course.ema_decay)
    generator = torch.Generator().manual_seed(course.seed)
    step = _resume(folder / CHECKPOINT, model, optimizer, ema, generator)
    started = saved = logged = time.monotonic()
    asked_to_stop, usual = _stop_on_sigterm()
    sums: dict[str, float] = {}
    summed = 0  # steps in `sums`: fewer than `log_every` after a resume
    while step < course.steps and not asked_to_stop and (minutes is None or time.monotonic() - started < minutes * 60):
        for group in optimizer.param_groups:
            group["lr"] = course.rate_at(step)
        figures = _one_step(lesson, course, optimizer, device, generator, step)
        step += 1
        ema.update(model, step)
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value
        summed += 1
        now = time.monotonic()
        if step % course.log_every == 0:
            row = {k: v / summed for k, v in sums.items()}
            speed = course.batch_size * summed / max(now - logged, 1e-9)
            row |= {"learning_rate": course.rate_at(step), "pictures_per_s": speed}
            sums, summed, logged = {}, 0, now
            if average is not None and (step % evaluate_every == 0 or step == course.steps):
                ema.copy_to(average)
                row |= {f"val_{k}": v for k, v in lesson.evaluate(average.eval()).items()}
                logged = time.monotonic()
            _log(folder / "metrics.csv", step, row)
            if report:
                report(step, row)
        if now - saved > course.checkpoint_every_s:
            _save(folder / CHECKPOINT, model, optimizer, ema, generator, step)
            saved = now
    _save(folder / CHECKPOINT, model, optimizer, ema, generator, step)
    if usual is not None:
        signal.signal(signal.SIGTERM, usual)
    if average is not None:
        ema.copy_to(average)
    return step


def _stop_on_sigterm() -> tuple[list[int], Any]:
    """A list that SIGTERM makes non-empty, so that the run ends with its checkpoint written; and the handler before."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only there may a handler be set
        return asked, None
    return asked, signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))


def averaged_state(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a run's last checkpoint, float32."""
    if not (folder / CHECKPOINT).exists():
        raise WeightsError(f"no checkpoint in {folder}; train it with: python -m dalle_flow.train {folder.name}")
    state: dict[str, Tensor] = torch.load(folder / CHECKPOINT, weights_only=True, map_location="cpu")["ema"]
    return state


def _one_step(
    lesson: Lesson,
    course: Course,
    optimizer: torch.optim.Optimizer,
    device: str,
    generator: torch.Generator,
    step: int,
) -> dict[str, float]:
    batch = lesson.batch(course.batch_size, generator)
    lesson.model.train()
    half = torch.autocast(torch.device(device).type, dtype=torch.bfloat16) if course.bfloat16 else nullcontext()
    with half:
        loss, figures = lesson.loss(batch, step)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(lesson.model.parameters(), course.clip_norm)
    if torch.isfinite(norm):
        optimizer.step()
    return {"loss": float(loss.detach()), "skipped": float(not torch.isfinite(norm)), **figures}


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; norms, biases and other vectors do not."""
    parameters: Iterable[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def _save(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: Average,
    generator: torch.Generator,
    step: int,
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "ema": ema.state,
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)  # a kill leaves the old checkpoint or the new one, never half of one


def _resume(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Average, generator: torch.Generator
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    ema.state = {k: v.to(ema.state[k].device) for k, v in state["ema"].items()}
    generator.set_state(state["generator"])
    return int(state["step"])


def _log(path: Path, step: int, row: dict[str, float]) -> None:
    """Append one row; figures that only some rows have (evaluations) are written as name=value in the last column."""
    columns = ["step", "loss", "learning_rate", "pictures_per_s"]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow([*columns, "others"])
        others = " ".join(f"{k}={v:.5g}" for k, v in row.items() if k not in columns)
        writer.writerow([step, *(f"{row.get(c, 0.0):.6g}" for c in columns[1:]), others])
