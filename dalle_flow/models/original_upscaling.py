"""The tiling and padding of the original programs, with their seams: to compare with them and repeat what they made.

Source: JingyunLiang/SwinIR `main_test_swinir.py`; xinntao/Real-ESRGAN `realesrgan/utils.py` (RealESRGANer).
Parity: tests/parity/test_upscale.py; floats within 2e-5, pictures within 1 of 255.
Differs: what failed there, or gave pixels that no tile had computed, is refused.

`tiling.py` is what the executor uses: it gives what the whole picture would give.
Shapes: B batch, C channels, H W pixels, s scale.
"""

import torch
from torch import Tensor

from .picture_planes import Pixels, Planes, for_network, from_network, put_together, resize, take_apart
from .resample import bilinear
from .rrdb import RRDBNet
from .srvgg import SRVGG
from .stages import missing, reflect, run_whole
from .swinir import SwinIR


def swinir_main(model: SwinIR, pixels: Tensor, tile: int | None = None, overlap: int = 32) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, H*s, W*s), as SwinIR's own program: not clamped.

    A window is added below and at the right even where the sides are whole windows already, mirrored with the edge
    pixel twice; tiles overlap, and their results are averaged with equal weights.

    Args:
        tile: side of a tile, with its overlap; None: the whole picture.
    """
    height, width = pixels.shape[2:]
    window, s = model.config.window, model.scale
    x = reflect(pixels, window - width % window, window - height % window, edge_twice=True)
    if tile is None:
        out = run_whole(model, x)
    else:
        tile = min(tile, *x.shape[2:])
        if tile % window or not 0 <= overlap < tile:
            raise ValueError(
                f"a tile of {tile} must be whole windows of {window} and larger than its overlap {overlap}"
            )
        out = torch.zeros(*x.shape[:2], x.shape[2] * s, x.shape[3] * s)
        times = torch.zeros_like(out)
        for top in _starts(x.shape[2], tile, tile - overlap):
            for left in _starts(x.shape[3], tile, tile - overlap):
                place = (..., slice(top * s, (top + tile) * s), slice(left * s, (left + tile) * s))
                out[place] += run_whole(model, x[..., top : top + tile, left : left + tile])
                times[place] += 1
        out /= times
    return out[..., : height * s, : width * s]


def _starts(length: int, tile: int, step: int) -> list[int]:
    return [*range(0, length - tile, step), length - tile]


def real_esrgan(model: RRDBNet | SRVGG, pixels: Tensor, tile: int = 0, tile_pad: int = 10, pre_pad: int = 0) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, C, H*s, W*s), as RealESRGANer: not clamped.

    Args:
        tile: side of a tile; 0: the whole picture.
        tile_pad: pixels that a tile sees around it.
        pre_pad: pixels mirrored at the right and below before anything else.
    """
    height, width = pixels.shape[2:]
    s, fold = model.scale, model.fold
    if pre_pad >= min(height, width):
        raise ValueError(f"a pre_pad of {pre_pad} needs a picture larger than that, got {width} x {height}")
    if tile % fold or tile_pad % fold:
        raise ValueError(f"tile {tile} and tile_pad {tile_pad} must be multiples of {fold} for this network")
    x = reflect(pixels, pre_pad, pre_pad)
    x = reflect(x, missing(x.shape[3], fold), missing(x.shape[2], fold))
    if not tile:
        return run_whole(model, x)[..., : height * s, : width * s]
    rows, columns = x.shape[2:]
    out = torch.empty(*x.shape[:2], rows * s, columns * s)
    for top in range(0, rows, tile):
        for left in range(0, columns, tile):
            bottom, right = min(top + tile, rows), min(left + tile, columns)
            above, before = max(top - tile_pad, 0), max(left - tile_pad, 0)
            seen = x[..., above : min(bottom + tile_pad, rows), before : min(right + tile_pad, columns)]
            found = run_whole(model, seen)[
                ..., (top - above) * s : (bottom - above) * s, (left - before) * s : (right - before) * s
            ]
            out[..., top * s : bottom * s, left * s : right * s] = found
    return out[..., : height * s, : width * s]


def real_esrgan_picture(
    model: RRDBNet | SRVGG,
    pixels: Pixels,
    *,
    outscale: float | None = None,
    alpha_by_network: bool = True,
    tile: int = 0,
    tile_pad: int = 10,
    pre_pad: int = 0,
) -> Pixels:
    """(H, W, C) uint8 or uint16 -> (H*outscale, W*outscale, C), as RealESRGANer's `enhance`."""
    planes = take_apart(pixels)

    def enlarged(plane: Tensor) -> Tensor:
        found = real_esrgan(model, for_network(plane, model.channels)[None], tile, tile_pad, pre_pad)[0]
        return from_network(found, plane)

    colour, alpha = enlarged(planes.colour), planes.alpha
    if alpha is not None:
        alpha = enlarged(alpha) if alpha_by_network else bilinear(alpha, colour.shape[1], colour.shape[2])
    whole = put_together(Planes(colour, alpha, planes.white))
    if outscale is None or outscale == model.scale:
        return whole
    size = int(pixels.shape[0] * outscale), int(pixels.shape[1] * outscale)
    return resize(whole, *size, antialias=False)
