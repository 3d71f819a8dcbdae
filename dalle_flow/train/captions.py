"""Captions of a scene, and captions that are almost right.

`caption` draws one of very many: full sentences, bare ("red heart"), terse ("cat, skateboard, watercolor").
`caption_and_negatives` says a changed scene in the very same words: a hard negative differs in one fact alone.
`canonical` is the one plain, complete caption of a scene.
"""

import re
from dataclasses import replace

import numpy as np

from . import phrases
from .dice import Dice
from .scenes import Scene, Thing
from .world import REVERSED, Kind, Relation, World

NEGATIVES = ("objects", "kind", "color", "relation", "style", "background", "count")
SYNONYM_RATE = 0.3
COLOR_SYNONYM_RATE = 0.2
BARE, TERSE = 0.1, 0.1  # shares of captions


def caption(scene: Scene, world: World, rng: np.random.Generator) -> str:
    return _say(scene, world, Dice(rng))[0]


def caption_and_negatives(scene: Scene, world: World, rng: np.random.Generator) -> tuple[str, dict[str, str | None]]:
    """A caption, and for each of NEGATIVES the same words for a scene changed there: None where that cannot be.

    It cannot where the scene has nothing of the sort, this caption does not speak of it, or the change would make a
    held-out triple: those would be learnt as always wrong.
    """
    first, other = (np.random.default_rng(int(rng.integers(2**63))) for _ in range(2))
    start = first.bit_generator.state
    text, form = _say(scene, world, Dice(first))
    found: dict[str, str | None] = {}
    for name in NEGATIVES:
        changed = changed_scene(scene, world, name, Dice(other))
        found[name] = None
        if changed is None or (form != "full" and name in ("objects", "relation")):
            continue
        if _triple(changed) != _triple(scene) and world.held_out(*_triple(changed)):
            continue
        first.bit_generator.state = start
        wrong, _ = _say(changed, world, Dice(first))
        if wrong != text:
            found[name] = wrong
    return text, found


def _triple(scene: Scene) -> tuple[str, Relation, str]:
    """(kind, relation, kind) of a pair; of any other scene, one that is not held out."""
    return (scene.things[0].kind, scene.relation, scene.things[1].kind) if scene.relation else ("", "above", "")


def changed_scene(scene: Scene, world: World, name: str, dice: Dice) -> Scene | None:
    """The scene with one fact wrong, for its caption only (places stay). None where there is no such fact."""
    things = scene.things
    pair = scene.layout == "pair"
    if name == "objects" and pair:
        return replace(scene, things=(things[1], things[0]))
    if name == "kind":
        known = {t.kind for t in things}
        which = 0 if not pair else int(dice.unit() * 2)
        like = [k for k in world.of_group(world.kind[things[which].kind].group) if k not in known]
        kind = dice.pick(like or [k for k in world.kind if k not in known])
        changed = [replace(t, kind=kind) if i == which or not pair else t for i, t in enumerate(things)]
        return replace(scene, things=tuple(changed))
    if name == "color":
        return _changed_color(scene, world, dice)
    if name == "relation" and scene.relation is not None:
        aside: Relation = dice.pick(("left of", "right of", "below"))
        return replace(scene, relation=REVERSED.get(scene.relation, aside))
    if name == "style" and scene.style != "plain":
        return replace(scene, style=dice.pick([s for s in world.styles if s not in (scene.style, "plain")]))
    if name == "background" and scene.background_color is not None:
        others = [c for c in world.background_colors if c != scene.background_color]
        return replace(scene, background_color=dice.pick(others))
    if name == "background":
        others = [b for b in world.backgrounds if b not in (scene.background, "plain")]
        return replace(scene, background=dice.pick(others))
    if name == "count" and not pair:
        number = dice.pick([n for n in (1, 2, 3, 4) if n != len(things)])
        return replace(scene, things=things[:1] * number, layout="single" if number == 1 else "count")
    return None


