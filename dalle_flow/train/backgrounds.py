"""Backgrounds, drawn as float32 (S, S, 3) in [0, 255] at any size S. Their random parts come from the scene's seed."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .dice import Dice
from .scenes import Scene
from .world import World

Floats = NDArray[np.float32]


def rgb(color: tuple[float, float, float]) -> Floats:
    return np.array(color, np.float32)


@lru_cache(maxsize=16)
def axis(size: int) -> Floats:
    """Pixel centres along one side, in [0, 1]."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


@lru_cache(maxsize=64)
def noise(size: int, cells: int, seed: int) -> Floats:
    """Smooth noise in [-1, 1], (size, size), the same for every picture: callers roll it."""
    coarse = np.random.default_rng(seed).random((cells, cells), dtype=np.float32)
    coarse = np.pad(coarse, 1, mode="wrap")
    side = round(size * (cells + 2) / cells)
    edge = (side - size) // 2
    fine: Floats = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    return fine[edge : edge + size, edge : edge + size] * 2 - 1


def rolled(tile: Floats, dice: Dice) -> Floats:
    """The tile from another corner on."""
    side = tile.shape[0]
    dy, dx = int(dice.unit() * side), int(dice.unit() * side)
    return np.concatenate(
        [np.concatenate([tile[dy:, dx:], tile[dy:, :dx]], 1), np.concatenate([tile[:dy, dx:], tile[:dy, :dx]], 1)], 0
    )


def _rows(at: Floats, *stops: tuple[float, tuple[int, int, int]]) -> Floats:
    """A vertical gradient through (height, colour) stops, (S, 1, 3)."""
    heights = [s[0] for s in stops]
    channels = [np.interp(at, heights, [s[1][c] for s in stops]) for c in range(3)]
    return np.stack(channels, -1)[:, None].astype(np.float32)


def _hills(at: Floats, horizon: float, swing: float, dice: Dice) -> Floats:
    """1 below a wavy horizon, 0 above, soft over a pixel: (S, S, 1)."""
    line = horizon + swing * np.sin(at * dice.span(3, 8) + dice.span(0, 6.3))
    below: Floats = np.clip((at[:, None] - line[None, :]) * len(at) + 0.5, 0, 1).astype(np.float32)
    return below[..., None]


def _blob(at: Floats, x: float, y: float, wide: float, high: float) -> Floats:
    """A soft spot, (S, S, 1), at most 1."""
    return np.outer(np.exp(-(((at - y) / high) ** 2)), np.exp(-(((at - x) / wide) ** 2)))[..., None].astype(np.float32)


def _dots(picture: Floats, dice: Dice, number: int, lowest: float, color: tuple[int, int, int], side: float) -> None:
    """Single bright points above `lowest`, `side` wide (of the picture), at least a pixel."""
    size = picture.shape[0]
    width = max(1, round(side * size))
    for _ in range(number):
        x, y, strength = int(dice.unit() * size), int(dice.unit() * lowest * size), dice.span(0.35, 1.0)
        spot = picture[y : y + width, x : x + width]
        spot += (rgb(color) - spot) * np.float32(strength)


def plain(scene: Scene, world: World, at: Floats, dice: Dice) -> Floats:
    assert scene.background_color is not None
    color = rgb(world.background_colors[scene.background_color]) + np.float32(dice.span(-6, 6))
    light = 1 + np.float32(dice.span(0.0, 0.07)) * (0.5 - at)
    return np.repeat(light[:, None, None] * color, len(at), 1)


def grass(scene: Scene, world: World, at: Floats, dice: Dice) -> Floats:
    h = scene.horizon
    sky: Floats = _rows(at, (0, (118, 190, 246)), (h, (214, 238, 252)))
    sky = sky + (255 - sky) * 0.8 * _blob(at, dice.unit(), dice.span(0.08, 0.3), dice.span(0.1, 0.2), 0.06)
    ground: Floats = _rows(at, (h, (146, 206, 92)), (1, (66, 152, 52)))
    ground = ground + 13 * rolled(noise(len(at), 24, 1), dice)[..., None]
    return sky + (ground - sky) * _hills(at, h, dice.span(0.0, 0.04), dice)


