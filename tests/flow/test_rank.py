"""Scores become probabilities as CLIP-as-service makes them."""

import math

import pytest

from dalle_flow.flow.rank import probabilities


def test_probabilities_are_a_softmax_at_scale_100() -> None:
    found = probabilities([0.31, 0.30, 0.10])
    assert found[0] / found[1] == pytest.approx(math.e)
    assert sum(found) == pytest.approx(1)
    assert probabilities([-1.0, 1.0]) == pytest.approx([0, 1])
    assert probabilities([0.2]) == [1]
