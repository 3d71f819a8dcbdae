"""Logits to masks: a grey picture of how sure a segmenter is, and the thresholds that make it black and white.

Source: jina-ai/dalle-flow, `executors/clipseg` (grey picture, kinds of thresholds); OpenCV, `adaptiveThreshold`,
    `boxFilter` and `GaussianBlur` on 8 and 32 bits (their rounding and weights).
Parity: tests/parity/test_clipseg.py; thresholds of OpenCV to the last bit.
Differs: numpy only; an even block size is refused, the original took the odd one below.

Shapes: H W pixels, n taps of a filter.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Thresholding = Literal["none", "binary", "adaptive_mean", "adaptive_gaussian"]
Grey = NDArray[np.uint8]

# OpenCV's weights for small windows; for larger ones they are computed.
SMALL_GAUSSIANS = {
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
    9: (4 / 256, 13 / 256, 30 / 256, 51 / 256, 60 / 256, 51 / 256, 30 / 256, 13 / 256, 4 / 256),
}


def grey(logits: Tensor, *, relative: bool) -> Grey:
    """(H, W) logits -> (H, W) in 0..255: the sigmoid, truncated to 8 bits.

    Args:
        relative: the largest becomes 255, so that something is always found; else a probability of 1 is 255.
    """
    probability: NDArray[np.float32] = logits.detach().float().sigmoid().cpu().numpy()
    scaled = probability * np.float32(255)
    # Divided last, as the original does; a picture of no probability at all stays black.
    return (scaled / max(probability.max(), np.float32(1e-30)) if relative else scaled).astype(np.uint8)


def threshold(picture: Grey, kind: Thresholding, *, strength: float = 85, block_size: int = 11, c: float = 2.0) -> Grey:
    """(H, W) uint8 -> the same, 0 or 255 only unless `kind` is "none".

    Args:
        strength: binary: what is brighter than that is white.
        block_size: adaptive: side of the window around each pixel, odd, at least 3; edges are repeated outwards.
        c: adaptive: a pixel is white when it is brighter than the window's mean less `c`, rounded up.

    Raises:
        ValueError: no such kind, or an even or too small block size.
    """
    if kind == "none":
        return picture
    if kind == "binary":
        return _white(picture > math.floor(strength))
    if block_size < 3 or block_size % 2 == 0:
        raise ValueError(f"block_size must be odd and at least 3, got {block_size}")
    if kind == "adaptive_mean":
        mean = _box_mean(picture, block_size)
    elif kind == "adaptive_gaussian":
        mean = _gaussian_mean(picture, block_size)
    else:
        raise ValueError(f"kind must be none, binary, adaptive_mean or adaptive_gaussian, got {kind!r}")
    return _white(picture.astype(np.int64) - mean > -math.ceil(c))


def as_large_as(mask: Grey, width: int, height: int) -> Image.Image:
    """(H, W) mask -> a picture "L" of that size, by the nearest pixel."""
    return Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)


def gaussian_weights(n: int) -> NDArray[np.float32]:
    """(n,) weights of OpenCV's Gaussian window when no sigma is given."""
    if n in SMALL_GAUSSIANS:
        return np.array(SMALL_GAUSSIANS[n], np.float32)
    sigma = 0.3 * ((n - 1) * 0.5 - 1) + 0.8
    bell = np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * sigma**2))
    weights: NDArray[np.float32] = (bell / bell.sum()).astype(np.float32)
    return weights


def _white(where: NDArray[np.bool_]) -> Grey:
    return where.astype(np.uint8) * np.uint8(255)


def _box_mean(picture: Grey, n: int) -> NDArray[np.int64]:
    """(H, W) mean of the n x n pixels around each, rounded; with an odd number of them no mean lies halfway."""
    padded = np.pad(picture.astype(np.int64), n // 2, mode="edge")
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # (H + n, W + n) of all above and to the left
    total = sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]  # (H, W)
    mean: NDArray[np.int64] = (2 * total + n * n) // (2 * n * n)
    return mean


def _gaussian_mean(picture: Grey, n: int) -> NDArray[np.int64]:
    """(H, W) weighted mean around each pixel, rounded half to even."""
    height, width = picture.shape
    weights = gaussian_weights(n).astype(np.float64)
    padded = np.pad(picture.astype(np.float64), n // 2, mode="edge")
    rows = sum(weight * padded[:, i : i + width] for i, weight in enumerate(weights))  # (H + n - 1, W)
    total = sum(weight * rows[i : i + height] for i, weight in enumerate(weights))  # (H, W)
    mean: NDArray[np.int64] = np.rint(total).astype(np.int64)
    return mean
