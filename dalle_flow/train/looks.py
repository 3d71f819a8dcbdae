"""Styles, applied to a finished composition.

Pictures are float32 (S, S, 3) in [0, 255]; `cover` (S, S), in [0, 1], is where things are.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from .backgrounds import Floats, axis, noise, rgb, rolled
from .dice import Dice

PAPER = rgb((250, 247, 240))
GRAPHITE = rgb((52, 50, 58))
LUMA = rgb((0.299, 0.587, 0.114))


def blur(picture: Floats, radius: float) -> Floats:
    """Gaussian; radius as a fraction of the side; (S, S) or (S, S, 3), in [0, 255]."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius * picture.shape[0]))).astype(np.float32)


def edges(field: Floats, reach: int) -> Floats:
    """Size of the gradient over `reach` pixels, (S, S)."""
    down, right = np.zeros_like(field), np.zeros_like(field)
    down[reach:-reach] = field[2 * reach :] - field[: -2 * reach]
    right[:, reach:-reach] = field[:, 2 * reach :] - field[:, : -2 * reach]
    return np.sqrt(down * down + right * right)


@lru_cache(maxsize=16)
def hatching(size: int) -> Floats:
    """Slanting pencil strokes in [0, 1], (size, size)."""
    at = axis(size)
    slant = at[:, None] + 0.8 * at[None, :] + 0.012 * noise(size, 9, 5)
    strokes = 0.5 + 0.5 * np.cos(2 * np.pi * slant * 15)
    shade: Floats = (0.75 * strokes + 0.25 * (0.5 + 0.5 * noise(size, 32, 6))).astype(np.float32)
    return shade


@lru_cache(maxsize=16)
def frame_distance(size: int) -> Floats:
    """Distance to the picture's border, (size, size), as a fraction of its side."""
    side = np.minimum(axis(size), 1 - axis(size))
    return np.minimum(side[:, None], side[None, :])


def flat(picture: Floats, cover: Floats, background: Floats, dice: Dice) -> Floats:
    return picture


def watercolor(picture: Floats, cover: Floats, background: Floats, dice: Dice) -> Floats:
    """Lighter and blotchy, colour gathers at the edges, the paper shows at the border."""
    size = picture.shape[0]
    blotches = rolled(noise(size, 7, 7), dice)
    soft = picture + 0.55 * (blur(picture, 0.012) - picture)
    pigment = (255 - soft) * (0.84 + 0.2 * blotches)[..., None]
    outline = np.abs(cover - blur(cover * 255, 0.02) / 255)
    pigment += (0.55 * outline)[..., None] * (255 - soft * 0.6)
    ragged = frame_distance(size) + 0.016 * rolled(noise(size, 7, 8), dice)
    painted = np.clip((ragged - 0.015) * 40, 0, 1)[..., None]
    grain = 1 + 0.018 * noise(size, max(2, size // 2), 9)
    washed: Floats = (PAPER - pigment * painted * (PAPER / 255)) * grain[..., None]
    return washed


def pencil(picture: Floats, cover: Floats, background: Floats, dice: Dice) -> Floats:
    """Coloured pencil: hatched fills that keep the hue, dark outlines, paper in between."""
    size = picture.shape[0]
    reach = max(1, size // 96)
    luma = picture @ LUMA
    lines: Floats = np.clip(edges(luma, reach) / 120, 0, 1) * (0.45 + 0.55 * cover)  # fainter in the background
    lines = lines + 0.6 * np.clip(edges(cover, reach) * 1.3, 0, 1)
    hatch = rolled(hatching(size), dice)
    strength = 0.22 + 0.3 * hatch + (0.26 + 0.1 * hatch) * cover
    fill: Floats = PAPER + (picture - PAPER) * strength[..., None]
    ink: Floats = np.clip(lines, 0, 1)[..., None] * 0.78
    return fill + (GRAPHITE - fill) * ink


def neon(picture: Floats, cover: Floats, background: Floats, dice: Dice) -> Floats:
    """Glowing lines in the things' own colours over a darkened background."""
    size = picture.shape[0]
    reach = max(1, size // 96)
    dark = background * 0.33
    peak = picture.max(-1, keepdims=True) + 1
    low = picture.min(-1, keepdims=True)
    vivid = (picture - 0.55 * low) / (peak - 0.55 * low) * 255  # full brightness, more saturation
    inner = edges(picture @ LUMA, reach) / 130 * cover
    outer = edges(cover * 255, reach) / 255
    lines = np.clip(inner + outer, 0, 1) * np.clip(cover * 1.6, 0, 1)
    light = vivid * lines[..., None]
    body = (picture * 0.2 + vivid * 0.22) * cover[..., None]
    glowing: Floats = dark * (1 - cover[..., None]) + body + light * 0.95 + blur(light, 0.035) * 0.9
    return glowing


LOOKS: dict[str, Callable[[Floats, Floats, Floats, Dice], Floats]] = {
    "plain": flat, "pixel art": flat, "watercolor": watercolor, "pencil sketch": pencil, "neon": neon,
}  # fmt: skip  # pixel art is drawn on a coarse grid instead: see render


def posterize(picture: Floats, levels: int = 6) -> Floats:
    """Each channel to `levels` values, with a little more contrast first."""
    step = 255 / (levels - 1)
    stepped: Floats = np.round(np.clip((picture - 128) * 1.1 + 128, 0, 255) / step) * np.float32(step)
    return stepped
