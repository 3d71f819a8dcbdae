"""What a person can ask for, one class per kind of round. A request checks all that can be checked without a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..errors import OptionError
from .kinds import MAX_IMAGES, MAX_PROMPT_CHARACTERS, MAX_SEED, Json, RoundKind
from .pictures import (
    HALF,
    Deep,
    as_any_depth,
    as_mask,
    as_picture,
    highest,
    is_black,
    is_transparent,
    picture_id,
    transparent_part,
)
from .recipe import is_text

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Request:
    """Base of all requests. Pictures in it are of the form that `as_picture` gives."""

    kind: ClassVar[RoundKind]

    @property
    def named(self) -> tuple[str, ...]:
        """The executors that the request names; none: the flow's."""
        raise NotImplementedError

    def options_by_name(self, names: tuple[str, ...]) -> Mapping[str, Mapping[str, Json]]:
        """The request's options by executor, `names` being those that will do it."""
        raise NotImplementedError

    def done_by(self, names: tuple[str, ...], options: Mapping[str, Mapping[str, Json]]) -> Self:
        """The request with its executors named, and with these options by executor where it says nothing itself."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; instead of pictures their ids."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind.value, **{name: _plain(value) for name, value in values.items()}}


@dataclass(frozen=True, kw_only=True)
class SeveralExecutors(Request):
    """A request that several executors do side by side, `num_images` pictures each, ranked together.

    `executors` are names of the flow's executors; all that can do it when empty. `options` go by executor.
    """

    executors: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    @property
    def named(self) -> tuple[str, ...]:
        return self.executors

    def options_by_name(self, names: tuple[str, ...]) -> Mapping[str, Mapping[str, Json]]:
        return self.options

    def done_by(self, names: tuple[str, ...], options: Mapping[str, Mapping[str, Json]]) -> Self:
        more = {name: {**given, **self.options.get(name, {})} for name, given in options.items()}
        return replace(self, executors=names, options={**self.options, **more})

    def _check_executors(self) -> None:
        if type(self.executors) is not tuple:
            raise OptionError(f"executors must be a tuple of names, got {self.executors!r:.60}", field="executors")
        for name in self.executors:
            if self.executors.count(name) > 1:
                raise OptionError(f"executors name {name!r} twice", field="executors")


@dataclass(frozen=True, kw_only=True)
class OneExecutor(Request):
    """A request that one executor does, by default the flow's first that can. `options` are its."""

    executor: str | None = None
    options: Mapping[str, Json] = field(default_factory=dict)

    @property
    def named(self) -> tuple[str, ...]:
        return () if self.executor is None else (self.executor,)

    def options_by_name(self, names: tuple[str, ...]) -> Mapping[str, Mapping[str, Json]]:
        return {names[0]: self.options}

    def done_by(self, names: tuple[str, ...], options: Mapping[str, Mapping[str, Json]]) -> Self:
        return replace(self, executor=names[0], options={**options.get(names[0], {}), **self.options})

    def _check_executor(self) -> None:
        if not isinstance(self.executor, str | None):
            raise OptionError(f"executor must be a name, got {self.executor!r:.60}", field="executor")


@dataclass(frozen=True)
class GenerateRequest(SeveralExecutors):
    """A wish for pictures: picture i of an executor is drawn from seed `seed + i`."""

    kind: ClassVar[RoundKind] = RoundKind.GENERATE
    prompt: str
    num_images: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        _check_numbers(self.num_images, self.seed)
        self._check_executors()


@dataclass(frozen=True)
class RefineRequest(SeveralExecutors):
    """A wish for pictures like a given one; how like, the executors' option `strength` says."""

    kind: ClassVar[RoundKind] = RoundKind.REFINE
    picture: "Image.Image"
    prompt: str
    num_images: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        _check_numbers(self.num_images, self.seed)
        self._check_executors()
        object.__setattr__(self, "picture", as_picture(self.picture))


