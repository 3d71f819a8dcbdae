"""DALL·E Flow: pictures from text with a person in the loop.

    import dalle_flow as df
    round = df.generate("a cat on a skateboard, watercolor", num_images=9)
    round                               # in a notebook: the contact sheet, best first
    round.candidates[0].image           # a PIL picture
    better = df.refine(round.candidates[3], num_images=36, strength=0.5)
    large = df.upscale(better.candidates[0])
    df.replay(round.candidates[0])      # the same picture again, from its recipe

Importing this package imports neither torch nor a model; the first call does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import DalleFlowError
    from .session import generate, inpaint, interpolate, refine, replay, segment, upscale
    from .types import (
        Candidate,
        GenerateRequest,
        InpaintRequest,
        InterpolateRequest,
        Recipe,
        RefineRequest,
        Round,
        SegmentRequest,
        UpscaleRequest,
    )

_HOMES = {
    "DalleFlowError": "errors",
    "generate": "session",
    "inpaint": "session",
    "interpolate": "session",
    "refine": "session",
    "replay": "session",
    "segment": "session",
    "upscale": "session",
    "Candidate": "types",
    "GenerateRequest": "types",
    "InpaintRequest": "types",
    "InterpolateRequest": "types",
    "Recipe": "types",
    "RefineRequest": "types",
    "Round": "types",
    "SegmentRequest": "types",
    "UpscaleRequest": "types",
}

__all__ = [
    "Candidate",
    "DalleFlowError",
    "GenerateRequest",
    "InpaintRequest",
    "InterpolateRequest",
    "Recipe",
    "RefineRequest",
    "Round",
    "SegmentRequest",
    "UpscaleRequest",
    "generate",
    "inpaint",
    "interpolate",
    "refine",
    "replay",
    "segment",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dalle_flow' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
