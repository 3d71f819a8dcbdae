"""Ranking: the candidates of all generators of a round, best first."""

import math

from ..engine.local import LocalEngine
from ..executors.base import Done, Task
from ..types import Candidate, Score

RANK_SCALE = 100.0  # CLIP-as-service softmaxes with exp(4.60517), whatever scale the model has learnt


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
