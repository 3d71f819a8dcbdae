"""What a judge's sight says about a scene: is each thing there, in its colour, in its place, in its number?

A fact that the scene does not state counts for nothing: its score is over the scenes that state it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .judge import Judge, Sight
from .scenes import Scene
from .world import World

MIN_CELLS = 3  # of 256: fewer cells of a kind are noise, not a thing
BESIDE = 1.0  # cells by which centres must differ for "left of" and its like


@dataclass
class Verdict:
    """None: the scene does not say. `object` and `colour` hold one answer per thing."""

    object: list[bool]
    colour: list[bool]
    relation: bool | None
    count: bool | None
    style: bool
    background: bool

    @property
    def all(self) -> bool:
        answers = [*self.object, *self.colour, self.style, self.background]
        return all(answers) and self.relation is not False and self.count is not False


@torch.no_grad()
def see(judge: Judge, pixels: Tensor, batch_size: int = 128) -> Sight:
    """(B, 3, H, W) in [0, 1] -> what the judge sees, batch by batch."""
    parts = [judge(p) for p in torch.split(pixels, batch_size)]
    return Sight(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Sight)))


def verdicts(sight: Sight, scenes: Sequence[Scene], world: World) -> list[Verdict]:
    """One verdict per picture, picture i against scenes[i]."""
    kinds = sight.kind.argmax(1).numpy()  # (B, G, G)
    colours = sight.colour.softmax(1).numpy()  # (B, colours, G, G)
    whole = (sight.style, sight.background, sight.background_colour, sight.count)
    style, background, background_colour, count = (x.argmax(1).tolist() for x in whole)
    found = []
    for i, scene in enumerate(scenes):
        right_background = list(world.backgrounds)[background[i]] == scene.background
        if scene.background_color is not None:
            wanted = 1 + list(world.background_colors).index(scene.background_color)
            right_background = right_background and background_colour[i] == wanted
        things = _things(scene, kinds[i], colours[i], world)
        found.append(
            Verdict(
                *things,
                relation=_relation(scene, kinds[i], world) if scene.relation else None,
                count=count[i] == len(scene.things) if scene.layout == "count" else None,
                style=list(world.styles)[style[i]] == scene.style,
                background=right_background,
            )
        )
    return found


def scores(found: Sequence[Verdict]) -> dict[str, float]:
    """Shares of right answers, each over the scenes that ask for it."""
    lists = {
        "object": [x for v in found for x in v.object],
        "colour": [x for v in found for x in v.colour],
        "relation": [v.relation for v in found if v.relation is not None],
        "count": [v.count for v in found if v.count is not None],
        "style": [v.style for v in found],
        "background": [v.background for v in found],
        "all": [v.all for v in found],
    }
    return {name: float(np.mean(values)) if values else float("nan") for name, values in lists.items()}


def judge_scenes(judge: Judge, pixels: Tensor, scenes: Sequence[Scene], world: World) -> dict[str, float]:
    """Scores of pictures (B, 3, H, W) against the scenes they should show."""
    return scores(verdicts(see(judge, pixels), scenes, world))


def _things(
    scene: Scene, kinds: NDArray[np.int64], colours: NDArray[np.float32], world: World
) -> tuple[list[bool], list[bool]]:
    """Per different thing: is it there; and is it in the colour asked for?"""
    there, coloured = [], []
    for thing in {(t.kind, t.color): t for t in scene.things}.values():
        cells = kinds == 1 + world.kind_index[thing.kind]  # (G, G)
        seen = int(cells.sum()) >= MIN_CELLS
        there.append(seen)
        if thing.color is not None:
            wanted = 1 + list(world.colors).index(thing.color)
            twins = sum(t.kind == thing.kind for t in scene.things) > 1 and scene.layout == "pair"
            votes = colours.argmax(0)[cells] if seen else np.array([], int)
            # Of two things of one kind each has its share of the cells; a lone thing must have most of them.
            coloured.append(bool(seen and (votes == wanted).mean() > (0.25 if twins else 0.5)))
    return there, coloured


def _relation(scene: Scene, kinds: NDArray[np.int64], world: World) -> bool:
    first, second = (kinds == 1 + world.kind_index[t.kind] for t in scene.things)
    if scene.things[0].kind == scene.things[1].kind:
        return bool(first.sum() >= 2 * MIN_CELLS)  # which is which cannot be told from kinds: both must be there
    if first.sum() < MIN_CELLS or second.sum() < MIN_CELLS:
        return False
    (y1, x1), (y2, x2) = (np.argwhere(m).mean(0) for m in (first, second))
    apart = {"left of": x2 - x1, "right of": x1 - x2, "above": y2 - y1, "below": y1 - y2}
    if scene.relation in apart:
        return bool(apart[scene.relation] >= BESIDE)
    rows, columns = np.nonzero(first)
    if scene.relation == "riding":  # the rider is higher, and over what it rides
        return bool(y1 < y2 and abs(x1 - x2) <= (np.ptp(np.nonzero(second)[1]) + 1) / 2 + 1)
    inside_x = columns.min() - 1 <= x2 <= columns.max() + 1  # what is worn lies within its wearer, or on top of it
    return bool(inside_x and rows.min() - 3 <= y2 <= rows.max() and y2 <= y1 + 1.5)
