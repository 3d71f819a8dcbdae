"""What a judge must read off a picture: a coarse map of kinds and colours, and a few facts.

Shapes: S side of the picture, O things of a scene, 16x16 cells.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .scenes import Scene
from .world import RELATIONS, World

Bytes = NDArray[np.uint8]
CELLS = 16
FOREGROUND = 0.35  # covered share from which a cell is not background: below a half, so that thin things count
FACTS = ("style", "background", "background_color", "count", "layout", "relation")


@dataclass(frozen=True)
class Targets:
    kinds: Bytes  # (16, 16): 0 background, else 1 + index into world.kinds
    colors: Bytes  # (16, 16): 0 none or as the emoji is, else 1 + index into world.colors
    labels: Bytes  # (S, S): 0 background, else 1 + index into scene.things
    facts: Bytes  # (6,) in the order of FACTS: indices into the world's lists; for colour and relation 0 is none


def targets(scene: Scene, masks: Bytes, world: World) -> Targets:
    """From the masks (O, S, S) that `render` gave."""
    owner = cells(masks)  # (16, 16), 0 background else 1 + thing
    colors = list(world.colors)
    kind_of = np.array([0] + [1 + world.kind_index[t.kind] for t in scene.things], np.uint8)
    color_of = np.array([0] + [0 if t.color is None else 1 + colors.index(t.color) for t in scene.things], np.uint8)
    labels = np.where(masks.max(0) >= 128, masks.argmax(0) + 1, 0).astype(np.uint8)
    return Targets(kind_of[owner], color_of[owner], labels, facts(scene, world))


def cells(masks: Bytes) -> NDArray[np.intp]:
    """Which thing owns each of the 16x16 cells: 0 none, else 1 + its index."""
    size = masks.shape[-1]
    if size % CELLS == 0:
        step = size // CELLS
        cover = masks.reshape(len(masks), CELLS, step, CELLS, step).mean((2, 4), dtype=np.float32)  # (O, 16, 16)
    else:
        small = [Image.fromarray(m).resize((CELLS, CELLS), Image.Resampling.BOX) for m in masks]
        cover = np.stack([np.asarray(m) for m in small]).astype(np.float32)
    return np.where(cover.sum(0) >= FOREGROUND * 255, cover.argmax(0) + 1, 0)


def facts(scene: Scene, world: World) -> Bytes:
    color = 0 if scene.background_color is None else 1 + list(world.background_colors).index(scene.background_color)
    return np.array(
        [
            list(world.styles).index(scene.style),
            list(world.backgrounds).index(scene.background),
            color,
            len(scene.things),
            list(world.layouts).index(scene.layout),
            0 if scene.relation is None else 1 + RELATIONS.index(scene.relation),
        ],
        np.uint8,
    )
