"""A request and a flow -> who does it, with which options, and the task. All is checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from ..engine.local import LocalEngine
from ..errors import OptionError, UsageError
from ..executors.base import StrictOptions, Task
from ..types import (
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    Kind,
    OneExecutor,
    RefineRequest,
    Request,
    RoundKind,
    SegmentRequest,
    UpscaleRequest,
    is_transparent,
    on_white,
)

if TYPE_CHECKING:
    from PIL import Image

DOERS = {RoundKind.UPSCALE: Kind.UPSCALER, RoundKind.SEGMENT: Kind.SEGMENTER}  # of all others: a generator


def executors_for(engine: LocalEngine, request: Request) -> tuple[str, ...]:
    """The executors that will do the request: those it names, or those of the flow that can.

    Raises:
        UsageError: none can. OptionError: one that is named cannot. UnknownNameError: the flow has none of that name.
    """
    kind = request.kind
    doer, able = DOERS.get(kind, Kind.GENERATOR), engine.able(kind)
    for name in request.named:
        engine.plan(name)
        if name not in engine.names(doer):
            others = f"; {doer}s are: {', '.join(engine.names(doer))}" if engine.names(doer) else ""
            raise OptionError(f"{name!r} is not a{'n' * (doer[0] in 'aeiou')} {doer}{others}", field="executor")
        if name not in able:
            others = f"{', '.join(able)} can" if able else "none of this flow can"
            raise OptionError(f"{name!r} cannot {kind}; {others}", field="executor")
    if not able:
        cannot = f"no {doer}" if not engine.names(doer) else f"no {doer} that can {kind}"
        raise UsageError(f"the flow has {cannot}; its executors are: {_listed(engine)}", field="flow")
    return request.named or tuple(able[:1] if isinstance(request, OneExecutor) else able)


def options_for(engine: LocalEngine, request: Request, names: tuple[str, ...]) -> Mapping[str, StrictOptions]:
    """The options of each of these executors: the request's over the flow's; OptionError for any that is wrong."""
    given = request.options_by_name(names)
    stray = [name for name in given if name not in names]
    if stray:
        problem = f"options for {stray[0]!r}, which is not asked to {request.kind}"
        example = f"{{{names[0]!r}: {{'temperature': 0.5}}}}"
        raise OptionError(f"{problem}; options go by executor, such as {example}", field="options")
    return {name: engine.options(name, dict(given.get(name, {})), request.kind) for name in names}


def task_of(request: Request, options: StrictOptions, preview_every: int = 0) -> Task:
    """The whole request as the task of one executor."""
    match request:
        case GenerateRequest():
            task = Task(request.prompt, options, _seeds(request.seed, request.num_images))
        case RefineRequest():
            seeds = _seeds(request.seed, request.num_images)
            task = Task(request.prompt, options, seeds, init=on_white(request.picture))
        case InpaintRequest():
            # Without a mask, what is under the transparent part is made new, and its edge must not turn white.
            init = request.picture.convert("RGB") if request.mask is None else on_white(request.picture)
            seeds = _seeds(request.seed, request.num_images)
            task = Task(request.prompt, options, seeds, init=init, mask=request.part)
        case InterpolateRequest():
            count = request.num_images
            task = Task(request.prompt, options, (request.seed,) * count, prompt_to=request.prompt_to, of=count)
        case UpscaleRequest():
            task = Task(request.prompt, options, images=(cast("Image.Image", request.picture),))
        case SegmentRequest():
            task = Task(request.prompt, options, images=(on_white(request.picture),))
        case _:
            raise TypeError(f"no such request: {type(request).__name__}")
    return replace(task, kind=request.kind, preview_every=preview_every)


def remarks_on(request: Request) -> list[str]:
    """What the person should know about the pictures of a request before it runs."""
    match request:
        case InpaintRequest(mask=None):
            return []
        case RefineRequest() | InpaintRequest() | SegmentRequest() if is_transparent(request.picture):
            return ["the picture is transparent in places, which are taken for white"]
    return []


def prompts_of(request: Request) -> tuple[str, ...]:
    """The prompts that executors will read."""
    match request:
        case InterpolateRequest():
            return request.prompt, request.prompt_to
        case GenerateRequest() | RefineRequest() | InpaintRequest() | SegmentRequest():
            return (request.prompt,)
    return ()


def _seeds(first: int, count: int) -> tuple[int, ...]:
    return tuple(range(first, first + count))


def _listed(engine: LocalEngine) -> str:
    """Every executor with the rounds it can do: `dalle (generate), rank`."""
    rounds = {name: [kind for kind in RoundKind if name in engine.able(kind)] for name in engine.executors}
    return ", ".join(f"{name} ({', '.join(kinds)})" if kinds else name for name, kinds in rounds.items())
