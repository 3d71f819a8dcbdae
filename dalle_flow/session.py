"""The library's way in: one function per kind of round, and `replay`; models stay loaded between calls."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from .errors import FailureError, OptionError, ReplayError
from .flow.engine import FlowEngine
from .flow.plan import EMBEDDED, flow_file, read_plan
from .flow.replay import replay as replay_recipe
from .flow.run import run_round
from .flow.tasks import executors_for
from .images import read_by, recipe_of
from .types import (
    Candidate,
    Deep,
    Event,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    Json,
    Ranked,
    Recipe,
    RefineRequest,
    Request,
    Round,
    SegmentRequest,
    UpscaleRequest,
)

Picture = Candidate | Image.Image | Deep | Path | str  # a picture, or the file of one
OnEvent = Callable[[Event], None]
Options = Mapping[str, Json]


def engine_of(flow: Path | str = EMBEDDED) -> FlowEngine:
    """The engine of a flow by its name or file; the same one until the file changes, so that models are loaded once."""
    path = flow_file(flow).resolve()
    return _engine(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _engine(flow: Path, changed_ns: int) -> FlowEngine:
    return FlowEngine(read_plan(flow))


def generate(
    prompt: str,
    num_images: int = 1,
    *,
    seed: int | None = None,
    executors: Sequence[str] = (),
    options: Mapping[str, Options] | None = None,
    flow: Path | str = EMBEDDED,
    on_event: OnEvent | None = None,
    preview_every: int = 0,
) -> Round:
    """Make `num_images` pictures of each generator and rank them together.

    Args:
        prompt: what the pictures should show, 1 to 2,000 characters.
        num_images: per generator, 1 to 1,000.
        seed: picture i is drawn from seed + i; None draws one at random (it is in each picture's recipe).
        executors: generators of the flow by name; all of them when empty.
        options: per executor, such as {"dalle": {"temperature": 0.8}}.
        flow: a flow of the package by name, or a flow file; the embedded family by default.
        on_event: called with each event as it happens.
        preview_every: steps between previews of each picture (`Previewed` events); 0 makes none.

    Raises:
        UsageError: a value that is not allowed. FailureError: the pictures could not be made.
    """
    names = _names(executors)
    request = GenerateRequest(prompt, num_images, _seed(seed), executors=names, options=options or {})
    return _run(request, flow, on_event, preview_every)


def refine(
    picture: Picture,
    prompt: str | None = None,
    num_images: int = 1,
    *,
    strength: float | None = None,
    seed: int | None = None,
    executors: Sequence[str] = (),
    options: Mapping[str, Options] | None = None,
    flow: Path | str = EMBEDDED,
    on_event: OnEvent | None = None,
    preview_every: int = 0,
) -> Round:
    """Make pictures like a given one, and rank them together.

    Args:
        picture: a candidate, a PIL picture, or a file (PNG, JPEG, WebP).
        prompt: what the pictures should show; None takes the prompt in the picture's recipe.
        strength: above 0, at most 1: how much is made new, 1 ignores the picture; None leaves it to the executors.

    The rest is as for `generate`.
    """
    image, recipe = _opened(picture)
    shows = prompt if prompt is not None else recipe.shows if recipe else ""
    if prompt is None and not shows:
        raise OptionError("the picture carries no prompt; say what the pictures should show", field="prompt")
    names = _names(executors)
    request = RefineRequest(image, shows, num_images, _seed(seed), executors=names, options=options or {})
    return _run(_with(request, flow, {"strength": strength}), flow, on_event, preview_every)


def inpaint(
    picture: Picture,
    prompt: str,
    mask: Picture | None = None,
    num_images: int = 1,
    *,
    strength: float | None = None,
    seed: int | None = None,
    executors: Sequence[str] = (),
    options: Mapping[str, Options] | None = None,
    flow: Path | str = EMBEDDED,
    on_event: OnEvent | None = None,
    preview_every: int = 0,
) -> Round:
    """Make a part of a picture new, in `num_images` ways per generator, ranked together.

    Args:
        mask: as large as the picture: white is made new, black is kept. None: what is transparent is made new.

    The rest is as for `refine`.
    """
    area = None if mask is None else _opened(mask)[0]
    names, count = _names(executors), num_images
    request = InpaintRequest(
        _opened(picture)[0], prompt, area, count, _seed(seed), executors=names, options=options or {}
    )
    return _run(_with(request, flow, {"strength": strength}), flow, on_event, preview_every)


def interpolate(
    prompt: str,
    prompt_to: str,
    num_images: int = 16,
    *,
    seed: int | None = None,
    executor: str | None = None,
    options: Options | None = None,
    flow: Path | str = EMBEDDED,
    on_event: OnEvent | None = None,
    preview_every: int = 0,
) -> Round:
    """Make a row of pictures from one prompt to another, all drawn from one seed; the candidates keep that order.

    Args:
        executor: a generator of the flow by name; the first that can when None.
        options: of that executor, such as {"num_inference_steps": 20}.

    The rest is as for `generate`.
    """
    request = InterpolateRequest(prompt, prompt_to, num_images, _seed(seed), executor=executor, options=options or {})
    return _run(request, flow, on_event, preview_every)


def upscale(
    picture: Picture,
    *,
    scale: float | None = None,
    executor: str | None = None,
    options: Options | None = None,
    flow: Path | str = EMBEDDED,
    on_event: OnEvent | None = None,
) -> Round:
    """Make a picture larger; the round has one candidate. 16 bits stay 16 (`deep_picture.DeepPicture` where in colour).

    Args:
        scale: how many times as wide and high; None: as the network was made for.
        executor: an upscaler of the flow by name; the first when None.

    The rest is as for `interpolate`.
    """
    image, recipe = _opened(picture)
    request = UpscaleRequest(image, recipe.shows if recipe else "", executor=executor, options=options or {})
    return _run(_with(request, flow, {"scale": scale}), flow, on_event)


def segment(
    picture: Picture,
    prompt: str,
    *,
    executor: str | None = None,
    options: Options | None = None,
    flow: Path | str = EMBEDDED,
    on_event: OnEvent | None = None,
) -> Round:
    """Find what a text names in a picture; the round's one candidate is the mask, "L", white where it is.

    Args:
        executor: a segmenter of the flow by name; the first when None.

    The rest is as for `interpolate`.
    """
    return _run(SegmentRequest(_opened(picture)[0], prompt, executor=executor, options=options or {}), flow, on_event)


def replay(
    source: Recipe | Picture,
    parent: Picture | None = None,
    mask: Picture | None = None,
    *,
    flow: Path | str = EMBEDDED,
) -> Candidate:
    """Make a picture again from its recipe, or from a candidate or PNG that carries one.

    Args:
        parent: the picture it was made from, where it was refined, inpainted, upscaled or segmented.
        mask: the mask that was given for inpainting.

    Raises:
        ReplayError: no recipe in the picture, or made by other weights or another executor than the flow has.
        UsageError: the parent or the mask is missing, or is not the one that the recipe names by its id.
    """
    if isinstance(source, str | Path):
        source = _read(Path(source))
    if isinstance(source, Image.Image | Deep):
        source = recipe_of(source)
    recipe = source.recipe if isinstance(source, Candidate) else source
    before, area = (None if given is None else _opened(given)[0] for given in (parent, mask))
    return replay_recipe(engine_of(flow), recipe, before, area)


def _run(request: Request, flow: Path | str, on_event: OnEvent | None, preview_every: int = 0) -> Round:
    with closing(run_round(engine_of(flow), request, preview_every)) as events:  # when `on_event` raises, too
        for event in events:
            if on_event is not None:
                on_event(event)
            if isinstance(event, Ranked):
                return event.round
    raise FailureError("the round ended without a result")


def _read(path: Path) -> Image.Image | Deep:
    from .deep_picture import decode_deep  # brings numpy

    return read_by(decode_deep, path)


def _opened(picture: Picture) -> tuple[Any, Recipe | None]:
    """A picture (PIL's, or of 16 bits), and its recipe where it carries one that can be read."""
    if isinstance(picture, Candidate):
        return picture.image, picture.recipe
    if isinstance(picture, str | Path):
        picture = _read(Path(picture))
    try:
        return picture, recipe_of(picture)
    except ReplayError:
        return picture, None


def _with(request: Request, flow: Path | str, values: Options) -> Request:
    """The request with these options for each of its executors; those that are None are left to the executors."""
    given = {option: value for option, value in values.items() if value is not None}
    names = executors_for(engine_of(flow), request)
    return request.done_by(names, dict.fromkeys(names, given)) if given else request


def _names(executors: Sequence[str]) -> tuple[str, ...]:
    if isinstance(executors, str):
        raise OptionError(f"executors is a sequence of names, such as [{executors!r}]", field="executors")
    return tuple(executors)


def _seed(seed: int | None) -> int:
    return secrets.randbelow(2**31) if seed is None else seed
