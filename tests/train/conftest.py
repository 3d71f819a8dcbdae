"""Sprites without the font: an ellipse of each kind's own proportions, shaded, so that every picture can be drawn."""

import numpy as np
import pytest

from dalle_flow.train.render import Atlas
from dalle_flow.train.sprites import SIDE, Sprites
from dalle_flow.train.world import S0


@pytest.fixture(scope="session")
def sprites() -> Sprites:
    at = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    drawn = {}
    for kind in S0.kinds:
        inside = (at[None, :] / kind.width) ** 2 + (at[:, None] / kind.height) ** 2 <= 1
        sprite = np.zeros((SIDE, SIDE, 4), np.uint8)
        sprite[..., :3] = (200, 150, 60)
        sprite[SIDE // 2 :, :, :3] //= 2
        sprite[..., 3] = inside * 255
        drawn[kind.name] = sprite
    return drawn


@pytest.fixture(scope="session")
def atlas(sprites: Sprites) -> Atlas:
    return Atlas(sprites, S0)
