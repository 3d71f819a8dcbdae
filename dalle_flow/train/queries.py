"""What to look for in a scene, in words, and which of its things that is: for training a segmenter.

A query names a kind ("the kitten"), a colour and a kind ("a purple dog"), or a colour alone ("the red one"), and means
every thing of the scene that fits. Some queries mean nothing that is there: another kind, a likely one half of the
time, or the right kind in a wrong colour.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from . import phrases
from .captions import COLOR_SYNONYM_RATE, SYNONYM_RATE, plural
from .dice import Dice
from .scenes import Scene, Thing
from .world import World

Form = Literal["kind", "color and kind", "color"]
ONES = ("one", "one", "thing", "object")  # what stands for the kind where a colour alone is said
ALIKE = {"night": {"star"}, "space": {"star"}, "sunset": {"circle"}}  # kinds that a background shows without a thing
COLOR_AND_KIND, COLOR = 0.35, 0.15  # shares of queries, where they say something


@dataclass(frozen=True)
class Query:
    text: str
    form: Form
    things: tuple[int, ...]  # indices into scene.things; none: what is asked for is not there


def look(thing: Thing, world: World) -> str | None:
    """The colour somebody would call the thing by; None where it has several."""
    return thing.color or world.kind[thing.kind].natural


def present(scene: Scene, world: World, dice: Dice, visible: Collection[int]) -> Query:
    """A query for one of the `visible` things, and all that are like it as far as the query says."""
    asked = scene.things[dice.pick(sorted(visible))]
    color, looks = look(asked, world), [look(thing, world) for thing in scene.things]
    roll = dice.unit()
    if color is not None and roll < COLOR and None not in looks:
        things = tuple(i for i, other in enumerate(looks) if other == color)
        return Query(_say(None, color, world, dice, many=len(things) > 1), "color", things)
    same = tuple(i for i, other in enumerate(scene.things) if other.kind == asked.kind)
    if color is not None and roll < COLOR + COLOR_AND_KIND:
        things = tuple(i for i in same if looks[i] == color)
        return Query(_say(asked.kind, color, world, dice, many=len(things) > 1), "color and kind", things)
    return Query(_say(asked.kind, None, world, dice, many=len(same) > 1), "kind", same)


def absent(scene: Scene, world: World, dice: Dice) -> Query:
    """A query for what is not in the scene."""
    near = dice.pick(scene.things)
    colors = [thing.color for thing in scene.things]
    others = [c for c in world.colors if c not in colors]
    roll = dice.unit()
    # Wrong colours are said of tinted things alone: what is yellow by nature may pass for orange.
    if roll < 0.15 and None not in colors:
        return Query(_say(None, dice.pick(others), world, dice), "color", ())
    if roll < 0.4 and near.color is not None:
        same = {thing.color for thing in scene.things if thing.kind == near.kind}
        wrong = dice.pick([c for c in world.colors if c not in same])
        return Query(_say(near.kind, wrong, world, dice), "color and kind", ())
    there = {thing.kind for thing in scene.things} | ALIKE.get(scene.background, set())
    group = world.of_group(world.kind[near.kind].group) if dice.chance(0.5) else tuple(world.kind)
    kind = dice.pick([k for k in group if k not in there] or [k for k in world.kind if k not in there])
    if (color := look(near, world)) is not None and dice.chance(COLOR_AND_KIND):
        return Query(_say(kind, color, world, dice), "color and kind", ())
    return Query(_say(kind, None, world, dice), "kind", ())


def _say(kind: str | None, color: str | None, world: World, dice: Dice, *, many: bool = False) -> str:
    """A kind, a colour or both in words; a `kind` of None is "one"."""
    noun = dice.pick(ONES)
    if kind is not None:
        known = world.kind[kind]
        noun = dice.pick(known.synonyms) if known.synonyms and dice.chance(SYNONYM_RATE) else kind
    if many and dice.chance(0.6):
        noun = f"{noun}s" if kind is None else plural(world.kind[kind], noun)
    else:
        many = False
    words = [noun]
    if color is not None:
        synonyms = phrases.COLOR_SYNONYMS.get(color, ())
        words.insert(0, synonyms[0] if synonyms and dice.chance(COLOR_SYNONYM_RATE) else color)
    if dice.chance(0.06):
        words.insert(0, dice.pick(phrases.ADJECTIVES))
    text, article = " ".join(words), dice.unit()
    if article < 0.4 or (kind is None and article < 0.85):
        return f"the {text}"
    if article < 0.6 and not many and not noun.endswith(("sunglasses", "shades")):
        return f"an {text}" if text[0] in "aeiou" else f"a {text}"
    return text
