"""One round: the request goes to each generator, the ranker sorts what comes back, the person picks."""

import math
import secrets
from collections.abc import Generator, Iterator, Mapping
from importlib.metadata import version

from ..engine.local import LocalEngine
from ..errors import FailureError, OptionError, ReplayError, UsageError
from ..executors.base import Done, Executor, Preview, StrictOptions, Task
from ..images import picture_id
from ..types import (
    Candidate,
    Event,
    Finished,
    GenerateRequest,
    Kind,
    Previewed,
    Progressed,
    Ranked,
    Recipe,
    Round,
    Score,
    Started,
    Warned,
)

RANK_SCALE = 100.0  # CLIP-as-service softmaxes with exp(4.60517), whatever scale the model has learnt


def generate(engine: LocalEngine, request: GenerateRequest, preview_every: int = 0) -> Generator[Event, None, None]:
    """Run a generate round; the last event is `Ranked`, with the round. Nothing runs before the request is checked.

    `preview_every` is the number of steps between previews of each picture; 0 makes none.

    Raises:
        UsageError: an executor or option that does not exist, or a value that is not allowed.
        FailureError: weights that cannot be loaded, or a generator that fails.
    """
    names = request.executors or tuple(engine.names(Kind.GENERATOR))
    if not names:
        raise UsageError(f"the flow has no generator; its executors are: {', '.join(engine.executors)}", field="flow")
    options = _checked_options(engine, request, names)
    ranker = next(iter(engine.names(Kind.RANKER)), None)
    for name in (*names, *([ranker] if ranker else [])):
        engine.check(name)
    candidates: list[Candidate] = []
    warnings: list[str] = []
    for name in names:
        executor, seconds = engine.load(name)
        yield Started(name, seconds)
        for remark in executor.remarks(request.prompt):
            warnings.append(remark)
            yield Warned(remark)
        seeds = tuple(request.seed + i for i in range(request.num_images))
        task = Task(request.prompt, options[name], seeds=seeds, preview_every=preview_every)
        for event in _pictures(engine, name, executor, task):
            if isinstance(event, Finished):
                candidates.append(event.candidate)
            yield event
    # In the order of generators and seeds, not in that in which they happened to end.
    candidates.sort(key=lambda c: (names.index(c.recipe.executor), c.recipe.seed))
    if ranker is not None:
        candidates = rank(engine, ranker, request.prompt, candidates)
    round_id = secrets.token_hex(8)
    yield Ranked(Round(round_id, "generate", request, tuple(candidates), ranker, tuple(warnings)))


def probabilities(cosines: list[float]) -> list[float]:
    """Softmax of the cosines times RANK_SCALE: how much better each is than those beside it."""
    best = max(cosines)
    weights = [math.exp(RANK_SCALE * (cosine - best)) for cosine in cosines]
    return [weight / sum(weights) for weight in weights]


def rank(engine: LocalEngine, name: str, prompt: str, candidates: list[Candidate]) -> list[Candidate]:
    """Candidates with their scores, best first; equal scores keep their order."""
    task = Task(prompt, engine.options(name, {}), images=tuple(c.image for c in candidates))
    cosines = {output.slot.index: output.result for output in engine.run(name, task) if isinstance(output, Done)}
    ordered = [float(cosines[i]) for i in range(len(candidates))]  # type: ignore[arg-type]
    scored = [
        Candidate(c.id, c.image, c.recipe, Score(cosine, probability))
        for c, cosine, probability in zip(candidates, ordered, probabilities(ordered), strict=True)
    ]
    return sorted(scored, key=lambda c: -c.score.cosine if c.score else 0.0)


def replay(engine: LocalEngine, recipe: Recipe) -> Candidate:
    """Make the picture of a recipe again.

    Raises:
        ReplayError: this flow has not that executor, or has it with other weights or options; or no request of ours
            can have had this recipe.
    """
    if recipe.executor not in engine.executors:
        raise ReplayError(f"the picture was made by {recipe.executor!r}, which this flow does not have")
    if recipe.executor not in engine.names(Kind.GENERATOR):
        raise ReplayError(f"the picture says it was made by {recipe.executor!r}, which makes no pictures here")
    try:
        GenerateRequest(recipe.prompt)
        options = engine.options(recipe.executor, dict(recipe.options))
    except OptionError as error:
        raise ReplayError(f"the recipe does not fit this version: {error.message}", field=error.field) from None
    executor, _ = engine.load(recipe.executor)
    if executor.weights_id != recipe.weights:
        raise ReplayError(
            f"the picture was made with other weights of {recipe.executor!r}: {recipe.weights[:12]}, "
            f"here are {executor.weights_id[:12]}; give the original ones with --weights"
        )
    task = Task(recipe.prompt, options, seeds=(recipe.seed,))
    for event in _pictures(engine, recipe.executor, executor, task):
        if isinstance(event, Finished):
            return event.candidate
    raise FailureError(f"{recipe.executor} gave no picture")


def _checked_options(
    engine: LocalEngine, request: GenerateRequest, names: tuple[str, ...]
) -> Mapping[str, StrictOptions]:
    generators = engine.names(Kind.GENERATOR)
    for name in names:
        engine.plan(name)
        if name not in generators:
            raise OptionError(f"{name!r} is not a generator; generators are: {', '.join(generators)}", field="executor")
    stray = [name for name in request.options if name not in names]
    if stray:
        problem = f"options for {stray[0]!r}, which is not asked to generate"
        example = f"{{{names[0]!r}: {{'temperature': 0.5}}}}"
        raise OptionError(f"{problem}; options go by executor, such as {example}", field="options")
    return {name: engine.options(name, dict(request.options.get(name, {}))) for name in names}


def _pictures(engine: LocalEngine, name: str, executor: Executor, task: Task) -> Iterator[Event]:
    """Events of one generator for one task, as they happen."""
    for output in engine.run(name, task):
        if isinstance(output, Preview):
            yield Previewed(name, output.slot.index, output.image)
        elif isinstance(output, Done):
            assert not isinstance(output.result, float)
            seed = task.seeds[output.slot.index]
            recipe = Recipe(
                executor=name,
                weights=executor.weights_id,
                prompt=task.prompt,
                seed=seed,
                options=task.options.model_dump(mode="json"),
                versions={"dalle_flow": version("dalle-flow"), "torch": version("torch")},
            )
            yield Finished(Candidate(picture_id(output.result), output.result, recipe))
        else:
            yield Progressed(name, output.step, output.of)