def _changed_color(scene: Scene, world: World, dice: Dice) -> Scene | None:
    things = scene.things
    colors = [t.color for t in things]
    if scene.layout == "pair":
        looks = [t.color or world.kind[t.kind].natural for t in things]
        if colors[0] == colors[1] or looks[0] == looks[1]:
            return None  # swapped, it would say nothing wrong
        new = [colors[1], colors[0]]
    elif colors[0] is None:
        return None
    else:
        new = [dice.pick([c for c in world.colors if c != colors[0]])] * len(things)
    return replace(scene, things=tuple(replace(t, color=c) for t, c in zip(things, new, strict=True)))


def canonical(scene: Scene, world: World) -> str:
    """Everything in the picture, in the plainest words: "three red apples at night, watercolor"."""
    first = scene.things[0]
    if scene.relation is not None:
        second = scene.things[1]
        body = f"{_article(_noun(first, first.kind))} {scene.relation} {_article(_noun(second, second.kind))}"
    elif len(scene.things) > 1:
        body = f"{phrases.NUMBERS[len(scene.things)][0]} {_noun(first, plural(world.kind[first.kind], first.kind))}"
    else:
        body = _article(_noun(first, first.kind))
    place = phrases.PLACES[scene.background][0].format(color=scene.background_color).replace(" a orange", " an orange")
    return f"{body} {place}" + (f", {scene.style}" if scene.style != "plain" else "")


def _noun(thing: Thing, name: str) -> str:
    return f"{thing.color} {name}" if thing.color else name


def _article(noun: str) -> str:
    if noun.endswith(("sunglasses", "shades")):
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _color(color: str, roll: float) -> str:
    """The colour's name or, for a low roll, another word for it."""
    others = phrases.COLOR_SYNONYMS.get(color)
    return others[0] if others and roll < COLOR_SYNONYM_RATE else color


def _words(thing: Thing, world: World, dice: Dice, *, many: bool = False) -> str:
    """Colour and name of a thing. Takes the same number of rolls for every thing, so that negatives share the words."""
    kind = world.kind[thing.kind]
    use, which, color_roll = dice.unit(), dice.unit(), dice.unit()
    name = kind.name
    if kind.synonyms and use < SYNONYM_RATE:
        name = kind.synonyms[int(which * len(kind.synonyms))]
    if many:
        name = plural(kind, name)
    return name if thing.color is None else f"{_color(thing.color, color_roll)} {name}"


def plural(kind: Kind, name: str) -> str:
    """Of the kind's own name or of a synonym."""
    if kind.plural and name == kind.name:
        return kind.plural
    if name.endswith("shades"):
        return name
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "x", "ch")) else "s")


def _say(scene: Scene, world: World, dice: Dice) -> tuple[str, str]:
    """A caption and its form: "full", "bare" or "terse"."""
    roll = dice.unit()
    if roll < BARE:
        text, form = _bare(scene, world, dice), "bare"
    elif roll < BARE + TERSE:
        text, form = _terse(scene, world, dice), "terse"
    else:
        text, form = _full(scene, world, dice), "full"
    case = dice.unit()
    if case < 0.12:
        text = text[0].upper() + text[1:]
    return (text + "." if case < 0.05 else text), form


def _bare(scene: Scene, world: World, dice: Dice) -> str:
    """Just the things: "cat", "red heart", "three cats", "cat and dog"."""
    number, names = len(scene.things), _words(scene.things[0], world, dice, many=scene.layout == "count")
    if scene.relation is not None:
        other = _words(scene.things[1], world, dice)
        return f"{names} {dice.pick(phrases.KEYWORD[scene.relation])} {other}"
    if number > 1:
        return f"{dice.pick(phrases.NUMBERS[number])} {names}"
    return _article(names) if dice.chance(0.3) else names


def _terse(scene: Scene, world: World, dice: Dice) -> str:
    """Keywords between commas, the things first or last: "cat, skateboard, watercolor, night"."""
    number = len(scene.things)
    names = _words(scene.things[0], world, dice, many=scene.layout == "count")
    parts = [f"{dice.pick(phrases.NUMBERS[number])} {names}" if scene.layout == "count" else names]
    if scene.relation is not None:
        parts.append(_words(scene.things[1], world, dice))
    extras = [_backdrop(scene, dice)]
    style = dice.pick(phrases.STYLE_LAST[scene.style])
    if scene.style != "plain" or dice.chance(0.1):
        extras.append(style)
    order = dice.unit()
    if order < 0.5:
        extras.reverse()
    if dice.chance(0.25):
        extras = extras[:1]
    parts = extras + parts if order > 0.75 or order < 0.15 else parts + extras
    return (", " if dice.chance(0.75) else " ").join(parts)


