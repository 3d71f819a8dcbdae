"""The sprites of a world's kinds: emoji from Noto Color Emoji and drawn shapes, cached in one .npz file.

The font is needed once, to write the cache; from then on the cache is enough. Noto Color Emoji holds one bitmap
size, 136x128, which FreeType offers at 109 points. Its licence (SIL OFL 1.1) does not reach pictures made with it.
A sprite is (128, 128, 4) uint8 RGBA, not premultiplied; the drawing touches the box along its longer side.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dalle_flow.errors import WeightsError

from .world import S0, Kind, World

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # where the Debian package puts it
PACKAGE = "fonts-noto-color-emoji"
GLYPH_SIZE = 109  # the only size in the font's bitmap table
SIDE = 128

Sprites = dict[str, NDArray[np.uint8]]  # kind -> (SIDE, SIDE, 4)


def load_sprites(cache: Path | None = None, font: Path | None = None, world: World = S0) -> Sprites:
    """All sprites of `world`: from the cache if it has them, else drawn with the font and written to the cache.

    Raises:
        WeightsError: the cache lacks some, and there is no font.
    """
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            if all(k.name in stored for k in world.kinds):
                return {k.name: stored[k.name] for k in world.kinds}
    font = font or FONT
    if not font.exists() and any(k.glyph for k in world.kinds):
        raise WeightsError(
            f"no emoji font at {font} and no sprite cache{f' at {cache}' if cache else ''}: install the Debian package "
            f"{PACKAGE}, give the path of NotoColorEmoji.ttf, or use `shapes_only(world)`.",
            field="font",
        )
    sprites = {k.name: draw_glyph(k, font) if k.glyph else draw_shape(k.name) for k in world.kinds}
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(cache, **sprites)  # type: ignore[arg-type]
    return sprites


def shapes_only(world: World) -> World:
    """The part of `world` that needs no font: drawn shapes alone, hence nothing to ride or to wear."""
    relations = {r: share for r, share in world.relations.items() if r not in ("riding", "wearing")}
    kinds = tuple(k for k in world.kinds if k.group == "shape")
    return replace(world, name=f"{world.name}-shapes", kinds=kinds, relations=relations)


def draw_glyph(kind: Kind, font: Path) -> NDArray[np.uint8]:
    canvas = Image.new("RGBA", (GLYPH_SIZE * 2, GLYPH_SIZE * 2))
    face = ImageFont.truetype(str(font), GLYPH_SIZE)
    ImageDraw.Draw(canvas).text((40, 40), kind.glyph, font=face, embedded_color=True)
    if kind.tilt:
        canvas = canvas.rotate(kind.tilt, Image.Resampling.BICUBIC, expand=True)
    return _fit(canvas)


def draw_shape(name: str) -> NDArray[np.uint8]:
    """A white shape with a soft light from above, at 4x and reduced; captions always give it a colour."""
    big = 4 * SIDE
    mask = Image.new("L", (big, big))
    draw = ImageDraw.Draw(mask)
    if name == "circle":
        draw.ellipse((0, 0, big - 1, big - 1), fill=255)
    elif name == "square":
        draw.rectangle((0, 0, big - 1, big - 1), fill=255)
    elif name == "triangle":
        draw.polygon([(big / 2, 0), (big - 1, 0.87 * big), (0, 0.87 * big)], fill=255)
    else:
        raise WeightsError(f"no drawing for the shape {name!r}; known: circle, square, triangle", field="kind")
    shade = np.linspace(150, 118, big).astype(np.uint8)  # around mid grey: tinting maps it to the colour itself
    grey = Image.fromarray(np.repeat(shade[:, None], big, 1))
    return _fit(Image.merge("RGBA", (grey, grey, grey, mask)))


def _fit(drawn: Image.Image) -> NDArray[np.uint8]:
    """Cut the drawing out, scale its longer side to SIDE, centre it."""
    alpha = drawn.getchannel("A").point([255 if a > 8 else 0 for a in range(256)])  # faint halos do not count
    box = alpha.getbbox()
    assert box is not None, "an empty drawing"
    width, height = box[2] - box[0], box[3] - box[1]
    scale = SIDE / max(width, height)
    size = (round(width * scale), round(height * scale))
    small = drawn.crop(box).resize(size, Image.Resampling.LANCZOS)
    sprite = Image.new("RGBA", (SIDE, SIDE))
    sprite.paste(small, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.array(sprite)
