"""Engines of the plug-in's executors, which can do every kind of round."""

from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dalle_flow.engine.local import LocalEngine
from dalle_flow.types import ExecutorPlan


@pytest.fixture
def engine(plugin: ModuleType) -> LocalEngine:
    """A generator that can do all that generators do, a ranker, an upscaler and a segmenter."""
    uses = {"noise": "noise", "rank": "bright", "repeat": "repeat", "find": "find-bright"}
    return LocalEngine({name: ExecutorPlan(name, registered) for name, registered in uses.items()})


@pytest.fixture
def photo() -> Image.Image:
    """A picture as a person brings it, 12 x 10."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8))
