"""Every registered executor in every round that it says it can do: exact counts, and the same pixels on replay.

The real classes at toy size, passed through the flow as a person's requests are; nothing here knows any of them by
name.
"""

import numpy as np
import pytest
from PIL import Image

from dalle_flow.deep_picture import to_pixels
from dalle_flow.engine.local import LocalEngine
from dalle_flow.executors.base import Executor
from dalle_flow.flow.replay import replay
from dalle_flow.flow.run import run_round
from dalle_flow.registry import executor_class, executor_names
from dalle_flow.types import (
    Candidate,
    ExecutorPlan,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    Json,
    Ranked,
    RefineRequest,
    Request,
    RoundKind,
    SegmentRequest,
    UpscaleRequest,
)

NEAR = 2  # of 255; sums are rounded differently in batches of different size
NUMBER = 5
FEW: dict[str, Json] = {"num_inference_steps": 3}
CASES = [(name, kind) for name in executor_names() for kind in executor_class(name).verbs]
tiny: dict[str, Executor] = {}  # made once, by whichever test comes first


def engine_of(name: str) -> LocalEngine:
    """An engine with a toy of that executor in place of loaded weights."""
    plan = ExecutorPlan(name, name)
    engine = LocalEngine({name: plan})
    if name not in tiny:
        tiny[name] = executor_class(name).tiny()
    engine._loaded[name] = tiny[name]
    engine.check = lambda name: None  # type: ignore[method-assign] # it has no weights
    return engine


def photo(seed: int = 0) -> Image.Image:
    """24 x 16, smooth: toys make little of noise."""
    array = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(array).resize((24, 16), Image.Resampling.BICUBIC)


def request_of(name: str, kind: RoundKind) -> tuple[Request, tuple[Image.Image, ...]]:
    """A request, and what a replay of its pictures needs."""
    known = executor_class(name).verbs[kind].model_fields
    options = {option: value for option, value in FEW.items() if option in known}
    several, mask = {name: options}, Image.new("L", (24, 16))
    mask.paste(255, (0, 0, 12, 16))
    requests: dict[RoundKind, tuple[Request, tuple[Image.Image, ...]]] = {
        RoundKind.GENERATE: (GenerateRequest("a red cat", NUMBER, 7, options=several), ()),
        RoundKind.REFINE: (RefineRequest(photo(), "a red cat", NUMBER, 7, options=several), (photo(),)),
        RoundKind.INPAINT: (InpaintRequest(photo(), "a cat", mask, NUMBER, 7, options=several), (photo(), mask)),
        RoundKind.INTERPOLATE: (InterpolateRequest("a red cat", "a blue dog", NUMBER, 7, options=options), ()),
        RoundKind.UPSCALE: (UpscaleRequest(photo(), options=options), (photo(),)),
        RoundKind.SEGMENT: (SegmentRequest(photo(), "a cat", options=options), (photo(),)),
    }
    return requests[kind]


def candidates_of(engine: LocalEngine, request: Request) -> tuple[Candidate, ...]:
    *_, last = run_round(engine, request)
    assert isinstance(last, Ranked)
    return last.round.candidates


def distance(one: Image.Image, other: Image.Image) -> int:
    assert (one.mode, one.size) == (other.mode, other.size)
    return int(np.abs(to_pixels(one).astype(int) - to_pixels(other).astype(int)).max())


@pytest.mark.parametrize(("name", "kind"), CASES, ids=[f"{name}-{kind}" for name, kind in CASES])
def test_a_round_and_its_replay(name: str, kind: RoundKind) -> None:
    engine = engine_of(name)
    request, given = request_of(name, kind)
    candidates = candidates_of(engine, request)
    assert len(candidates) == (1 if kind in (RoundKind.UPSCALE, RoundKind.SEGMENT) else NUMBER)
    assert {c.recipe.kind for c in candidates} == {kind}
    for candidate in (candidates[0], candidates[-1]):
        made = replay(engine, candidate.recipe, *given)
        assert made.recipe == candidate.recipe
        assert distance(made.image, candidate.image) <= NEAR
    if kind is RoundKind.INPAINT:
        right = (12, 0, 24, 16)
        for candidate in candidates:
            assert distance(candidate.image.crop(right), photo().crop(right)) == 0
