"""What a round gives: candidates with their scores, the round itself, and the events that tell of it."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .kinds import RoundKind
from .recipe import Recipe
from .requests import Request

if TYPE_CHECKING:
    from PIL import Image


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
    """One step with a person at its end: the request and its candidates, best first when a ranker ranked them.

    Of an interpolation the candidates are the pictures in their order; upscaling and segmenting give one candidate.
    """

    id: str
    request: Request
    candidates: tuple[Candidate, ...]
    ranker: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def kind(self) -> RoundKind:
        return self.request.kind

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind.value,
            "request": self.request.to_dict(),
            "ranker": self.ranker,
            "warnings": list(self.warnings),
            "candidates": [c.to_dict() for c in self.candidates],
        }

    def _repr_png_(self) -> bytes:
        """The contact sheet, for notebooks."""
        from ..images import contact_sheet, encode_png

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
