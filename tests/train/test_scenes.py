"""Scenes: the same from the same seed, held-out triples kept apart, everything in the world reached."""

import pytest

from dalle_flow.train.scenes import SPLITS, Scene, extent, scene_at
from dalle_flow.train.sprites import shapes_only
from dalle_flow.train.world import RELATIONS, REVERSED, S0

SCENES = [scene_at(S0, 0, "train", i) for i in range(4000)]


def test_a_scene_depends_on_world_seed_split_and_index_alone() -> None:
    assert scene_at(S0, 0, "train", 17) == SCENES[17]
    others = [scene_at(S0, 1, "train", 17), scene_at(S0, 0, "val", 17), scene_at(S0, 0, "train", 18)]
    assert all(other != SCENES[17] for other in others)


def test_a_scene_survives_json() -> None:
    assert all(Scene.from_json(s.to_json()) == s for s in SCENES)


def test_every_word_of_the_world_is_used() -> None:
    assert {t.kind for s in SCENES for t in s.things} == {k.name for k in S0.kinds}
    assert {t.color for s in SCENES for t in s.things} == {*S0.colors, None}
    assert {s.style for s in SCENES} == set(S0.styles)
    assert {s.background for s in SCENES} == set(S0.backgrounds)
    assert {s.background_color for s in SCENES} == {*S0.background_colors, None}
    assert {s.relation for s in SCENES} == {*RELATIONS, None}
    assert {len(s.things) for s in SCENES if s.layout == "count"} == {2, 3, 4}


@pytest.mark.parametrize("layout", list(S0.layouts))
def test_layouts_come_as_often_as_the_world_says(layout: str) -> None:
    share = sum(s.layout == layout for s in SCENES) / len(SCENES)
    assert share == pytest.approx(S0.layouts[layout], abs=0.03)


def triples(split: str, number: int) -> set[tuple[str, str, str]]:
    scenes = (scene_at(S0, 0, split, i) for i in range(number))  # type: ignore[arg-type]
    return {(s.things[0].kind, s.relation, s.things[1].kind) for s in scenes if s.relation}


def test_held_out_triples_are_in_their_own_split_alone() -> None:
    seen = {split: triples(split, 3000) for split in SPLITS}
    assert seen["heldout"]
    assert all(S0.held_out(*t) for t in seen["heldout"])  # type: ignore[arg-type]
    assert not any(S0.held_out(*t) for t in seen["train"] | seen["val"])  # type: ignore[arg-type]


def test_holding_out_sees_through_the_words() -> None:
    kinds = [k.name for k in S0.kinds]
    for relation, reverse in REVERSED.items():
        for a in kinds:
            assert all(S0.held_out(a, relation, b) == S0.held_out(b, reverse, a) for b in kinds)


def test_about_the_promised_share_is_held_out() -> None:
    kinds = [k.name for k in S0.kinds]
    flags = [S0.held_out(a, r, b) for r in ("left of", "above") for a in kinds for b in kinds]  # type: ignore[arg-type]
    assert 100 * sum(flags) / len(flags) == pytest.approx(S0.held_out_percent, abs=1.5)


def test_things_stay_in_the_picture() -> None:
    for scene in SCENES:
        for thing in scene.things:
            x0, y0, x1, y1 = extent(thing, S0.kind[thing.kind])
            assert min(x0, y0) > -0.01
            assert max(x1, y1) < 1.01


def test_equal_things_of_a_count_do_not_overlap() -> None:
    for scene in SCENES:
        boxes = [extent(t, S0.kind[t.kind]) for t in scene.things] if scene.layout == "count" else []
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert a[2] <= b[0] + 0.02 or b[2] <= a[0] + 0.02 or a[3] <= b[1] + 0.02 or b[3] <= a[1] + 0.02


def test_nothing_has_the_colour_of_its_plain_background() -> None:
    for scene in SCENES:
        if scene.background_color is not None:
            shown = {t.color or S0.kind[t.kind].natural for t in scene.things}
            assert scene.background_color not in shown


def test_two_of_a_kind_in_a_pair_differ_in_colour() -> None:
    twins = [s for s in SCENES if s.layout == "pair" and s.things[0].kind == s.things[1].kind]
    assert twins
    assert all(s.things[0].color != s.things[1].color for s in twins)


def test_shapes_are_always_coloured() -> None:
    shapes = S0.of_group("shape")
    assert all(t.color is not None for s in SCENES for t in s.things if t.kind in shapes)


def test_a_world_of_shapes_has_no_riding_or_wearing() -> None:
    world = shapes_only(S0)
    scenes = [scene_at(world, 0, "train", i) for i in range(300)]
    assert {t.kind for s in scenes for t in s.things} == {"circle", "square", "triangle"}
    assert not {s.relation for s in scenes} & {"riding", "wearing"}
