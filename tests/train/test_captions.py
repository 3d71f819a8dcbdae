"""Captions say what is there, and hard negatives say something else in the same words."""

import re
import time

import numpy as np

from dalle_flow.train import phrases
from dalle_flow.train.captions import (
    NEGATIVES,
    canonical,
    caption,
    caption_and_negatives,
    changed_scene,
    plural,
    vocabulary,
)
from dalle_flow.train.dice import Dice
from dalle_flow.train.scenes import scene_at
from dalle_flow.train.world import REVERSED, S0

SCENES = [scene_at(S0, 0, "train", i) for i in range(3000)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def names(kind: str) -> set[str]:
    k = S0.kind[kind]
    singular = (k.name, *k.synonyms)
    return {*singular, *(plural(k, name) for name in singular)}


def test_the_same_generator_gives_the_same_caption() -> None:
    assert [caption(s, S0, rng(3)) for s in SCENES[:50]] == [caption(s, S0, rng(3)) for s in SCENES[:50]]


def test_one_scene_has_many_captions() -> None:
    draw = rng()
    assert len({caption(SCENES[0], S0, draw) for _ in range(300)}) > 60


def test_a_caption_names_every_thing_and_its_colour() -> None:
    draw = rng()
    for scene in SCENES:
        text = caption(scene, S0, draw).lower()
        for thing in scene.things:
            assert any(name in text for name in names(thing.kind)), text
            if thing.color is not None:
                assert any(c in text for c in (thing.color, *phrases.COLOR_SYNONYMS.get(thing.color, ()))), text


def test_a_count_is_said() -> None:
    draw = rng()
    for scene in SCENES:
        if scene.layout == "count":
            text = caption(scene, S0, draw).lower()
            assert any(n in text for n in phrases.NUMBERS[len(scene.things)]), text


def test_captions_stay_within_the_vocabulary_and_use_all_of_it() -> None:
    draw, known, used = rng(), vocabulary(S0), set()
    for _ in range(12):
        used |= {w for s in SCENES for w in words(caption(s, S0, draw))}
    assert used <= known
    assert known - used == set()


def test_articles_and_numbers_are_english() -> None:
    draw = rng()
    for scene in SCENES:
        text = caption(scene, S0, draw).lower()
        assert not re.search(r"\ba [aeiou]", text), text
        assert not re.search(r"\ban [^aeiou8]", text), text
        assert "  " not in text
        assert "{" not in text
        assert "none" not in text


def test_canonical_is_complete_and_tells_scenes_apart() -> None:
    for scene in SCENES:
        text = canonical(scene, S0)
        assert scene.relation is None or scene.relation in text
        assert scene.style == "plain" or text.endswith(scene.style)
        assert scene.background_color is None or f"{scene.background_color} background" in text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_negatives_differ_and_each_kind_of_them_comes() -> None:
    draw, seen = rng(), set()
    for scene in SCENES:
        text, wrong = caption_and_negatives(scene, S0, draw)
        assert set(wrong) == set(NEGATIVES)
        said = [w for w in wrong.values() if w is not None]
        assert text not in said
        seen |= {name for name, w in wrong.items() if w is not None}
    assert seen == set(NEGATIVES)


def test_negatives_that_do_not_apply_are_none() -> None:
    draw = rng()
    for scene in SCENES:
        _, wrong = caption_and_negatives(scene, S0, draw)
        if scene.layout != "pair":
            assert wrong["objects"] is None
            assert wrong["relation"] is None
        if scene.layout == "pair":
            assert wrong["count"] is None
        if scene.style == "plain":
            assert wrong["style"] is None
        if all(t.color is None for t in scene.things):
            assert wrong["color"] is None


def test_a_swap_keeps_the_words_but_not_their_order() -> None:
    """Synonyms and articles follow the thing; with kinds that have no synonym the words are the very same."""
    for scene in SCENES:
        plain = all(not S0.kind[t.kind].synonyms for t in scene.things)
        if scene.layout == "pair" and plain:
            text, wrong = caption_and_negatives(scene, S0, rng(scene.seed))
            if wrong["objects"] is not None:
                skip = {"a", "an", "violet", "rosy", "purple", "pink"}
                assert sorted(set(words(text)) - skip) == sorted(set(words(wrong["objects"])) - skip)


def test_a_reversed_relation_says_the_opposite() -> None:
    for relation, reverse in REVERSED.items():
        said = [phrases.FORWARD[relation], phrases.INVERTED[relation]]
        assert said == [phrases.INVERTED[reverse], phrases.FORWARD[reverse]]


def test_no_negative_is_a_held_out_triple() -> None:
    """They would be learnt as always wrong, and composition could not be measured."""
    for scene in SCENES:
        if scene.relation is None:
            continue
        state = rng(scene.seed)
        swapped = changed_scene(scene, S0, "objects", Dice(rng(0)))
        assert swapped is not None
        assert swapped.relation is not None
        if S0.held_out(swapped.things[0].kind, swapped.relation, swapped.things[1].kind):
            assert caption_and_negatives(scene, S0, state)[1]["objects"] is None


def test_captions_are_fast() -> None:
    draw, start = rng(), time.process_time()
    for scene in SCENES:
        caption(scene, S0, draw)
    assert len(SCENES) / (time.process_time() - start) > 5_000  # per second; about 100,000 on an idle core
