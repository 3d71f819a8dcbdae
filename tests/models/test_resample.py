"""OpenCV's filters; their parity is in tests/parity/test_upscale.py."""

import math

import pytest
import torch

from dalle_flow.models.resample import bilinear, lanczos


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (20, 31)])
def test_one_colour_stays_as_it_is(size: tuple[int, int], antialias: bool) -> None:
    pixels = torch.full((3, 9, 12), 0.7)
    for found in (lanczos(pixels, *size, antialias=antialias), bilinear(pixels, *size)):
        torch.testing.assert_close(found, torch.full((3, *size), 0.7))


def test_the_same_size_is_the_same_picture() -> None:
    pixels = torch.rand(2, 5, 6)
    assert torch.equal(lanczos(pixels, 5, 6, antialias=False), pixels)


@pytest.mark.parametrize(("size", "length"), [(6, 15), (15, 6), (9, 9 * 4)])
def test_the_sum_written_out(size: int, length: int) -> None:
    row = torch.rand(size, dtype=torch.float64)
    wanted = []
    for i in range(length):
        middle = (i + 0.5) * size / length - 0.5
        total = value = 0.0
        for at in range(math.floor(middle) - 3, math.floor(middle) + 5):
            x = math.pi * (at - middle)
            weight = 1.0 if x == 0 else math.sin(x) * math.sin(x / 4) / (x * x / 4)
            total += weight
            value += weight * float(row[min(max(at, 0), size - 1)])
        wanted.append(value / total)
    found = lanczos(row.view(1, 1, -1), 1, length, antialias=False)[0, 0]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_antialias_counts_every_pixel_when_shrinking() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 8, -1).contiguous()
    fine = lanczos(stripes, 8, 21, antialias=True)[..., 3:-3]
    coarse = lanczos(stripes, 8, 21, antialias=False)[..., 3:-3]
    assert (fine - 0.5).abs().max() < 0.05
    assert (coarse - 0.5).abs().max() > 0.2


def test_antialias_changes_nothing_when_enlarging() -> None:
    pixels = torch.rand(1, 6, 7)
    assert torch.equal(lanczos(pixels, 13, 20, antialias=True), lanczos(pixels, 13, 20, antialias=False))
