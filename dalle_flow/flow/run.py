"""One round: the request goes to each executor that does it, the ranker sorts what comes back, the person picks."""

import secrets
from collections.abc import Generator, Iterator
from importlib.metadata import version

from ..engine.local import LocalEngine
from ..errors import FailureError
from ..executors.base import Done, Executor, Preview, Task
from ..types import (
    Candidate,
    Event,
    Finished,
    InpaintRequest,
    Kind,
    Previewed,
    Progressed,
    Ranked,
    Recipe,
    RefineRequest,
    Request,
    Round,
    RoundKind,
    SegmentRequest,
    Started,
    UpscaleRequest,
    Warned,
    picture_id,
)
from .rank import rank
from .tasks import executors_for, options_for, prompts_of, remarks_on, task_of

RANKED = (RoundKind.GENERATE, RoundKind.REFINE, RoundKind.INPAINT)


def run_round(engine: LocalEngine, request: Request, preview_every: int = 0) -> Generator[Event, None, None]:
    """Run a round; the last event is `Ranked`, with the round. Nothing runs before the request is checked.

    Candidates of generating, refining and inpainting are ranked; those of interpolating keep their order.

    Args:
        preview_every: the number of steps between previews of each picture; 0 makes none.

    Raises:
        UsageError: an executor or option that does not exist, or a value that is not allowed.
        FailureError: weights that cannot be loaded, or an executor that fails.
    """
    names = executors_for(engine, request)
    options = options_for(engine, request, names)
    ranker = next(iter(engine.names(Kind.RANKER)), None) if request.kind in RANKED else None
    for name in (*names, *([ranker] if ranker else [])):
        engine.check(name)
    candidates: dict[tuple[int, int], Candidate] = {}
    warnings = remarks_on(request)
    yield from map(Warned, warnings)
    for place, name in enumerate(names):
        executor, seconds = engine.load(name)
        yield Started(name, seconds)
        for remark in (remark for prompt in prompts_of(request) for remark in executor.remarks(prompt)):
            if remark not in warnings:  # several executors may know the same words
                warnings.append(remark)
                yield Warned(remark)
        for index, event in pictures(engine, name, request, task_of(request, options[name], preview_every)):
            if isinstance(event, Finished):
                candidates[place, index] = event.candidate
            yield event
    # In the order of executors and seeds, not in that in which they happened to end.
    ordered = [candidates[key] for key in sorted(candidates)]
    if ranker is not None:
        ordered = rank(engine, ranker, task_of(request, options[names[0]]).prompt, ordered)
    yield Ranked(Round(secrets.token_hex(8), request, tuple(ordered), ranker, tuple(warnings)))


generate = run_round  # of a GenerateRequest


def pictures(engine: LocalEngine, name: str, request: Request, task: Task) -> Iterator[tuple[int, Event]]:
    """Events of one executor for one task of a request, as they happen, each with the index of its picture or -1."""
    executor, _ = engine.load(name)
    for output in engine.run(name, task):
        if isinstance(output, Preview):
            yield output.slot.index, Previewed(name, output.slot.index, output.image)
        elif isinstance(output, Done):
            if isinstance(output.result, float):
                raise FailureError(f"{name} gave a score where a picture was asked for")
            recipe = _recipe(name, executor, request, task, output.slot.index)
            yield output.slot.index, Finished(Candidate(picture_id(output.result), output.result, recipe))
        else:
            yield -1, Progressed(name, output.step, output.of)


def _recipe(name: str, executor: Executor, request: Request, task: Task, index: int) -> Recipe:
    """The recipe of picture `index` of a request."""
    from_picture = (RefineRequest, InpaintRequest, UpscaleRequest, SegmentRequest)
    parent = request.picture if isinstance(request, from_picture) else None
    mask = request.mask if isinstance(request, InpaintRequest) else None
    return Recipe(
        executor=name,
        weights=executor.weights_id,
        prompt=task.prompt,
        seed=task.seeds[index - task.first] if task.seeds else 0,
        options=task.options.model_dump(mode="json"),
        parent=None if parent is None else picture_id(parent),
        versions={"dalle_flow": version("dalle-flow"), **{name: version(name) for name in executor.libraries}},
        kind=request.kind,
        prompt_to=task.prompt_to,
        frame=(index, task.of) if request.kind is RoundKind.INTERPOLATE else None,
        mask=None if mask is None else picture_id(mask),
    )