def _backdrop(scene: Scene, dice: Dice) -> str:
    text = dice.pick(phrases.BACKDROPS[scene.background])
    return text.format(color=_color(scene.background_color or "", dice.unit()))


def _body(scene: Scene, world: World, dice: Dice) -> str:
    """The things in a sentence, with articles."""
    adjective = f"{dice.pick(phrases.ADJECTIVES)} " if dice.chance(0.06) else ""
    first = adjective + _words(scene.things[0], world, dice, many=scene.layout == "count")
    number_roll, turned, pattern = dice.unit(), dice.unit(), dice.unit()
    if scene.relation is None:
        if scene.layout != "count":
            return _article(first)
        options = phrases.NUMBERS[len(scene.things)]
        return f"{options[int(number_roll * len(options))]} {first}"
    second = _words(scene.things[1], world, dice)
    first, second = _article(first), _article(second)
    if turned < (0.3 if scene.relation not in ("riding", "wearing") else 0.07):
        words = phrases.INVERTED[scene.relation]
        return f"{second} {words[int(pattern * len(words))]} {first}"
    words = phrases.FORWARD[scene.relation]
    return f"{first} {words[0] if pattern < 0.4 else words[int(pattern * len(words))]} {second}"


def _full(scene: Scene, world: World, dice: Dice) -> str:
    """Things, place and style as one phrase."""
    body = _body(scene, world, dice)
    form, which, say_place, say_style = dice.unit(), dice.unit(), dice.unit(), dice.unit()
    place, backdrop = dice.pick(phrases.PLACES[scene.background]), _backdrop(scene, dice)
    color_roll = dice.unit()
    if say_place < (0.45 if scene.background_color == "white" else 0.85):
        place = place.format(color=_color(scene.background_color or "", color_roll)).replace(" a orange", " an orange")
        with_place = f"{body} {place}" if dice.chance(0.75) else f"{body}, {backdrop}"
    else:
        with_place = body
    if say_style > (0.25 if scene.style == "plain" else 0.93):
        return with_place
    heads, tails = phrases.STYLE_FIRST[scene.style], phrases.STYLE_LAST[scene.style]
    head, tail = heads[int(which * len(heads))], tails[int(which * len(tails))]
    if form < 0.38:
        if head.endswith("neon"):  # "a glowing neon cat"
            return f"{head} {re.sub(r'^an? ', '', with_place)}"
        return f"{head} {with_place}"
    if form < 0.76:
        return f"{with_place}, {tail}"
    if form < 0.84:
        return f"{with_place} ({tail})"
    if form < 0.92:
        return f"{tail}: {with_place}"
    return f"{with_place} {dice.pick(phrases.STYLE_TAIL).format(style=scene.style if scene.style != 'plain' else tail)}"


def vocabulary(world: World) -> set[str]:
    """Every word a caption may hold, in lower case."""
    texts: list[str] = [*phrases.ADJECTIVES, "a an"]
    for kind in world.kinds:
        names = (kind.name, *kind.synonyms)
        texts += [*names, *(plural(kind, n) for n in names)]
    for color in world.background_colors:
        texts += [color, *phrases.COLOR_SYNONYMS.get(color, ())]
    for table in (phrases.FORWARD, phrases.INVERTED):
        texts += [p for r in world.relations for p in table[r]]
    for places in (phrases.PLACES, phrases.BACKDROPS):
        texts += [p for b in world.backgrounds for p in places[b]]
    for styles in (phrases.STYLE_FIRST, phrases.STYLE_LAST):
        texts += [p for s in world.styles for p in styles[s]]
    texts += [p for words in phrases.NUMBERS.values() for p in words] + list(phrases.STYLE_TAIL)
    return set(re.findall(r"[a-z0-9]+", re.sub(r"\{\w+\}", " ", " ".join(texts).lower())))