def sea(scene: Scene, world: World, at: Floats, dice: Dice) -> Floats:
    h = scene.horizon
    sky: Floats = _rows(at, (0, (142, 206, 248)), (h, (228, 243, 252)))
    water: Floats = _rows(at, (h, (74, 172, 214)), (1, (18, 92, 170)))
    depth = (at - h) / (1 - h)
    ripple = 0.5 * rolled(noise(len(at), 6, 2), dice) + (4 * np.sqrt(np.clip(depth, 0, 1)) + dice.unit())[:, None]
    crest = np.clip(np.cos(6.2832 * ripple) * 3 - 1.7, 0, 1)[..., None]
    water = water + 48 * crest
    return sky + (water - sky) * _hills(at, h, 0.0, dice)


def night(scene: Scene, world: World, at: Floats, dice: Dice) -> Floats:
    h = scene.horizon + 0.1
    sky = np.repeat(_rows(at, (0, (14, 20, 66)), (h, (52, 70, 136))), len(at), 1)
    _dots(sky, dice, 26, h, (255, 250, 220), 1 / 80)
    ground = _rows(at, (h, (30, 62, 74)), (1, (16, 38, 48)))
    return sky + (ground - sky) * _hills(at, h, dice.span(0.0, 0.04), dice)


def sunset(scene: Scene, world: World, at: Floats, dice: Dice) -> Floats:
    h = scene.horizon + 0.08
    sky: Floats = _rows(at, (0, (96, 56, 140)), (h * 0.5, (226, 92, 130)), (h, (255, 186, 92)))
    x, y = dice.unit(), h - dice.span(0.0, 0.12)
    round_sun = np.clip((0.11 - np.hypot(at[None, :] - x, at[:, None] - y)) * len(at) + 0.5, 0, 1)
    sky = sky + (rgb((255, 236, 150)) - sky) * round_sun[..., None].astype(np.float32)
    ground = _rows(at, (h, (122, 62, 92)), (1, (66, 34, 72)))
    return sky + (ground - sky) * _hills(at, h, dice.span(0.0, 0.03), dice)


def snow(scene: Scene, world: World, at: Floats, dice: Dice) -> Floats:
    h = scene.horizon
    sky = np.repeat(_rows(at, (0, (142, 178, 214)), (h, (200, 220, 238))), len(at), 1)
    ground = _rows(at, (h, (246, 250, 254)), (1, (212, 226, 242)))
    picture = sky + (ground - sky) * _hills(at, h, dice.span(0.0, 0.05), dice)
    _dots(picture, dice, 30, h, (255, 255, 255), 1 / 50)
    return picture


def space(scene: Scene, world: World, at: Floats, dice: Dice) -> Floats:
    picture = np.empty((len(at), len(at), 3), np.float32)
    picture[:] = (13, 8, 30)
    for color in ((96, 30, 130), (30, 50, 140), (130, 30, 90)):
        cloud = _blob(at, dice.unit(), dice.unit(), dice.span(0.25, 0.45), dice.span(0.2, 0.4))
        picture += rgb(color) * np.float32(0.55) * cloud
    _dots(picture, dice, 40, 1.0, (255, 255, 255), 1 / 80)
    return picture


PAINTERS: dict[str, Callable[[Scene, World, Floats, Dice], Floats]] = {
    "plain": plain, "grass": grass, "sea": sea, "night": night, "sunset": sunset, "snow": snow, "space": space,
}  # fmt: skip


def paint(scene: Scene, world: World, size: int, dice: Dice) -> Floats:
    return np.ascontiguousarray(PAINTERS[scene.background](scene, world, axis(size), dice))
