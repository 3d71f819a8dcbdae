"""The records every layer shares: requests, recipes, candidates, rounds, events. Frozen, no torch.

Whatever decides a picture is in its `Recipe`; a recipe is canonical JSON, so two equal recipes are equal texts.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import OptionError, ReplayError

if TYPE_CHECKING:
    from PIL import Image

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

MAX_SEED = 2**32 - 1  # torch's CPU generator reads 32 bits: a larger seed would give a smaller one's picture again
MAX_IMAGES = 1000  # per round; a person does not look at more, and a typo should not run for a day
MAX_PROMPT_CHARACTERS = 2000  # far above the 64 or 77 text tokens that models read


class Kind(StrEnum):
    """What an executor does."""

    GENERATOR = "generator"  # text [+ picture] -> pictures
    RANKER = "ranker"  # pictures + text -> scores
    UPSCALER = "upscaler"
    SEGMENTER = "segmenter"


class RoundKind(StrEnum):
    """What a round asks for: one step with a person at its end."""

    GENERATE = "generate"  # text -> pictures
    REFINE = "refine"  # picture + text -> pictures like it
    INPAINT = "inpaint"  # picture + mask + text -> pictures with a part made new
    INTERPOLATE = "interpolate"  # two texts -> a row of pictures from one to the other
    UPSCALE = "upscale"  # picture -> a larger one
    SEGMENT = "segment"  # picture + text -> a mask of what the text names


@dataclass(frozen=True)
class ExecutorPlan:
    """One executor of a flow: its class by registry name, weights by role, options that a request does not give."""

    name: str
    uses: str
    weights: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Json] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a picture.

    `weights` is the hash of the executor's weights, `parent` the id of the picture it was made from,
    `versions` those of the software; the same recipe on the same machine gives the same pixels.
    """

    executor: str
    weights: str
    prompt: str
    seed: int
    options: Mapping[str, Json] = field(default_factory=dict)
    parent: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, text as it is."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The inverse of `to_json`; ReplayError when the text is not a recipe of this form."""
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ReplayError("the recipe is not valid JSON; the picture was changed by another program") from error
        names = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            found = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise ReplayError(f"a recipe has exactly the fields {sorted(names)}; this one has {found!r:.200}")
        for name, (form, fits) in _FORMS.items():
            if not fits(data[name]):
                raise ReplayError(f"recipe field {name!r} must be {form}, got {data[name]!r:.80}")
        return cls(**data)


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _is_text(value: object) -> bool:
    """A string that can be written: no halves of characters."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


# Recipe field -> what it must be, and the test of it. A recipe comes from a file that anybody may have written.
_FORMS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "executor": ("text", _is_text),
    "weights": ("text", _is_text),
    "prompt": ("text", _is_text),
    "seed": (f"0 to {MAX_SEED}", lambda value: type(value) is int and 0 <= value <= MAX_SEED),
    "options": ("a table", lambda value: isinstance(value, dict)),
    "parent": ("text or null", lambda value: value is None or _is_text(value)),
    "versions": ("a table of text", lambda value: isinstance(value, dict) and all(map(_is_text, value.values()))),
}


@dataclass(frozen=True)
class GenerateRequest:
    """A wish for pictures: `num_images` of each generator in `executors` (all of the flow's when empty).

    Picture i of an executor is drawn from seed `seed + i`. `options` holds per-executor options by name.
    """

    prompt: str
    num_images: int = 1
    seed: int = 0
    executors: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise OptionError(f"the prompt must be text, got {self.prompt!r:.60}", field="prompt")
        for name, value in (("num_images", self.num_images), ("seed", self.seed)):
            if type(value) is not int:  # True is an int to Python, and a whole number of numpy is none
                raise OptionError(f"{name} must be a whole number (int), got {value!r:.60}", field=name)
        if type(self.executors) is not tuple:
            raise OptionError(f"executors must be a tuple of names, got {self.executors!r:.60}", field="executors")
        if not self.prompt.strip():
            raise OptionError("the prompt is empty; say what the picture should show", field="prompt")
        if len(self.prompt) > MAX_PROMPT_CHARACTERS:
            raise OptionError(
                f"the prompt has {len(self.prompt)} characters; at most {MAX_PROMPT_CHARACTERS} are allowed",
                field="prompt",
            )
        if not _is_text(self.prompt):
            raise OptionError("the prompt is not valid Unicode: it holds half a character", field="prompt")
        if not 1 <= self.num_images <= MAX_IMAGES:
            raise OptionError(f"num_images must be 1 to {MAX_IMAGES}, got {self.num_images}", field="num_images")
        if not 0 <= self.seed <= MAX_SEED - MAX_IMAGES:
            raise OptionError(f"seed must be 0 to {MAX_SEED - MAX_IMAGES}, got {self.seed}", field="seed")
        for name in self.executors:
            if self.executors.count(name) > 1:
                raise OptionError(f"executors name {name!r} twice", field="executors")


@dataclass(frozen=True)
class Score:
    """What a ranker says of one picture, as CLIP-as-service gives it."""

    cosine: float  # of the picture's and the prompt's features, -1 to 1
    probability: float  # softmax of 100 * cosine over the pictures ranked together


@dataclass(frozen=True, eq=False)
class Candidate:
    """One picture offered in a round. `id` is the hash of its pixels."""

    id: str
    image: "Image.Image"
    recipe: Recipe
    score: Score | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, ready for JSON."""
        scores = None if self.score is None else asdict(self.score)
        return {"id": self.id, "recipe": json.loads(self.recipe.to_json()), "score": scores}


@dataclass(frozen=True, eq=False)
class Round:
    """One step with a person at its end: the request and its candidates, best first when a ranker ranked them."""

    id: str
    kind: Literal["generate"]
    request: GenerateRequest
    candidates: tuple[Candidate, ...]
    ranker: str | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "request": asdict(self.request),
            "ranker": self.ranker,
            "warnings": list(self.warnings),
            "candidates": [c.to_dict() for c in self.candidates],
        }

    def _repr_png_(self) -> bytes:
        """The contact sheet, for notebooks."""
        from .images import contact_sheet, encode_png

        return encode_png(contact_sheet(self.candidates))


@dataclass(frozen=True)
class Started:
    """An executor begins; `loading_s` seconds went into loading it, 0 when it was resident."""

    executor: str
    loading_s: float


@dataclass(frozen=True)
class Progressed:
    """An executor has done `step` of `of` steps for the whole request, all pictures together."""

    executor: str
    step: int
    of: int


@dataclass(frozen=True, eq=False)
class Previewed:
    """How picture `index` of an executor looks at the moment."""

    executor: str
    index: int
    image: "Image.Image"


@dataclass(frozen=True, eq=False)
class Finished:
    """A candidate is complete, not ranked yet."""

    candidate: Candidate


@dataclass(frozen=True, eq=False)
class Ranked:
    """All candidates in their order; the last event before the person picks."""

    round: Round


@dataclass(frozen=True)
class Warned:
    """Something the person should know, such as words that the model does not know."""

    message: str


Event = Started | Progressed | Previewed | Finished | Ranked | Warned
