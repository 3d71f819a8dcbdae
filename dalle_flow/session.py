"""The library's way in: `generate` and `replay` in this process, with models that stay loaded between calls."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path

from PIL import Image

from .engine.local import LocalEngine
from .errors import FailureError, OptionError
from .flow import run
from .flow.plan import EMBEDDED, read_plan
from .images import read_picture, recipe_of
from .types import Candidate, Event, GenerateRequest, Json, Ranked, Recipe, Round


def engine_of(flow: Path | str = EMBEDDED) -> LocalEngine:
    """The engine of a flow file; the same one until the file changes, so that models are loaded once."""
    path = Path(flow).resolve()
    return _engine(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4)
def _engine(flow: Path, changed_ns: int) -> LocalEngine:
    return LocalEngine(read_plan(flow).executors)


def generate(
    prompt: str,
    num_images: int = 1,
    *,
    seed: int | None = None,
    executors: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Json]] | None = None,
    flow: Path | str = EMBEDDED,
    on_event: Callable[[Event], None] | None = None,
    preview_every: int = 0,
) -> Round:
    """Make `num_images` pictures of each generator and rank them together.

    Args:
        prompt: what the pictures should show, 1 to 2,000 characters.
        num_images: per generator, 1 to 1,000.
        seed: picture i is drawn from seed + i; None draws one at random (it is in each picture's recipe).
        executors: generators of the flow by name; all of them when empty.
        options: per executor, such as {"dalle": {"temperature": 0.8}}.
        flow: a flow file; the embedded family by default.
        on_event: called with each event as it happens.
        preview_every: steps between previews of each picture (`Previewed` events); 0 makes none.

    Raises:
        UsageError: a value that is not allowed. FailureError: the pictures could not be made.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    if isinstance(executors, str):
        raise OptionError(f"executors is a sequence of names, such as [{executors!r}]", field="executors")
    request = GenerateRequest(prompt, num_images, seed, tuple(executors), options or {})
    with closing(run.generate(engine_of(flow), request, preview_every)) as events:  # when `on_event` raises, too
        for event in events:
            if on_event is not None:
                on_event(event)
            if isinstance(event, Ranked):
                return event.round
    raise FailureError("the round ended without a result")


def replay(source: Candidate | Recipe | Image.Image | Path | str, *, flow: Path | str = EMBEDDED) -> Candidate:
    """Make a picture again from its recipe, or from a candidate or PNG that carries one.

    Raises:
        ReplayError: no recipe in the picture, or made by other weights or another executor than the flow has.
    """
    if isinstance(source, str | Path):
        source = read_picture(Path(source))
    if isinstance(source, Image.Image):
        source = recipe_of(source)
    recipe = source.recipe if isinstance(source, Candidate) else source
    return run.replay(engine_of(flow), recipe)
