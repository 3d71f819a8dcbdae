"""Executors as somebody else's package would bring them: pictures of noise, a ranker by brightness, an upscaler that
repeats pixels, and a segmenter that finds what is bright.

They need no weights, so that everything around executors can be tested in milliseconds; and they can be told to be slow
or to fail, which a real model cannot.
"""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from PIL import Image, ImageOps, ImageStat
from pydantic import Field

from dalle_flow.deep_picture import from_pixels, to_pixels
from dalle_flow.errors import FailureError
from dalle_flow.executors.base import Done, Executor, Output, Preview, Slot, StrictOptions, Task
from dalle_flow.types import Kind, RoundKind

SIZE_PX = (17, 5)  # odd on purpose


@dataclass(eq=False)
class NoiseSlot(Slot):
    seed: int = 0
    previews: list[Image.Image] = field(default_factory=list)


class NoiseGenerator(Executor):
    kind: ClassVar[Kind] = Kind.GENERATOR
    roles: ClassVar[tuple[str, ...]] = ()
    capacity = 4
    weights_id = "none"

    class Options(StrictOptions):
        num_inference_steps: int = Field(3, ge=1, le=1000, description="steps until a picture is done")
        contrast: float = Field(1.0, ge=0, le=1, description="0 is a grey picture")
        palette: Literal["colour", "grey"] = Field("colour", description="with colours or without")
        label: str = Field("", description="changes the picture as another prompt does")
        step_s: float = Field(0.0, ge=0, description="seconds that a step takes")
        fail_at: int | None = Field(None, ge=0, description="the step that fails")
        crash: bool = Field(False, description="fail with an error that nobody expects")

    class FromPicture(Options):
        strength: float = Field(0.75, gt=0, le=1, description="how much is made new; 1 ignores the given picture")

    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {
        RoundKind.GENERATE: Options,
        RoundKind.REFINE: FromPicture,
        RoundKind.INPAINT: FromPicture,
        RoundKind.INTERPOLATE: Options,
    }

    def __init__(self) -> None:
        self.held: set[Slot] = set()  # admitted, not done and not dropped
        self.widths: list[int] = []  # slots of each step

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        return cls()

    @classmethod
    def tiny(cls) -> Self:
        return cls()

    def admit(self, task: Task) -> Sequence[Slot]:
        assert len(self.held) + len(task) <= self.capacity, "admitted more than fits"
        steps = task.options.num_inference_steps
        slots = [NoiseSlot(task, task.first + i, of=steps, seed=seed) for i, seed in enumerate(task.seeds)]
        self.held.update(slots)
        return slots

    def step(self, slots: Sequence[Slot]) -> Iterator[Output]:
        self.widths.append(len(slots))
        for slot in slots:
            options = slot.task.options
            if slot.step == options.fail_at:
                raise RuntimeError("a fault") if options.crash else FailureError("the noise ran out")
            time.sleep(options.step_s)
            slot.step += 1
            image = self._draw(slot, slot.task.prompt)
            if slot.task.prompt_to is not None:
                image = Image.blend(image, self._draw(slot, slot.task.prompt_to), slot.task.position(slot.index))
            if (given := slot.task.init) is not None:
                assert given.mode == "RGB"
                image = Image.blend(given, image.resize(given.size), options.strength)
                if (mask := slot.task.mask) is not None:
                    assert (mask.mode, mask.size) == ("L", given.size)
                    image = Image.composite(image, given, mask)
            if slot.step == slot.of:
                self.held.remove(slot)
                yield Done(slot, image)
            elif slot.task.preview_every and slot.step % slot.task.preview_every == 0:
                yield Preview(slot, image)

    def drop(self, slots: Sequence[Slot]) -> None:
        self.held.difference_update(slots)

    def remarks(self, prompt: str) -> Sequence[str]:
        return [f"I do not know {word!r}" for word in prompt.split() if word.startswith("un")]

    def _draw(self, slot: NoiseSlot, prompt: str) -> Image.Image:
        options = slot.task.options
        text = f"{prompt}\n{options.label}".encode()
        rng = np.random.default_rng([slot.seed, *text])
        noise = rng.integers(256, size=(SIZE_PX[1], SIZE_PX[0], 3)) * options.contrast
        if options.palette == "grey":
            noise = noise.mean(axis=2, keepdims=True).repeat(3, axis=2)
        return Image.fromarray(noise.astype(np.uint8))


class PictureExecutor(Executor):
    """Base of the executors that do with each picture of a task something that takes one step and no weights."""

    roles: ClassVar[tuple[str, ...]] = ()
    capacity = 3
    weights_id = "none"

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        return cls()

    @classmethod
    def tiny(cls) -> Self:
        return cls()

    def admit(self, task: Task) -> Sequence[Slot]:
        return [Slot(task, task.first + i) for i in range(len(task))]

    def step(self, slots: Sequence[Slot]) -> Iterator[Output]:
        for slot in slots:
            slot.step = slot.of
            yield Done(slot, self.result(slot.task, slot.task.images[slot.index - slot.task.first]))

    def drop(self, slots: Sequence[Slot]) -> None:
        """Slots hold nothing here."""

    @abstractmethod
    def result(self, task: Task, image: Image.Image) -> Image.Image | float: ...


class BrightRanker(PictureExecutor):
    """Scores a picture by its brightness and ignores the prompt."""

    kind: ClassVar[Kind] = Kind.RANKER

    class Options(StrictOptions):
        """None."""

    def result(self, task: Task, image: Image.Image) -> float:
        return ImageStat.Stat(image.convert("L")).mean[0] / 255


class RepeatUpscaler(PictureExecutor):
    kind: ClassVar[Kind] = Kind.UPSCALER

    class Options(StrictOptions):
        scale: int = Field(4, ge=1, le=8, description="how many times as wide and high")

    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {RoundKind.UPSCALE: Options}

    def result(self, task: Task, image: Image.Image) -> Image.Image:
        scale = task.options.scale
        return from_pixels(to_pixels(image).repeat(scale, 0).repeat(scale, 1))


class BrightSegmenter(PictureExecutor):
    """Finds what is brighter than the mean, whatever it is asked for; and nothing where it is asked for nothing."""

    kind: ClassVar[Kind] = Kind.SEGMENTER

    class Options(StrictOptions):
        invert: bool = Field(False, description="white where the prompt is not")

    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {RoundKind.SEGMENT: Options}

    def result(self, task: Task, image: Image.Image) -> Image.Image:
        grey = image.convert("L")
        mean = 255 if task.prompt == "nothing" else ImageStat.Stat(grey).mean[0]
        mask = grey.point([255 * (value > mean) for value in range(256)])
        return ImageOps.invert(mask) if task.options.invert else mask
