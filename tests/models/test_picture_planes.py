"""Grey, colour, alpha, 8 and 16 bits: taken apart and put together."""

from typing import Any

import numpy as np
import pytest
import torch

from dalle_flow.models.picture_planes import Planes, for_network, from_network, put_together, resize, take_apart


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_there_and_back(channels: int, dtype: Any) -> None:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top, (9, 7, channels), dtype=dtype, endpoint=True)
    pixels[0, 0], pixels[0, 1] = 0, top
    planes = take_apart(pixels)
    assert planes.white == top
    assert planes.colour.shape == (3 if channels > 2 else 1, 9, 7)
    assert (planes.alpha is not None) == (channels % 2 == 0)
    assert float(planes.colour.min()) == 0
    assert float(planes.colour.max()) == 1
    back = put_together(planes)
    assert back.dtype == dtype
    assert np.array_equal(back, pixels)


def test_every_one_of_65536_values_survives() -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    assert np.array_equal(put_together(take_apart(pixels)), pixels)


def test_values_are_clamped_and_rounded_half_to_even() -> None:
    colour = torch.tensor([-1.0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 7.0]).view(1, 1, 5)
    assert put_together(Planes(colour, None, 255)).flatten().tolist() == [0, 0, 2, 2, 255]


def test_grey_is_the_luma_of_what_a_network_gives() -> None:
    grey = torch.rand(1, 2, 3)
    assert for_network(grey, 3).shape == (3, 2, 3)
    torch.testing.assert_close(from_network(for_network(grey, 3), grey), grey)
    green = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    assert float(from_network(green, torch.zeros(1, 1, 1))) == pytest.approx(0.587)
    assert torch.equal(from_network(green, green), green)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resizing_stays_in_range(dtype: Any) -> None:
    pixels = np.zeros((8, 8, 1), dtype)
    pixels[:, 4:] = np.iinfo(dtype).max  # an edge, which the filter overshoots
    found = resize(pixels, 24, 24, antialias=True)
    assert found.dtype == dtype
    assert found.shape == (24, 24, 1)
    assert found.min() == 0
    assert found.max() == np.iinfo(dtype).max
