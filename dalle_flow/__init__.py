"""DALL·E Flow: pictures from text with a person in the loop.

    import dalle_flow as df
    round = df.generate("a cat on a skateboard, watercolor", num_images=9)
    round                               # in a notebook: the contact sheet, best first
    round.candidates[0].image           # a PIL picture
    df.replay(round.candidates[0])      # the same picture again, from its recipe

Importing this package imports neither torch nor a model; the first call does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import DalleFlowError
    from .session import generate, replay
    from .types import Candidate, GenerateRequest, Recipe, Round

_HOMES = {
    "DalleFlowError": "errors",
    "generate": "session",
    "replay": "session",
    "Candidate": "types",
    "GenerateRequest": "types",
    "Recipe": "types",
    "Round": "types",
}

__all__ = ["Candidate", "DalleFlowError", "GenerateRequest", "Recipe", "Round", "generate", "replay"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dalle_flow' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
