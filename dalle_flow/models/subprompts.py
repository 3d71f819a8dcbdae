r"""Weighted sub-prompts: "a red house:1.5 the sea:-0.5" pulls towards one text and away from the other.

A part ends at a colon; a number right behind it is its weight, 1 where there is none. `\:` is a colon of the text,
several colons count as one. So "12:30 clock" is "12" with weight 30, and "clock".

Source: the syntax of Stable Diffusion programs of 2022 (DALL·E Flow's executor `stable`).
Parity: tests/parity/test_sd1.py, equal.
"""

import re
from typing import NamedTuple

from ..errors import OptionError

MOST = 8  # parts; every one is a pass through the model at every step
LARGEST_WEIGHT = 1000.0
TEXT = re.compile(r"(?:\\:|[^:])+")
WEIGHT = re.compile(r":+(-?\d+(?:\.\d+)?)?\s*")


class SubPrompt(NamedTuple):
    text: str
    weight: float


def parse_subprompts(prompt: str) -> list[SubPrompt]:
    """The parts of a prompt with their weights, one at least.

    Raises:
        OptionError: there are more than 8, or a weight is beyond 1000.
    """
    parts: list[SubPrompt] = []
    at = 0
    while at < len(prompt):
        text = TEXT.match(prompt, at)
        if text is None:  # a colon without a text before it
            at += 1
            continue
        weight = WEIGHT.match(prompt, text.end())
        number = float(weight[1]) if weight and weight[1] else 1.0
        if not abs(number) <= LARGEST_WEIGHT:
            raise OptionError(
                f"sub-prompt {text[0]!r:.40} has weight {number:g}; allowed are -{LARGEST_WEIGHT:g} to "
                f"{LARGEST_WEIGHT:g}. Write '\\:' for a colon that belongs to the text.",
                field="prompt",
            )
        parts.append(SubPrompt(text[0].replace("\\:", ":"), number))
        at = weight.end() if weight else text.end()
    if len(parts) > MOST:
        raise OptionError(
            f"the prompt has {len(parts)} weighted sub-prompts, at most {MOST} are allowed. Write '\\:' for a colon "
            "that belongs to the text.",
            field="prompt",
        )
    return parts or [SubPrompt(prompt, 1.0)]
