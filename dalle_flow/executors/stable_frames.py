"""Frames between two prompts of which each starts from the one before it ("resample_prior").

A frame alone must come out as it does in its row, so it makes the frames before it as well. Within a row they are made
once: the slots of a row share a `Row`, and only its first unfinished slot asks the model; the others wait for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from ..errors import OptionError
from ..models.subprompts import SubPrompt
from ..types import MAX_SEED
from .base import StrictOptions, Task
from .diffusion import DiffusionSlot, slerp


class Condition(NamedTuple):
    """What the UNet is told of one text."""

    context: Tensor  # (T, D)
    vector: Tensor | None  # (E,) of the whole text; XL only


@dataclass(eq=False)
class Row:
    """One interpolation: its finished frames, (C, h, w) scaled latents each, and how many are planned."""

    finished: list[Tensor] = field(default_factory=list)
    planned: int = 0

    def add(self, frame: int, latents: Tensor) -> None:
        """Keep a frame, unless another slot has made it meanwhile: then it is the same."""
        if frame == len(self.finished):
            self.finished.append(latents)


@dataclass(eq=False)
class StableSlot(DiffusionSlot):
    row: Row | None = None  # of a frame that starts from the one before it


class RowKey(NamedTuple):
    """What decides all frames of a row."""

    prompt: str
    prompt_to: str | None
    options: StrictOptions
    seed: int
    of: int

    @classmethod
    def of_task(cls, task: Task) -> "RowKey":
        """OptionError when its frames have not all the same seed: frame i draws from seed + i."""
        if len(set(task.seeds)) > 1:
            raise OptionError(f"the frames of a row have one seed, got {task.seeds[:4]}", field="seed")
        return cls(task.prompt, task.prompt_to, task.options, task.seeds[0], task.of or len(task))

    def seed_of(self, frame: int) -> int:
        return (self.seed + frame) % (MAX_SEED + 1)


def turns(slots: Sequence[StableSlot]) -> list[StableSlot]:
    """Those that may go on: slots without a row, and of each row the earliest frame."""
    first: dict[Row, StableSlot] = {}
    for slot in slots:
        if slot.row is not None and (slot.row not in first or slot.index < first[slot.row].index):
            first[slot.row] = slot
    return [slot for slot in slots if slot.row is None or first[slot.row] is slot]


def mixed_weights(one: Sequence[SubPrompt], other: Sequence[SubPrompt], position: float) -> list[float]:
    """The weights of sub-prompts between two prompts.

    Raises:
        OptionError: they have different numbers of sub-prompts.
    """
    if len(one) != len(other):
        raise OptionError(
            f"the two prompts have {len(one)} and {len(other)} weighted sub-prompts; between them, equally many are "
            "needed. Write '\\:' for a colon that belongs to the text.",
            field="prompt_to",
        )
    return [a.weight + position * (b.weight - a.weight) for a, b in zip(one, other, strict=True)]


def between(one: Condition, other: Condition, position: float) -> Condition:
    """On the arc from one text's states to the other's."""
    vector = None
    if one.vector is not None and other.vector is not None:
        vector = slerp(one.vector, other.vector, position)
    return Condition(slerp(one.context, other.context, position), vector)