@dataclass(frozen=True)
class InpaintRequest(SeveralExecutors):
    """A wish for a picture with a part made new: the mask's white part, or without a mask the transparent part."""

    kind: ClassVar[RoundKind] = RoundKind.INPAINT
    picture: "Image.Image"
    prompt: str
    mask: "Image.Image | None" = None
    num_images: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        _check_numbers(self.num_images, self.seed)
        self._check_executors()
        object.__setattr__(self, "picture", as_picture(self.picture))
        if self.mask is not None:
            object.__setattr__(self, "mask", as_mask(self.mask))
        if self.mask is None and not is_transparent(self.picture):
            raise OptionError("there is no mask, and no part of the picture is transparent; give a mask", field="mask")
        if self.part.size != self.picture.size:
            mask, picture = (f"{image.width} x {image.height}" for image in (self.part, self.picture))
            raise OptionError(f"the mask is {mask} and the picture {picture}; they must be of one size", field="mask")
        if is_black(self.part):
            raise OptionError(f"{self._nothing_new()}: there is nothing to make new", field="mask")

    def _nothing_new(self) -> str:
        brightest = highest(self.part)
        if self.mask is None:
            return (
                f"no pixel of the picture is transparent enough: the clearest has an alpha of {255 - brightest}, "
                f"and up to {255 - HALF} counts as transparent"
            )
        if brightest == 0:
            return "the mask is black; white is made new, black is kept"
        return (
            f"no pixel of the mask is white, which is made new: its brightest is {brightest} of 255, "
            f"and {HALF} or more counts as white"
        )

    @property
    def part(self) -> "Image.Image":
        """The mask, "L", of what is made new, given or not."""
        return transparent_part(self.picture) if self.mask is None else self.mask


@dataclass(frozen=True)
class InterpolateRequest(OneExecutor):
    """A wish for a row of pictures from one prompt to another, all of them drawn from one seed."""

    kind: ClassVar[RoundKind] = RoundKind.INTERPOLATE
    prompt: str
    prompt_to: str
    num_images: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        _check_prompt(self.prompt_to, "prompt_to")
        _check_numbers(self.num_images, self.seed)
        self._check_executor()


@dataclass(frozen=True)
class UpscaleRequest(OneExecutor):
    """A wish for a larger picture, of 8 or 16 bits. `prompt` says what it shows: its recipe keeps that."""

    kind: ClassVar[RoundKind] = RoundKind.UPSCALE
    picture: "Image.Image | Deep"
    prompt: str = ""

    def __post_init__(self) -> None:
        if self.prompt != "":
            _check_prompt(self.prompt)
        self._check_executor()
        object.__setattr__(self, "picture", as_any_depth(self.picture))


@dataclass(frozen=True)
class SegmentRequest(OneExecutor):
    """A wish for the mask of what `prompt` names in a picture."""

    kind: ClassVar[RoundKind] = RoundKind.SEGMENT
    picture: "Image.Image"
    prompt: str

    def __post_init__(self) -> None:
        _check_prompt(self.prompt)
        self._check_executor()
        object.__setattr__(self, "picture", as_picture(self.picture))


def _check_prompt(prompt: str, field: str = "prompt") -> None:
    name = {"prompt": "the prompt", "prompt_to": "the second prompt"}[field]
    if not isinstance(prompt, str):
        raise OptionError(f"{name} must be text, got {prompt!r:.60}", field=field)
    if not prompt.strip():
        raise OptionError(f"{name} is empty; say what the picture should show", field=field)
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise OptionError(
            f"{name} has {len(prompt)} characters; at most {MAX_PROMPT_CHARACTERS} are allowed", field=field
        )
    if not is_text(prompt):
        raise OptionError(f"{name} is not valid Unicode: it holds half a character", field=field)


def _check_numbers(num_images: int, seed: int) -> None:
    for name, value in (("num_images", num_images), ("seed", seed)):
        if type(value) is not int:  # True is an int to Python, and a whole number of numpy is none
            raise OptionError(f"{name} must be a whole number (int), got {value!r:.60}", field=name)
    if not 1 <= num_images <= MAX_IMAGES:
        raise OptionError(f"num_images must be 1 to {MAX_IMAGES}, got {num_images}", field="num_images")
    if not 0 <= seed <= MAX_SEED - MAX_IMAGES:
        raise OptionError(f"seed must be 0 to {MAX_SEED - MAX_IMAGES}, got {seed}", field="seed")


def _plain(value: Any) -> Any:
    if hasattr(value, "tobytes"):
        return picture_id(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value
