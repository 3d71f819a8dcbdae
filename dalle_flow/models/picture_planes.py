"""Pictures of any kind as planes of float32 that networks take, and back: grey or colour, with or without alpha.

Source: xinntao/Real-ESRGAN `realesrgan/utils.py` for how grey, alpha and 16 bits are treated.
Parity: tests/parity/test_upscale.py; pictures within 1 of 255.

Shapes: C channels, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .resample import lanczos

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: what a colour weighs in grey

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Planes:
    """A picture taken apart; floats are in [0, 1]."""

    colour: Tensor  # (C, H, W) float32; one channel: grey
    alpha: Tensor | None  # (1, H, W) float32
    white: int  # 255 or 65535


def take_apart(pixels: Pixels) -> Planes:
    """(H, W, C) uint8 or uint16, of C = 1 grey, 2 grey with alpha, 3 RGB, 4 RGBA -> planes."""
    white = 65535 if pixels.dtype == np.uint16 else 255
    planes = torch.from_numpy(pixels.astype(np.float32) / np.float32(white)).permute(2, 0, 1)  # (C, H, W)
    colours = planes.shape[0] - (planes.shape[0] % 2 == 0)
    return Planes(planes[:colours], planes[colours:] if colours < len(planes) else None, white)


def put_together(planes: Planes) -> Pixels:
    """Planes -> (H, W, C) of as many bits as `white` says: clamped, rounded half to even."""
    channels = [*planes.colour, *([] if planes.alpha is None else planes.alpha)]
    pixels: Pixels = np.empty((*channels[0].shape, len(channels)), np.uint16 if planes.white > 255 else np.uint8)
    for i, channel in enumerate(channels):  # one by one: a large picture in float32 takes much memory
        pixels[..., i] = channel.clamp(0, 1).mul_(planes.white).round_().numpy()
    return pixels


def for_network(plane: Tensor, channels: int) -> Tensor:
    """(C, H, W) -> (`channels`, H, W): grey in every channel."""
    return plane if plane.shape[0] == channels else plane.expand(channels, -1, -1)


def from_network(found: Tensor, like: Tensor) -> Tensor:
    """What a network gave for `like`, in as many channels: grey is the luma of colours. Clamped to [0, 1]."""
    found = found.clamp(0, 1)
    if found.shape[0] == like.shape[0]:
        return found
    return (found * found.new_tensor(LUMA).view(3, 1, 1)).sum(0, keepdim=True)


def resize(pixels: Pixels, height: int, width: int, *, antialias: bool) -> Pixels:
    """(H, W, C) uint8 or uint16 -> (height, width, C) by Lanczos' filter, rounded and clamped."""
    white = 65535 if pixels.dtype == np.uint16 else 255
    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
    found = lanczos(planes, height, width, antialias=antialias).round_().clamp_(0, white)
    resized = found.permute(1, 2, 0).numpy()
    return resized.astype(np.uint16) if white > 255 else resized.astype(np.uint8)
