"""The records every layer shares: requests, recipes, candidates, rounds, events. Frozen, no torch."""

from .kinds import MAX_IMAGES, MAX_PROMPT_CHARACTERS, MAX_SEED, ExecutorPlan, Json, Kind, RoundKind
from .pictures import as_mask, as_picture, is_transparent, on_white, picture_id, white_share
from .recipe import Recipe
from .requests import (
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    OneExecutor,
    RefineRequest,
    Request,
    SegmentRequest,
    SeveralExecutors,
    UpscaleRequest,
)
from .rounds import (
    Candidate,
    Event,
    Finished,
    Previewed,
    Progressed,
    Ranked,
    Round,
    Score,
    Started,
    Warned,
)

__all__ = [
    "MAX_IMAGES",
    "MAX_PROMPT_CHARACTERS",
    "MAX_SEED",
    "Candidate",
    "Event",
    "ExecutorPlan",
    "Finished",
    "GenerateRequest",
    "InpaintRequest",
    "InterpolateRequest",
    "Json",
    "Kind",
    "OneExecutor",
    "Previewed",
    "Progressed",
    "Ranked",
    "Recipe",
    "RefineRequest",
    "Request",
    "Round",
    "RoundKind",
    "Score",
    "SegmentRequest",
    "SeveralExecutors",
    "Started",
    "UpscaleRequest",
    "Warned",
    "as_mask",
    "as_picture",
    "is_transparent",
    "on_white",
    "picture_id",
    "white_share",
]
