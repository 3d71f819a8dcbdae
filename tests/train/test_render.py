"""Pictures show the scene: masks lie where things are, relations hold in them, every size works."""

from pathlib import Path

import numpy as np
import pytest

from dalle_flow.errors import WeightsError
from dalle_flow.train.render import Atlas, place, render, tint
from dalle_flow.train.scenes import Scene, extent, scene_at
from dalle_flow.train.sprites import FONT, SIDE, Sprites, load_sprites, shapes_only
from dalle_flow.train.targets import CELLS, FACTS, cells, targets
from dalle_flow.train.world import RELATIONS, S0

SCENES = [scene_at(S0, 0, "train", i) for i in range(400)]


def of(style: str) -> list[Scene]:
    return [s for s in SCENES if s.style == style]


def centre(mask: np.ndarray) -> tuple[float, float]:
    """(x, y) in pixels of a (S, S) mask."""
    ys, xs = np.nonzero(mask >= 128)
    return float(xs.mean()), float(ys.mean())


@pytest.mark.parametrize("size", [17, 64, 100])
@pytest.mark.parametrize("style", list(S0.styles))
def test_every_style_renders_at_any_size(atlas: Atlas, style: str, size: int) -> None:
    for scene in of(style)[:12]:
        picture, masks = render(scene, atlas, size)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
        assert masks.shape == (len(scene.things), size, size)
        assert masks.dtype == np.uint8
        found = targets(scene, masks, S0)
        assert found.kinds.shape == found.colors.shape == (CELLS, CELLS)
        assert found.labels.shape == (size, size)


@pytest.mark.parametrize("background", list(S0.backgrounds))
def test_every_background_renders_the_same_twice(atlas: Atlas, background: str) -> None:
    scene = next(s for s in SCENES if s.background == background)
    (a, mask_a), (b, mask_b) = render(scene, atlas), render(scene, atlas)
    assert np.array_equal(a, b)
    assert np.array_equal(mask_a, mask_b)
    assert a.std() > 1 or background == "plain"


def test_masks_lie_within_the_boxes(atlas: Atlas) -> None:
    for scene in SCENES:
        _, masks = render(scene, atlas, 64)
        for thing, mask in zip(scene.things, masks, strict=True):
            x0, y0, x1, y1 = extent(thing, S0.kind[thing.kind])
            ys, xs = np.nonzero(mask >= 128)
            slack = 0.05 + thing.size * 0.06  # a cell of pixel art; the turn
            assert xs.min() / 64 > x0 - slack
            assert (xs.max() + 1) / 64 < x1 + slack
            assert ys.min() / 64 > y0 - slack
            assert (ys.max() + 1) / 64 < y1 + slack


def test_everything_is_seen_and_no_pixel_is_counted_twice(atlas: Atlas) -> None:
    for scene in SCENES:
        _, masks = render(scene, atlas, 64)
        assert masks.astype(int).sum(0).max() <= 257  # 255 and the rounding of each
        for thing, mask in zip(scene.things, masks, strict=True):
            alone = place(atlas, thing, 64)[..., 3]
            assert (mask >= 128).sum() > 0.35 * (alone >= 128).sum(), (scene.relation, thing.kind)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_in_the_masks(atlas: Atlas, relation: str) -> None:
    scenes = [s for s in (scene_at(S0, 5, "train", i) for i in range(800)) if s.relation == relation]
    assert len(scenes) > 20
    for scene in scenes:
        _, masks = render(scene, atlas, 64)
        (ax, ay), (bx, by) = centre(masks[0]), centre(masks[1])
        match relation:
            case "left of":
                assert ax < bx - 10
            case "right of":
                assert ax > bx + 10
            case "above":
                assert ay < by - 4
            case "riding":  # touches the mount, feet above its wheels; a sail may rise above the rider
                rider, mount = np.nonzero(masks[0] >= 128)[0], np.nonzero(masks[1] >= 128)[0]
                whole = place(atlas, scene.things[1], 64)[..., 3] >= 128
                assert (whole & (masks[0] >= 128)).any() or rider.max() + 4 >= mount.min()
                assert rider.max() <= mount.max() + 1
                assert S0.kind[scene.things[1].kind].height > 0.9 or ay < by - 4
            case "below":
                assert ay > by + 4
            case "wearing":  # what is worn is whole, and hides a part of who wears it
                whole = place(atlas, scene.things[0], 64)[..., 3] >= 128
                assert (whole & (masks[1] >= 128)).sum() > 0
                assert (masks[0] >= 128).sum() < whole.sum()


