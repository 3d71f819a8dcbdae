"""The stages that make the embedded family, in order, and the recipe of each: sizes, steps, learning rates."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .codec import CodecLesson, codec_config
from .data import Dataset, Job, render_split
from .judge import Judge, JudgeConfig, JudgeLesson
from .loop import CHECKPOINT, Course, Lesson, averaged_state, train
from .sprites import load_sprites
from .world import S0, World

COURSES = {
    "judge": Course(steps=2500, batch_size=64, learning_rate=2e-3),
    "codec": Course(steps=2800, batch_size=64, learning_rate=1.5e-3, betas=(0.9, 0.95), weight_decay=0.01),
}


@dataclass
class Workshop:
    """One run of the chain: where it is kept and what it may use."""

    work: Path
    device: str = "cpu"
    threads: int = 2
    scenes: int = 150_000
    font: Path | None = None
    seed: int = 0
    minutes: float | None = None
    steps: int | None = None
    size_px: int = 64
    world: World = field(default_factory=lambda: S0)

    def course(self, name: str) -> Course:
        course = replace(COURSES[name], seed=self.seed)
        return course if self.steps is None else replace(course, steps=self.steps)

    def dataset(self, split: str) -> Dataset:
        return Dataset(self.work / split, self.world)

    def judge(self, name: str = "judge") -> Judge:
        """A trained judge, frozen."""
        judge = Judge(JudgeConfig.of(self.world))
        judge.load_state_dict(averaged_state(self.work / name))
        return judge.eval().requires_grad_(False)

    def learn(self, name: str, lesson: Lesson, average: nn.Module, evaluate_every: int = 500) -> None:
        """Train a lesson by its course in the folder of that name, printing a line per report."""
        torch.set_num_threads(self.threads)

        def report(step: int, row: dict[str, float]) -> None:
            figures = " ".join(f"{k}={v:.4g}" for k, v in row.items())
            print(f"{name} {step}/{course.steps} {figures}", flush=True)

        course = self.course(name)
        step = train(
            lesson,
            course,
            self.work / name,
            device=self.device,
            minutes=self.minutes,
            average=average,
            report=report,
            evaluate_every=evaluate_every,
        )
        print(f"{name}: {step} of {course.steps} steps done", flush=True)


def render_scenes(shop: Workshop) -> None:
    """The three splits; pictures only."""
    sprites = shop.work.parent / "sprites.npz"
    load_sprites(sprites, shop.font)
    for split, number in (("train", shop.scenes), ("val", 3000), ("heldout", 1000)):
        job: Any = Job(shop.work / split, sprites, split, number, shop.size_px)  # type: ignore[arg-type]
        render_split(job, shop.world, processes=shop.threads)


def train_judge(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    lesson = JudgeLesson(shop.dataset("train"), shop.dataset("val"))
    shop.learn("judge", lesson, Judge(lesson.model.config))


def train_codec(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    judge = shop.judge() if (shop.work / "judge" / CHECKPOINT).exists() else None
    lesson = CodecLesson(shop.dataset("train"), shop.dataset("val"), shop.size_px, judge)
    shop.learn("codec", lesson, type(lesson.model)(codec_config(shop.size_px)))


STAGES: dict[str, Callable[[Workshop], None]] = {
    "scenes": render_scenes,
    "judge": train_judge,
    "codec": train_codec,
}
