"""The kinds of executors and rounds, an executor's place in a flow, and the limits of requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

MAX_SEED = 2**32 - 1  # torch's CPU generator reads 32 bits: a larger seed would give a smaller one's picture again
MAX_IMAGES = 1000  # per round; a person does not look at more, and a typo should not run for a day
MAX_PROMPT_CHARACTERS = 2000  # far above the 64 or 77 text tokens that models read


class Kind(StrEnum):
    """What an executor does."""

    GENERATOR = "generator"  # text [+ picture] -> pictures
    RANKER = "ranker"  # pictures + text -> scores
    UPSCALER = "upscaler"
    SEGMENTER = "segmenter"


class RoundKind(StrEnum):
    """What a round asks for: one step with a person at its end."""

    GENERATE = "generate"  # text -> pictures
    REFINE = "refine"  # picture + text -> pictures like it
    INPAINT = "inpaint"  # picture + mask + text -> pictures with a part made new
    INTERPOLATE = "interpolate"  # two texts -> a row of pictures from one to the other
    UPSCALE = "upscale"  # picture -> a larger one
    SEGMENT = "segment"  # picture + text -> a mask of what the text names


SEEDLESS = (RoundKind.UPSCALE, RoundKind.SEGMENT)  # nothing is drawn at random: the seed of their recipes says nothing


@dataclass(frozen=True)
class ExecutorPlan:
    """One executor of a flow: its class by registry name, weights by role, options that a request does not give."""

    name: str
    uses: str
    weights: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Json] = field(default_factory=dict)
    device: str = "cpu"