def test_the_picture_hardly_changes_with_the_size(atlas: Atlas) -> None:
    for scene in of("plain")[:40]:
        small, _ = render(scene, atlas, 64)
        large, _ = render(scene, atlas, 128)
        reduced = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(reduced - small).mean() < 8


def test_tint_keeps_shape_and_shading_and_takes_the_colour(sprites: Sprites) -> None:
    for value in (10, 60, 250):  # dark sprites must not stay black, white ones not white
        sprite = sprites["cat"].copy()
        sprite[..., :3] = value
        for color in S0.colors.values():
            tinted = tint(sprite, color)
            assert np.array_equal(tinted[..., 3], sprite[..., 3])
            inside = tinted[sprite[..., 3] > 0][:, :3].astype(int)
            assert np.abs(inside - np.array(color)).max() < 40
    shaded = tint(sprites["cat"], S0.colors["blue"])
    assert shaded[SIDE // 4, SIDE // 2, :3].sum() > shaded[3 * SIDE // 4, SIDE // 2, :3].sum()


def test_targets_say_what_is_where(atlas: Atlas) -> None:
    for scene in SCENES:
        _, masks = render(scene, atlas, 64)
        found = targets(scene, masks, S0)
        kinds = {1 + S0.kind_index[t.kind] for t in scene.things}
        assert set(np.unique(found.kinds)) - {0} == kinds
        colors = {1 + list(S0.colors).index(t.color) for t in scene.things if t.color}
        assert set(np.unique(found.colors)) - {0} == colors
        assert set(np.unique(found.labels)) - {0} == set(range(1, 1 + len(scene.things)))
        values = dict(zip(FACTS, found.facts.tolist(), strict=True))
        assert list(S0.styles)[values["style"]] == scene.style
        assert list(S0.backgrounds)[values["background"]] == scene.background
        assert values["count"] == len(scene.things)
        if scene.background_color:
            assert list(S0.background_colors)[values["background_color"] - 1] == scene.background_color


def test_cells_lean_to_the_foreground() -> None:
    masks = np.zeros((1, 64, 64), np.uint8)
    masks[0, :4, :2] = 255  # half of cell (0, 0)
    masks[0, 8:12, :1] = 255  # a quarter of cell (2, 0)
    assert cells(masks)[0, 0] == 1
    assert cells(masks).sum() == 1


def test_shapes_need_no_font(tmp_path: Path) -> None:
    world = shapes_only(S0)
    cache = tmp_path / "sprites.npz"
    first = load_sprites(cache, tmp_path / "none.ttf", world)
    again = load_sprites(cache, tmp_path / "none.ttf", world)
    assert all(np.array_equal(first[k], again[k]) for k in first)
    picture, _ = render(scene_at(world, 0, "train", 0), Atlas(first, world))
    assert picture.shape == (64, 64, 3)
    for kind in world.kinds:  # the world's proportions are those of the drawing
        solid = first[kind.name][..., 3] > 8
        assert solid.any(0).mean() == pytest.approx(kind.width, abs=0.02)
        assert solid.any(1).mean() == pytest.approx(kind.height, abs=0.02)


def test_without_font_and_cache_the_error_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="fonts-noto-color-emoji"):
        load_sprites(tmp_path / "sprites.npz", tmp_path / "none.ttf")


@pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")
def test_the_font_has_every_glyph_in_the_world_s_proportions() -> None:
    drawn = load_sprites(None, FONT)
    for kind in S0.kinds:
        solid = drawn[kind.name][..., 3] > 8
        assert solid.any(0).mean() == pytest.approx(kind.width, abs=0.03), kind.name
        assert solid.any(1).mean() == pytest.approx(kind.height, abs=0.03), kind.name
