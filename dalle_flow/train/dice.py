"""Random choices from a block of uniform numbers: a numpy call per choice would cost more than the choice."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

BLOCK = 64

T = TypeVar("T")


class Dice:
    """One scene's or caption's choices. The same generator state gives the same choices."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._rolls: list[float] = []

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        if not self._rolls:
            self._rolls = self._rng.random(BLOCK).tolist()
        return self._rolls.pop()

    def span(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.unit() * len(options))]

    def weighted(self, shares: Mapping[T, float]) -> T:
        """A key, as often as its share says; shares need not sum to 1."""
        left = self.unit() * sum(shares.values())
        for key, share in shares.items():
            left -= share
            if left < 0:
                return key
        return key
