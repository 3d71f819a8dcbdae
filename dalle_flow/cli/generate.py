"""`dalle-flow generate`: a prompt in, ranked pictures in a folder out."""

import json
import secrets
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .flags import AsJson, Flow, Weights
from .folder import SHEET, picture_names, round_folder
from .screen import Bar, bar

if TYPE_CHECKING:
    from ..engine.local import LocalEngine
    from ..types import Event, GenerateRequest, Round


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the pictures should show.")],
    num_images: Annotated[
        int, typer.Option("-n", "--num-images", metavar="N", help="Pictures of each generator, 1 to 1000.")
    ] = 9,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Picture i is drawn from seed + i; at random when not given.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the pictures go.")] = Path(
        "out"
    ),
    executor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A generator of the flow, may be given several times; all of them when not given."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[EXECUTOR.]OPTION=VALUE", help="An option; 'dalle-flow executors' lists them."),
    ] = None,
    weights: Weights = None,
    flow: Flow = None,
    as_json: AsJson = False,
    metadata: Annotated[
        bool, typer.Option("--metadata/--no-metadata", help="Whether each picture carries its recipe.")
    ] = True,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No bar; print the sheet's path alone.")] = False,
) -> None:
    """Make ranked pictures from a prompt.

    Writes 00.png, 01.png, ... and sheet.png, which shows all of them with their scores. A second run into the same
    folder replaces the files of the first and touches no others; round.json lists them.
    """
    from ..types import GenerateRequest

    _check_encoding(prompt)
    seed = secrets.randbelow(2**31) if seed is None else seed
    request = GenerateRequest(prompt, num_images, seed, executors=tuple(executor or ()))
    with bar(quiet=quiet) as line:
        line.show("starting")
        from .request import engine_for  # imports torch: after the first look at the request, for quick refusals

        engine = engine_for(flow, weights or [])
        request = _complete(engine, request, settings or [])
        names = picture_names(num_images * len(request.executors))
        with round_folder(output, names) as folder:
            finished = _run(engine, request, line)
            line.show("writing")
            folder.save(finished.id, _files(finished, names, metadata))
    if as_json:
        print(json.dumps(_document(finished, output, names), indent=2, allow_nan=False))
    elif quiet:
        print(output / SHEET)
    else:
        several = f"{len(names)} pictures, best first: {output / names[0]} to {names[-1]}"
        print(f"{several if len(names) > 1 else f'1 picture: {output / names[0]}'} (seed {seed})")
        print(f"sheet: {output / SHEET}")


def _check_encoding(prompt: str) -> None:
    """Bytes of the command line that are not UTF-8 arrive as half characters."""
    from ..errors import OptionError

    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise OptionError("the prompt is not valid UTF-8; check the terminal's encoding", field="prompt") from None


def _complete(engine: "LocalEngine", request: "GenerateRequest", settings: list[str]) -> "GenerateRequest":
    """The request with its generators named and its options parsed."""
    from ..registry import executor_class
    from ..types import Kind
    from .request import parse_settings

    names = request.executors or tuple(engine.names(Kind.GENERATOR))
    schemas = {name: executor_class(engine.plan(name).uses).option_schema() for name in names}
    return replace(request, executors=names, options=parse_settings(settings, schemas, tuple(engine.executors)))


def _run(engine: "LocalEngine", request: "GenerateRequest", line: Bar) -> "Round":
    """The round, told on the bar while it is made."""
    from ..errors import FailureError
    from ..flow import run
    from ..types import Ranked

    line.show("loading")
    with closing(run.generate(engine, request)) as events:
        for event in events:
            if isinstance(event, Ranked):
                return event.round
            _tell(event, request.executors, line)
    raise FailureError("the round ended without a result")


def _tell(event: "Event", generators: tuple[str, ...], line: Bar) -> None:
    from ..types import Progressed, Warned

    if isinstance(event, Warned):
        line.warn(event.message)
    elif isinstance(event, Progressed) and event.step < event.of:
        line.show(event.executor, event.step, event.of)
    elif isinstance(event, Progressed):
        after = generators[generators.index(event.executor) + 1 :]
        line.show(f"loading {after[0]}" if after else "ranking")


def _files(finished: "Round", names: list[str], metadata: bool) -> dict[str, bytes]:
    from ..images import contact_sheet, encode_png

    pictures = zip(names, finished.candidates, strict=True)
    files = {name: encode_png(c.image, c.recipe if metadata else None) for name, c in pictures}
    return {**files, SHEET: encode_png(contact_sheet(finished.candidates))}


def _document(finished: "Round", output: Path, names: list[str]) -> dict[str, Any]:
    """The round for machines: what `Round.to_dict` says, with where each picture is."""
    document = finished.to_dict()
    for place, candidate in enumerate(document["candidates"]):
        candidate["path"] = str(output / names[place])
    return {**document, "seed": document["request"]["seed"], "sheet": str(output / SHEET)}
