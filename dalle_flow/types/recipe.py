"""The recipe: whatever decides a picture. Canonical JSON, so that two equal recipes are equal texts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import ReplayError
from .kinds import MAX_IMAGES, MAX_SEED, Json, RoundKind


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a picture.

    `weights` is the hash of the executor's weights, `parent` the id of the picture it was made from, `mask` that of the
    mask a person gave, `versions` those of the software; the same recipe on the same machine gives the same pixels.
    A picture of an interpolation has `frame` (i, n), the i-th of n, and the second prompt in `prompt_to`.
    """

    executor: str
    weights: str
    prompt: str
    seed: int
    options: Mapping[str, Json] = field(default_factory=dict)
    parent: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    kind: RoundKind = RoundKind.GENERATE
    prompt_to: str | None = None
    frame: tuple[int, int] | None = None
    mask: str | None = None

    @property
    def shows(self) -> str:
        """The prompt that describes the picture: of two, the nearer one."""
        if self.prompt_to is None or self.frame is None:
            return self.prompt
        index, frames = self.frame
        return self.prompt if 2 * index < frames else self.prompt_to

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, text as it is."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        """The inverse of `to_json`; ReplayError when the text is not a recipe of this form.

        A recipe that lacks all fields of `LATER` is of a time when there was nothing but generating.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ReplayError("the recipe is not valid JSON; the picture was changed by another program") from error
        names = {f.name for f in fields(cls)}
        if isinstance(data, dict) and set(data) == names - set(LATER):
            data = {**LATER, **data}
        if not isinstance(data, dict) or set(data) != names:
            found = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise ReplayError(f"a recipe has exactly the fields {sorted(names)}; this one has {found!r:.200}")
        for name, (form, fits) in _FORMS.items():
            if not fits(data[name]):
                raise ReplayError(f"recipe field {name!r} must be {form}, got {data[name]!r:.80}")
        frame = data["frame"] and tuple(data["frame"])
        return cls(**{**data, "kind": RoundKind(data["kind"]), "frame": frame})


LATER: Mapping[str, Any] = {"kind": "generate", "prompt_to": None, "frame": None, "mask": None}


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def is_text(value: object) -> bool:
    """A string that can be written: no halves of characters."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_frame(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not all(type(number) is int for number in value):
        return False
    index, frames = value
    return bool(0 <= index < frames <= MAX_IMAGES)


def _or_null(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


# Recipe field -> what it must be, and the test of it. A recipe comes from a file that anybody may have written.
_FORMS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "executor": ("text", is_text),
    "weights": ("text", is_text),
    "prompt": ("text", is_text),
    "seed": (f"0 to {MAX_SEED}", lambda value: type(value) is int and 0 <= value <= MAX_SEED),
    "options": ("a table", lambda value: isinstance(value, dict)),
    "parent": ("text or null", _or_null(is_text)),
    "versions": ("a table of text", lambda value: isinstance(value, dict) and all(map(is_text, value.values()))),
    "kind": (f"one of {', '.join(RoundKind)}", lambda value: isinstance(value, str) and value in set(RoundKind)),
    "prompt_to": ("text or null", _or_null(is_text)),
    "frame": (f"[i, n] with i below n, n at most {MAX_IMAGES}, or null", _or_null(_is_frame)),
    "mask": ("text or null", _or_null(is_text)),
}
