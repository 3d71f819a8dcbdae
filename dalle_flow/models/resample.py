"""Resizing with OpenCV's filters: Lanczos over eight pixels, and bilinear.

Source: opencv/opencv `modules/imgproc/src/resize.cpp` for the filters and for what lies beyond the border (the last
pixel, again and again).
Parity: tests/parity/test_upscale.py; pictures within 1 of 255, as OpenCV multiplies 8-bit pixels by rounded weights.
Differs: `antialias`, which OpenCV does not have for these filters: to shrink, it leaves pixels out.

Shapes: C channels, H W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOBES = 4  # the filter is zero this far from its middle


def lanczos(pixels: Tensor, height: int, width: int, *, antialias: bool) -> Tensor:
    """(C, H, W) float32 -> (C, height, width), which may overshoot the range of the pixels.

    Args:
        antialias: to shrink, widen the filter so that every pixel counts.
    """
    pixels = _along(pixels, 1, height, antialias)
    return _along(pixels, 2, width, antialias)


def bilinear(pixels: Tensor, height: int, width: int) -> Tensor:
    """(C, H, W) float32 -> (C, height, width)."""
    return F.interpolate(pixels[None], (height, width), mode="bilinear", align_corners=False)[0]


def _along(pixels: Tensor, axis: int, length: int, antialias: bool) -> Tensor:
    size = pixels.shape[axis]
    if size == length:
        return pixels
    ratio = size / length
    spread = max(1.0, ratio) if antialias else 1.0
    middles = (torch.arange(length, dtype=torch.float64) + 0.5) * ratio - 0.5  # in pixels of the source
    reach = math.ceil(LOBES * spread)
    first = middles.floor().long() - reach + 1
    shape = [1] * pixels.ndim
    shape[axis] = length
    out = torch.zeros(*(length if i == axis else n for i, n in enumerate(pixels.shape)), dtype=pixels.dtype)
    weights = torch.stack([_weight((first + tap - middles) / spread) for tap in range(2 * reach)])  # (taps, length)
    weights /= weights.sum(0)
    for tap, weight in enumerate(weights.to(pixels.dtype)):
        out += pixels.index_select(axis, (first + tap).clamp(0, size - 1)) * weight.view(shape)
    return out


def _weight(distance: Tensor) -> Tensor:
    """Lanczos' window times the sinc it cuts off."""
    inside = distance.abs() < LOBES
    return torch.where(inside, torch.sinc(distance) * torch.sinc(distance / LOBES), 0.0)
