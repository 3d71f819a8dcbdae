"""The procedural world: what kinds, colours, styles and backgrounds its pictures are made of. Lists, no code.

A larger world is another instance of `World`; nothing else in this package names a kind.
All lengths are fractions: of the sprite's square box here, of the picture in `scenes`.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal
from zlib import crc32

Group = Literal["animal", "vehicle", "thing", "wearable", "shape"]
Relation = Literal["left of", "right of", "above", "below", "riding", "wearing"]

RELATIONS: tuple[Relation, ...] = ("left of", "right of", "above", "below", "riding", "wearing")
REVERSED: dict[Relation, Relation] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Kind:
    """One kind of object. Its sprite is square; the drawing fills it along its longer side, centred."""

    name: str
    group: Group
    glyph: str  # the emoji; empty for drawn shapes
    natural: str | None = None  # the colour it has untinted, where there is one: never on a background of that colour
    width: float = 1.0  # of the drawing, as a fraction of the box
    height: float = 1.0
    synonyms: tuple[str, ...] = ()  # other words captions may use
    plural: str = ""  # where it is not name + "s"
    seat: tuple[float, float] | None = None  # vehicles: where a rider's feet are, in the box
    head: tuple[float, float, float] | None = None  # animals: top of the head x, y and its width
    eyes: tuple[float, float, float] | None = None  # animals: between the eyes x, y and the width over both
    tilt: float = 0.0  # degrees counterclockwise that level the glyph
    stands: bool = True  # casts a contact shadow and stands on the ground where there is one
    flips: bool = True  # may be mirrored


@dataclass(frozen=True)
class World:
    """Everything there can be in a picture, and how often."""

    name: str
    kinds: tuple[Kind, ...]
    colors: dict[str, tuple[int, int, int]]  # tints of objects
    background_colors: dict[str, tuple[int, int, int]]  # of plain backgrounds
    styles: dict[str, float]  # name -> share of pictures
    backgrounds: dict[str, float]
    layouts: dict[str, float] = field(
        default_factory=lambda: {"single": 0.45, "pair": 0.35, "count": 0.12, "bare": 0.08}
    )
    relations: dict[Relation, float] = field(
        default_factory=lambda: {
            "left of": 0.15, "right of": 0.15, "above": 0.13, "below": 0.13, "riding": 0.26, "wearing": 0.18,
        }
    )  # fmt: skip
    held_out_percent: int = 5  # of the (kind, relation, kind) triples

    @cached_property
    def kind(self) -> dict[str, Kind]:
        return {k.name: k for k in self.kinds}

    @cached_property
    def kind_index(self) -> dict[str, int]:
        return {k.name: i for i, k in enumerate(self.kinds)}

    def of_group(self, *groups: Group) -> tuple[str, ...]:
        return tuple(k.name for k in self.kinds if k.group in groups)

    def held_out(self, subject: str, relation: Relation, other: str) -> bool:
        """Whether this triple is kept from training; says the same of "a left of b" and "b right of a"."""
        if relation in ("right of", "below"):
            subject, relation, other = other, REVERSED[relation], subject
        return crc32(f"{subject}|{relation}|{other}".encode()) % 100 < self.held_out_percent


_CAT, _FLAT = (0.5, 0.2, 0.6), (0.5, 0.13, 0.65)  # heads: between the ears; under a flat top

S0_KINDS = (
    Kind("cat", "animal", "🐱", "yellow", 1.0, 0.89, ("kitten", "kitty"), head=_CAT, eyes=(0.5, 0.55, 0.62)),
    Kind("dog", "animal", "🐶", None, 1.0, 0.78, ("puppy",), head=_FLAT, eyes=(0.52, 0.5, 0.58)),
    Kind("panda", "animal", "🐼", None, 1.0, 0.9, ("panda bear",), head=_FLAT, eyes=(0.5, 0.5, 0.68)),
    Kind("fox", "animal", "🦊", "orange", 1.0, 0.94, plural="foxes", head=(0.5, 0.27, 0.56), eyes=(0.5, 0.57, 0.56)),
    Kind("frog", "animal", "🐸", "green", 1.0, 0.87, ("toad",), head=(0.5, 0.2, 0.62), eyes=(0.5, 0.28, 0.74)),
    Kind("lion", "animal", "🦁", None, 0.89, 1.0, head=(0.5, 0.1, 0.6), eyes=(0.5, 0.38, 0.54)),
    Kind("pig", "animal", "🐷", "pink", 1.0, 0.88, ("piglet",), head=_FLAT, eyes=(0.5, 0.5, 0.62)),
    Kind("rabbit", "animal", "🐰", "gray", 0.76, 1.0, ("bunny",), head=(0.5, 0.43, 0.46), eyes=(0.5, 0.6, 0.46)),
    Kind("monkey", "animal", "🐵", None, 1.0, 0.79, ("ape",), head=_FLAT, eyes=(0.5, 0.53, 0.5)),
    Kind("elephant", "animal", "🐘", "gray", 1.0, 0.91, head=(0.3, 0.1, 0.46), eyes=(0.27, 0.37, 0.44)),
    Kind("penguin", "animal", "🐧", "black", 0.66, 1.0, head=(0.43, 0.05, 0.4), eyes=(0.37, 0.14, 0.42)),
    Kind(
        "octopus", "animal", "🐙", "red", 1.0, 0.91, plural="octopuses", head=(0.6, 0.2, 0.48), eyes=(0.66, 0.38, 0.46)
    ),
    Kind("skateboard", "vehicle", "🛹", "black", 1.0, 0.46, ("longboard",), seat=(0.5, 0.44), tilt=-24.0),
    Kind("bicycle", "vehicle", "🚲", None, 1.0, 0.72, ("bike", "cycle"), seat=(0.54, 0.36)),
    Kind("car", "vehicle", "🚗", "red", 1.0, 0.63, ("automobile",), seat=(0.56, 0.24)),
    Kind("rocket", "vehicle", "🚀", None, 0.99, 1.0, ("spaceship",), seat=(0.42, 0.5), stands=False),
    Kind("sailboat", "vehicle", "⛵", None, 0.91, 1.0, ("boat", "sailing boat"), seat=(0.45, 0.84)),
    Kind("heart", "thing", "❤", "red", 1.0, 0.93, stands=False, flips=False),
    Kind("star", "thing", "⭐", "yellow", 1.0, 0.95, stands=False),
    Kind("moon", "thing", "🌙", "yellow", 1.0, 0.99, ("crescent moon",), stands=False, flips=False),
    Kind("pumpkin", "thing", "🎃", "orange", 1.0, 0.95, ("jack o lantern",)),
    Kind("mushroom", "thing", "🍄", "red", 0.96, 1.0, ("toadstool",)),
    Kind("tree", "thing", "🌳", "green", 0.89, 1.0),
    Kind("house", "thing", "🏠", None, 1.0, 0.98, ("home", "cottage")),
    Kind("cactus", "thing", "🌵", "green", 0.75, 1.0, plural="cacti"),
    Kind("cake", "thing", "🎂", None, 0.77, 1.0, ("birthday cake",)),
    Kind("apple", "thing", "🍎", "red", 0.93, 1.0),
    Kind("flower", "thing", "🌻", "yellow", 0.77, 1.0, ("sunflower",)),
    Kind("balloon", "thing", "🎈", "red", 0.7, 1.0, stands=False),
    Kind("top hat", "wearable", "🎩", "black", 1.0, 0.83, ("tall hat",)),
    Kind("crown", "wearable", "👑", "yellow", 1.0, 0.95),
    Kind("sunglasses", "wearable", "🕶", "black", 1.0, 0.35, ("shades",), plural="sunglasses", stands=False),
    Kind("circle", "shape", "", synonyms=("disc",), stands=False, flips=False),
    Kind("square", "shape", "", stands=False, flips=False),
    Kind("triangle", "shape", "", None, 1.0, 0.87, stands=False, flips=False),
)

S0_COLORS = {
    "red": (224, 36, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 214, 30),
    "green": (46, 168, 62),
    "blue": (40, 98, 224),
    "purple": (142, 54, 196),
    "pink": (250, 128, 186),
    "white": (244, 244, 246),
}

S0 = World(
    name="s0",
    kinds=S0_KINDS,
    colors=S0_COLORS,
    background_colors=S0_COLORS | {"gray": (140, 142, 146), "black": (18, 18, 22)},
    styles={"plain": 0.32, "pixel art": 0.17, "watercolor": 0.17, "pencil sketch": 0.17, "neon": 0.17},
    backgrounds={"plain": 0.4, "grass": 0.1, "sea": 0.1, "night": 0.1, "sunset": 0.1, "snow": 0.1, "space": 0.1},
)
