"""What the commands of all rounds share: from the options as typed to the files that were made."""

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .folder import SHEET, picture_names, round_folder
from .screen import Bar, bar

if TYPE_CHECKING:
    from PIL import Image

    from ..flow.engine import FlowEngine
    from ..types import (
        Candidate,
        Event,
        GenerateRequest,
        InpaintRequest,
        InterpolateRequest,
        Recipe,
        RefineRequest,
        Request,
        Round,
    )

    Drawn = GenerateRequest | RefineRequest | InpaintRequest | InterpolateRequest  # requests of so many pictures

R = TypeVar("R", bound="Request")
Encode = Callable[[Sequence["Image.Image"]], bytes]  # of an animation


@dataclass(frozen=True)
class Wish:
    """How a round is to be done and told of, as the options that all rounds share say it."""

    settings: Sequence[str] | None = None
    weights: Sequence[str] | None = None
    flow: Path | None = None
    as_json: bool = False
    metadata: bool = True
    quiet: bool = False


def into_folder(
    request: "Drawn",
    wish: Wish,
    output: Path,
    *,
    sources: Sequence[Path] = (),
    animations: Mapping[str, Encode] | None = None,
) -> None:
    """Do a round of many pictures, write its folder, and say so. `sources` are files that it must not replace."""
    animations = animations or {}
    with bar(quiet=wish.quiet) as line:
        engine, request = prepare(request, wish, line)
        names = picture_names(request.num_images * len(request.named))
        with round_folder(output, [*names, *animations], sources) as folder:
            finished = run(engine, request, line)
            line.show("writing")
            pictures = [candidate.image for candidate in finished.candidates]
            moving = {name: encode(pictures) for name, encode in animations.items()}
            folder.save(finished.id, {**_files(finished, names, wish.metadata), **moving})
    places = {"sheet": output / SHEET, **{name: output / name for name in animations}}
    if wish.as_json:
        print_document(finished, [output / name for name in names], places)
    elif wish.quiet:
        print(output / SHEET)
    else:
        order = "best first" if finished.ranker else "in order"
        several = f"{len(names)} pictures, {order}: {output / names[0]} to {names[-1]}"
        print(f"{several if len(names) > 1 else f'1 picture: {output / names[0]}'} (seed {request.seed})")
        for name in animations:
            print(f"animation: {output / name}")
        print(f"sheet: {output / SHEET}")


def into_file(request: "Request", wish: Wish, output: Path, more: Mapping[Path, Encode] | None = None) -> "Round":
    """Do a round of one picture and write it; and what else is made of it, which is written first."""
    from ..deep_picture import encode_deep
    from ..images import write_file

    with bar(quiet=wish.quiet) as line:
        engine, request = prepare(request, wish, line)
        finished = run(engine, request, line)
        line.show("writing")
        candidate = finished.candidates[0]
        files = {path: encode([candidate.image]) for path, encode in (more or {}).items()}
        for path, data in {**files, output: encode_deep(candidate.image, _kept(candidate, wish.metadata))}.items():
            write_file(path, data)
    return finished


def prepare(request: R, wish: Wish, line: Bar) -> tuple["FlowEngine", R]:
    """The engine, and the request with its executors named and its options parsed."""
    line.show("starting")
    from ..flow.tasks import executors_for
    from ..registry import executor_class
    from .request import engine_for, parse_settings  # torch comes with it: after the first look at the request

    engine = engine_for(wish.flow, wish.weights or (), request.named, request.kind)
    names = executors_for(engine, request)
    schemas = {name: executor_class(engine.plan(name).uses).option_schema(request.kind) for name in names}
    others = tuple(engine.executors)
    return engine, request.done_by(names, parse_settings(wish.settings or (), schemas, others, request.kind))


def run(engine: "FlowEngine", request: "Request", line: Bar) -> "Round":
    """The round, told on the bar while it is made."""
    from ..errors import FailureError
    from ..flow.run import run_round
    from ..types import Ranked

    line.show("loading")
    with closing(run_round(engine, request)) as events:
        for event in events:
            if isinstance(event, Ranked):
                return event.round
            _tell(event, request.named, line)
    raise FailureError("the round ended without a result")


def print_document(finished: "Round", paths: Sequence[Path], places: Mapping[str, Path]) -> None:
    """The round for machines: what `Round.to_dict` says, with where each picture is."""
    document: dict[str, Any] = finished.to_dict()
    for path, candidate in zip(paths, document["candidates"], strict=True):
        candidate["path"] = str(path)
    if "seed" in document["request"]:
        document["seed"] = document["request"]["seed"]
    print(json.dumps({**document, **{name: str(path) for name, path in places.items()}}, indent=2, allow_nan=False))


def opened(path: Path) -> tuple[Any, "Recipe | None"]:
    """A picture (PIL's, or a `DeepPicture` of 16 bits), and its recipe where it carries one that can be read."""
    from ..deep_picture import decode_deep
    from ..errors import ReplayError
    from ..images import read_by, recipe_of

    image = read_by(decode_deep, path)
    try:
        return image, recipe_of(image)
    except ReplayError:
        return image, None


def seed_or_random(seed: int | None) -> int:
    return secrets.randbelow(2**31) if seed is None else seed


def with_option(settings: Sequence[str] | None, option: str, value: object) -> list[str]:
    """`--set` arguments with a flag's value before them; None: the flag was not given."""
    text = value if isinstance(value, str) else json.dumps(value)
    return [*([] if value is None else [f"{option}={text}"]), *(settings or ())]


def as_number(text: str | None) -> float | str | None:
    """The number that a flag's text says, whole where it is; else the text itself, for the option to refuse."""
    try:
        value = float(text or "")
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    return int(value) if value.is_integer() else value


def check_encoding(*prompts: str | None) -> None:
    """Bytes of the command line that are not UTF-8 arrive as half characters."""
    from ..errors import OptionError

    try:
        "".join(prompt or "" for prompt in prompts).encode()
    except UnicodeEncodeError:
        raise OptionError("the prompt is not valid UTF-8; check the terminal's encoding", field="prompt") from None


def _tell(event: "Event", executors: tuple[str, ...], line: Bar) -> None:
    from ..types import Progressed, Warned

    if isinstance(event, Warned):
        line.warn(event.message)
    elif isinstance(event, Progressed) and event.step < event.of:
        line.show(event.executor, event.step, event.of)
    elif isinstance(event, Progressed):
        after = executors[executors.index(event.executor) + 1 :]
        line.show(f"loading {after[0]}" if after else "finishing")


def _files(finished: "Round", names: list[str], metadata: bool) -> dict[str, bytes]:
    from ..images import contact_sheet, encode_png

    pictures = zip(names, finished.candidates, strict=True)
    files = {name: encode_png(c.image, _kept(c, metadata)) for name, c in pictures}
    return {**files, SHEET: encode_png(contact_sheet(finished.candidates))}


def _kept(candidate: "Candidate", metadata: bool) -> "Recipe | None":
    return candidate.recipe if metadata else None
