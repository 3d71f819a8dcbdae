"""What is in a picture, as data, and its random drawing. No pixels here.

Lengths are fractions of the picture's side; x goes right, y goes down; a thing's box is square, its centre is x, y.
Scene i of a split depends on (world, seed, split, i) alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self
from zlib import crc32

import numpy as np

from .dice import Dice
from .world import Kind, Relation, World

Split = Literal["train", "val", "heldout"]
Layout = Literal["single", "pair", "count", "bare"]
SPLITS: tuple[Split, ...] = ("train", "val", "heldout")
GROUND = frozenset({"grass", "sea", "night", "sunset", "snow"})  # backgrounds with a horizon
CLASH = {"grass": "green", "sea": "blue", "snow": "white", "sunset": "orange"}  # no tint may equal its background
ROOM = 0.97  # of the picture, for all things together


@dataclass(frozen=True, slots=True)
class Thing:
    kind: str
    color: str | None  # None: as the emoji is
    x: float
    y: float
    size: float  # side of its box
    angle: float = 0.0  # degrees counterclockwise
    flip: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A pair is (subject, object): things[0] is `relation` things[1]. A count is 2 to 4 of one kind and colour."""

    layout: Layout
    things: tuple[Thing, ...]
    relation: Relation | None
    style: str
    background: str
    background_color: str | None  # of a plain background
    horizon: float
    seed: int  # of stars, waves and textures

    def draw_order(self) -> Sequence[int]:
        """Indices of things, from back to front."""
        return (1, 0) if self.relation == "riding" else range(len(self.things))

    def to_json(self) -> str:
        things = [[t.kind, t.color, t.x, t.y, t.size, t.angle, t.flip] for t in self.things]
        rest = [self.relation, self.style, self.background, self.background_color, self.horizon, self.seed]
        return json.dumps([self.layout, things, *rest], separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        layout, things, *rest = json.loads(line)
        return cls(layout, tuple(Thing(*t) for t in things), *rest)


def scene_at(world: World, seed: int, split: Split, index: int) -> Scene:
    rng = np.random.default_rng([crc32(world.name.encode()), seed, SPLITS.index(split), index])
    return sample_scene(world, rng, split)


def sample_scene(world: World, rng: np.random.Generator, split: Split = "train") -> Scene:
    """Draw a scene. "train" and "val" never hold a held-out triple, "heldout" always does."""
    dice = Dice(rng)
    layouts = world.layouts
    layout: Layout = "pair" if split == "heldout" else dice.weighted(layouts)  # type: ignore[arg-type]
    style = "plain" if layout == "bare" else dice.weighted(world.styles)
    background = "plain" if layout == "bare" else dice.weighted(world.backgrounds)
    relation: Relation | None = None
    if layout == "pair":
        relation, first, second = _pair(world, dice, split)
        kinds = [world.kind[first], world.kind[second]]
    else:
        kinds = [world.kind[dice.pick(world.kinds).name]]
    colors = _colors(world, dice, kinds, background)
    if layout == "count":
        kinds, colors = kinds * (number := 2 + int(dice.unit() * 3)), colors * number
    color = _background_color(world, dice, kinds, colors, layout) if background == "plain" else None
    things = _arrange(dice, kinds, colors, relation, fine=style != "pixel art")
    things = _settle(things, kinds, dice, ground=background in GROUND)
    return Scene(
        layout=layout,
        things=tuple(things),
        relation=relation,
        style=style,
        background=background,
        background_color=color,
        horizon=round(dice.span(0.52, 0.7), 3),
        seed=int(dice.unit() * 2**31),
    )


def _pair(world: World, dice: Dice, split: Split) -> tuple[Relation, str, str]:
    want = split == "heldout"
    while True:
        relation = dice.weighted(world.relations)
        if relation == "riding":
            group = dice.weighted({"animal": 0.78, "thing": 0.14, "shape": 0.04, "wearable": 0.04})
            first = dice.pick(world.of_group(group))  # type: ignore[arg-type]
            second = dice.pick([k.name for k in world.kinds if k.seat])
        elif relation == "wearing":
            first = dice.pick([k.name for k in world.kinds if k.head])
            second = dice.pick(world.of_group("wearable"))
        else:
            first, second = dice.pick(world.kinds).name, dice.pick(world.kinds).name
        if world.held_out(first, relation, second) == want:
            return relation, first, second


def _colors(world: World, dice: Dice, kinds: list[Kind], background: str) -> list[str | None]:
    """A tint or None per kind; two things of one kind get two tints."""
    twins = len(kinds) == 2 and kinds[0] is kinds[1]
    chosen: list[str | None] = []
    for kind in kinds:
        color = None
        if twins or kind.group == "shape" or dice.chance(0.4):
            taken = {CLASH.get(background), *chosen} if twins else {CLASH.get(background)}
            color = dice.pick([c for c in world.colors if c not in taken])
        chosen.append(color)
    return chosen


def _background_color(world: World, dice: Dice, kinds: list[Kind], colors: list[str | None], layout: Layout) -> str:
    """A colour no thing has, so that each stands out."""
    if layout == "bare" and "white" not in colors and dice.chance(0.6):
        return "white"
    taken = {color or kind.natural for kind, color in zip(kinds, colors, strict=True)}
    return dice.pick([c for c in world.background_colors if c not in taken])


def _arrange(
    dice: Dice, kinds: list[Kind], colors: list[str | None], relation: Relation | None, *, fine: bool
) -> list[Thing]:
    """Place things relative to each other; `_settle` moves the group into the picture. Not `fine`: nothing small."""
    number = len(kinds)
    if number == 1:
        spots = [(0.0, 0.0, dice.span(0.6, 0.9))]
    elif relation is None:
        spots = _rows(dice, kinds[0], number)
    elif relation == "riding":
        spots = _riding(dice, kinds)
    elif relation == "wearing":
        spots = _wearing(dice, kinds)
    else:
        spots = _beside(dice, kinds, relation, 0.38 if fine else 0.45)
    turn = 2.0 if relation in ("riding", "wearing") else 5.0
    flip = dice.chance(0.5)
    things = []
    for kind, color, (x, y, size) in zip(kinds, colors, spots, strict=True):
        mirrored = flip if relation in ("riding", "wearing") else (kind.flips and dice.chance(0.5))
        if mirrored and relation in ("riding", "wearing"):
            x = -x  # the seat or head is mirrored with its owner; both stand relative to x = 0
        angle = round(dice.span(-turn, turn), 2)
        things.append(Thing(kind.name, color, x, y, size, angle, mirrored and kind.flips))
    return things


Spots = list[tuple[float, float, float]]  # x, y, size


def _beside(dice: Dice, kinds: list[Kind], relation: Relation, smallest: float) -> Spots:
    sizes = [dice.span(smallest, 0.55) for _ in kinds]
    sideways = relation in ("left of", "right of")
    extents = [s * (k.width if sideways else k.height) for s, k in zip(sizes, kinds, strict=True)]
    apart = sum(extents) / 2 + dice.span(0.01, 0.1)
    sign = -1 if relation in ("left of", "above") else 1
    if sideways:  # feet on one line, more or less
        feet = [s * k.height / 2 for s, k in zip(sizes, kinds, strict=True)]
        return [(sign * apart, -feet[0] + dice.span(-0.05, 0.05), sizes[0]), (0.0, -feet[1], sizes[1])]
    return [(dice.span(-0.12, 0.12), sign * apart, sizes[0]), (0.0, 0.0, sizes[1])]


def _riding(dice: Dice, kinds: list[Kind]) -> Spots:
    rider, mount = kinds
    assert mount.seat is not None
    tall = mount.height > 0.9  # a large mount with a smaller rider, or the rider hides it
    size = dice.span(0.68, 0.8) if tall else dice.span(0.56, 0.7)
    own = dice.span(0.35, 0.43) if tall else dice.span(0.4, 0.5)
    seat_x, seat_y = (mount.seat[0] - 0.5) * size, (mount.seat[1] - 0.5) * size
    sunk = dice.span(0.03, 0.08) * own
    return [(seat_x + dice.span(-0.02, 0.02), seat_y + sunk - own * rider.height / 2, own), (0.0, 0.0, size)]


def _wearing(dice: Dice, kinds: list[Kind]) -> Spots:
    animal, worn = kinds
    assert animal.head is not None
    assert animal.eyes is not None
    size = dice.span(0.56, 0.72)
    on_eyes = worn.height < 0.5
    x, y, width = animal.eyes if on_eyes else animal.head
    own = size * width * (dice.span(1.15, 1.3) if on_eyes else dice.span(1.0, 1.15))
    lift = 0.0 if on_eyes else own * worn.height * 0.38  # its lower rim lies over the head
    return [(0.0, 0.0, size), ((x - 0.5) * size, (y - 0.5) * size - lift, own)]


def _rows(dice: Dice, kind: Kind, number: int) -> Spots:
    """Two in a row, three in a row or as a triangle, four as a square; never overlapping."""
    size = dice.span(0.4, 0.47)
    dx, dy = size * kind.width * dice.span(1.06, 1.2), size * kind.height * dice.span(1.06, 1.12)
    if number == 2:
        cells = [(-0.5, 0.0), (0.5, 0.0)]
    elif number == 3 and kind.width < 0.8 and dice.chance(0.5):
        cells = [(-1.0, 0.0), (0.0, 0.0), (1.0, 0.0)]
    elif number == 3:
        top = -0.5 if dice.chance(0.7) else 0.5
        cells = [(0.0, top), (-0.5, -top), (0.5, -top)]
    else:
        cells = [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)]
    wobble = 0.02 * size
    return [
        (cx * dx + dice.span(-wobble, wobble), cy * dy + dice.span(-wobble, wobble), size * dice.span(0.95, 1.0))
        for cx, cy in cells
    ]


def extent(thing: Thing, kind: Kind) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the drawing, its small rotation left out."""
    half_w, half_h = thing.size * kind.width / 2, thing.size * kind.height / 2
    return thing.x - half_w, thing.y - half_h, thing.x + half_w, thing.y + half_h


def _settle(things: list[Thing], kinds: list[Kind], dice: Dice, *, ground: bool) -> list[Thing]:
    """Scale the group to fit the picture and move it to a place in it: low where there is a ground."""
    boxes = [extent(t, k) for t, k in zip(things, kinds, strict=True)]
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    width, height = max(b[2] for b in boxes) - x0, max(b[3] for b in boxes) - y0
    scale = min(1.0, ROOM / width, ROOM / height)
    free_x, free_y = 1 - width * scale, 1 - height * scale
    left = free_x * (0.5 + 0.42 * (dice.unit() + dice.unit() - 1))
    down = dice.span(0.72, 0.95) if ground else 0.5 + 0.4 * (dice.unit() + dice.unit() - 1)
    top = free_y * down
    return [
        replace(
            t,
            x=round((t.x - x0) * scale + left, 4),
            y=round((t.y - y0) * scale + top, 4),
            size=round(t.size * scale, 4),
        )
        for t in things
    ]
