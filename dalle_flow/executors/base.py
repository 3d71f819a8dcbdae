"""What every executor is: a model behind one verb that steps slots.

An executor never "runs a request". It turns a task into slots, one per picture, and steps all slots given to it at
once: one token, one denoising step, one tile each. Whoever owns the device (engine/device.py) decides which slots run
together, so batching, exact counts, cancelling and previews are written once, there.

Promise of every executor, held by tests/executors/test_contract.py: a picture depends on its task's prompt, options
and its own seed alone, never on the slots beside it; alone or in any batch it is the same within 2/255.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import OptionError
from ..types import Json, Kind, RoundKind

# pydantic's faults that say no more than what the option takes: of another type, out of its range, another choice.
PLAIN_FAULTS = re.compile(r"(float|int|bool|string|literal)_(type|error|from_float)|(greater|less)_than(_equal)?")
LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<", "multipleOf": "x"}


class StrictOptions(BaseModel):
    """Options of one executor. The one source of validation, `--help`, JSON schema and the page's form."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def parse(cls, values: Mapping[str, Json]) -> Self:
        """Untrusted values -> options; OptionError naming the first option that is wrong and what is allowed."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise OptionError(
                    f"no option {name!r}; options are: {', '.join(cls.model_fields)}", field=name
                ) from None
            takes = f"; it takes {cls.allowed(str(first['loc'][0]))}" if first["loc"] else ""
            plain = len(first["loc"]) == 1 and PLAIN_FAULTS.fullmatch(first["type"])
            fault = "" if plain else f"{first['msg']}, "
            raise OptionError(f"option {name!r}: {fault}got {first['input']!r:.80}{takes}", field=name) from None

    @classmethod
    def allowed(cls, option: str) -> str:
        """What an option takes: `number >= 0 <= 50`, `auto | one | two`, `integer or null`."""
        return _allowed(cls.model_json_schema()["properties"][option])


def _allowed(field: Mapping[str, Any]) -> str:
    if "enum" in field or "const" in field:
        return " | ".join(str(value) for value in field.get("enum", [field.get("const")]))
    if parts := field.get("anyOf"):
        return " or ".join(_allowed(part) for part in parts)
    limits = [f"{sign} {field[key]}" for key, sign in LIMITS.items() if key in field]
    return " ".join([str(field.get("type", "any")), *limits])


@dataclass(frozen=True, eq=False)
class Task:
    """Work for one executor: `len(seeds)` pictures to make, or `len(images)` to score, upscale or segment.

    Picture i of the task is `seeds[i]`; `first` is the index of the task's first picture in the request it came from,
    `of` how many pictures the whole request has. `options` are of the class that `Executor.verbs` names for `kind`.
    """

    prompt: str
    options: StrictOptions
    seeds: tuple[int, ...] = ()
    images: tuple[Image.Image, ...] = ()
    first: int = 0
    preview_every: int = 0  # steps between previews; 0: none
    kind: RoundKind = RoundKind.GENERATE
    init: Image.Image | None = None  # refine, inpaint: the picture to start from, RGB or RGBA
    mask: Image.Image | None = None  # inpaint: "L", as large as `init`; white is made new, black is kept
    prompt_to: str | None = None  # interpolate: picture 0 shows `prompt`, the last one this
    of: int = 0  # pictures of the whole request; 0: as many as are here

    def __len__(self) -> int:
        return max(len(self.seeds), len(self.images))

    def position(self, index: int) -> float:
        """Where picture `index` of the request stands between `prompt` (0) and `prompt_to` (1)."""
        return index / max(1, (self.of or len(self)) - 1)

    def part(self, start: int, stop: int) -> "Task":
        """The pictures start..stop of this task as a task of their own."""
        seeds, images = self.seeds[start:stop], self.images[start:stop]
        return replace(self, seeds=seeds, images=images, first=self.first + start, of=self.of or len(self))


@dataclass(eq=False)
class Slot:
    """One picture being made. Executors subclass it with what they keep per picture."""

    task: Task
    index: int  # of the picture in the request
    step: int = 0
    of: int = 1  # steps until done


@dataclass(frozen=True)
class Progress:
    """All pictures of the task together: `step` of `of` steps done. Made by the slot loop, not by executors."""

    step: int
    of: int


@dataclass(frozen=True, eq=False)
class Preview:
    slot: Slot
    image: Image.Image


@dataclass(frozen=True, eq=False)
class Done:
    """A slot is finished; it holds nothing in the executor any more.

    `result` is a picture; of a segmenter the mask, "L", white where the prompt is; of a ranker the cosine.
    """

    slot: Slot
    result: Image.Image | float


Output = Progress | Preview | Done


class Executor(ABC):
    """Base of all executors. `capacity` is how many slots it holds at a time."""

    kind: ClassVar[Kind]
    Options: ClassVar[type[StrictOptions]]  # of its first verb; what the others take besides, `verbs` says
    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {}  # rounds it can do, each with its options
    roles: ClassVar[tuple[str, ...]]  # names of the weights it needs: each a folder or file
    optional_roles: ClassVar[tuple[str, ...]] = ()  # weights it can do without
    libraries: ClassVar[tuple[str, ...]] = ("torch",)  # whose versions may decide a picture; they go into recipes
    capacity: int
    weights_id: str  # hash of the weights, for recipes

    @classmethod
    @abstractmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        """Read the weights; slow, once. WeightsError when they are missing, damaged or of another model."""

    @classmethod
    def can_find(cls, path: Path) -> bool:
        """Whether there may be weights at that path. An executor that also takes names of a hub says so here."""
        return path.exists()

    @classmethod
    @abstractmethod
    def tiny(cls) -> Self:
        """The real classes at toy size with random weights and no files, for tests."""

    @abstractmethod
    def admit(self, task: Task) -> Sequence[Slot]:
        """One slot per picture of the task: prompt encoded, random stream seeded."""

    @abstractmethod
    def step(self, slots: Sequence[Slot]) -> Iterator[Output]:
        """Advance every slot given by one step; yields previews, and Done for each slot that finished."""

    @abstractmethod
    def drop(self, slots: Sequence[Slot]) -> None:
        """Free what unfinished slots hold; they will not be stepped again."""

    def remarks(self, prompt: str) -> Sequence[str]:
        """What the person should know about a prompt before it runs, such as unknown words. Nothing by default."""
        return ()

    @classmethod
    def option_schema(cls, kind: RoundKind | None = None) -> dict[str, Any]:
        """JSON schema of the options of a kind of round; None: of its first verb."""
        return (cls.Options if kind is None else cls.verbs[kind]).model_json_schema()
