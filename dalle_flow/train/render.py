"""A scene as pixels: a picture and one mask per thing, of what is visible of it.

`Atlas` holds the sprites, tinted on demand, as pyramids, so that a thing is placed by one affine transform.
Shapes: S side of the picture, O things of a scene.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backgrounds import Floats, axis, paint, rgb
from .dice import Dice
from .looks import LOOKS, LUMA, posterize
from .scenes import Scene, Thing, extent
from .sprites import SIDE, Sprites
from .world import World

Bytes = NDArray[np.uint8]
EDGE = SIDE // 8  # empty border around a sprite, so that its outline is soft when turned
PIXELS = 32  # cells along one side in pixel art


def tint(sprite: Bytes, color: tuple[int, int, int]) -> Bytes:
    """Recolour, keeping the shading: the median luminance becomes the colour itself, black and white stay near."""
    light = (sprite[..., :3] @ LUMA) * (0.9 / 255)  # below 1, so that white too becomes the colour
    median = max(float(np.median(light[sprite[..., 3] > 128])), 0.02)
    light = light ** (math.log(0.5) / math.log(median))
    target = rgb(color)
    dark, bright = target * 0.14, target + (255 - target) * 0.75
    below, above = np.clip(light * 2, 0, 1)[..., None], np.clip(light * 2 - 1, 0, 1)[..., None]
    tinted = dark + (target - dark) * below + (bright - target) * above
    return np.dstack([tinted, sprite[..., 3]]).round().astype(np.uint8)


@dataclass
class Atlas:
    """Sprites ready to place. Holds about 100 kB per kind and colour used."""

    sprites: Sprites
    world: World
    _pyramids: dict[tuple[str, str | None], list[Image.Image]] = field(default_factory=dict)

    def pyramid(self, kind: str, color: str | None) -> list[Image.Image]:
        """Premultiplied images of sides 160, 80, 40, 20: the sprite with its border."""
        key = (kind, color)
        if key not in self._pyramids:
            sprite = self.sprites[kind]
            if color is not None:
                sprite = tint(sprite, self.world.colors[color])
            levels = [Image.fromarray(np.pad(sprite, ((EDGE, EDGE), (EDGE, EDGE), (0, 0)))).convert("RGBa")]
            for _ in range(3):
                levels.append(levels[-1].reduce(2))
            self._pyramids[key] = levels
        return self._pyramids[key]


def place(atlas: Atlas, thing: Thing, size: int) -> Floats:
    """The thing alone on a transparent picture: (S, S, 4), premultiplied, in [0, 255]."""
    side = thing.size * (SIDE + 2 * EDGE) / SIDE * size  # pixels the whole level covers
    levels = atlas.pyramid(thing.kind, thing.color)
    level = next((im for im in reversed(levels) if im.width >= 0.8 * side), levels[0])
    scale = level.width / side
    cos, sin = math.cos(math.radians(thing.angle)) * scale, math.sin(math.radians(thing.angle)) * scale
    mirror = -1 if thing.flip else 1
    half, x, y = level.width / 2, thing.x * size, thing.y * size
    ax, bx = mirror * cos, mirror * -sin
    ay, by = sin, cos
    matrix = (ax, bx, half - ax * x - bx * y, ay, by, half - ay * x - by * y)
    layer = level.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(layer).astype(np.float32)


def shadow(picture: Floats, thing: Thing, world: World) -> None:
    """Darken an ellipse below the thing, in place."""
    x0, _, x1, base = extent(thing, world.kind[thing.kind])
    at = axis(picture.shape[0])
    across = np.exp(-((np.abs(at - (x0 + x1) / 2) / ((x1 - x0) * 0.46)) ** 4))
    down = np.exp(-(((at - base) / 0.028) ** 2))
    picture *= (1 - 0.42 * np.outer(down, across))[..., None]


def casts_shadow(scene: Scene, index: int, world: World) -> bool:
    lifted = {"above": 0, "riding": 0, "below": 1, "wearing": 1}.get(scene.relation or "")
    return world.kind[scene.things[index].kind].stands and index != lifted and scene.background != "space"


def render(scene: Scene, atlas: Atlas, size: int = 64) -> tuple[Bytes, Bytes]:
    """Draw a scene.

    Returns:
        (S, S, 3) uint8 RGB, and (O, S, S) uint8: how much of each pixel shows each thing, 255 is all of it.
    """
    dice = Dice(np.random.default_rng(scene.seed))
    grid = min(PIXELS, max(8, size // 2)) if scene.style == "pixel art" else size
    background = paint(scene, atlas.world, grid, dice)
    for i in range(len(scene.things)):
        if casts_shadow(scene, i, atlas.world):
            shadow(background, scene.things[i], atlas.world)
    picture, masks = background.copy(), np.zeros((len(scene.things), grid, grid), np.float32)
    for i in scene.draw_order():
        layer = place(atlas, scene.things[i], grid)
        alpha = layer[..., 3] / 255
        if scene.style == "pixel art":
            alpha = (alpha > 0.45).astype(np.float32)
            solid = layer[..., :3] * (255 / np.maximum(layer[..., 3:], 1))
            layer = np.dstack([solid * alpha[..., None], alpha])
        clear = 1 - alpha
        picture *= clear[..., None]
        picture += layer[..., :3]
        masks *= clear
        masks[i] = alpha
    if scene.style == "pixel art":
        return _magnify(posterize(picture), masks, size)
    picture = LOOKS[scene.style](picture, np.minimum(masks.sum(0), 1), background, dice)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), (masks * 255 + 0.5).astype(np.uint8)


def _magnify(picture: Floats, masks: Floats, size: int) -> tuple[Bytes, Bytes]:
    """Coarse cells to square pixels."""
    source = np.arange(size) * picture.shape[0] // size
    cells = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return cells[source][:, source], (masks * 255).astype(np.uint8)[:, source][:, :, source]
