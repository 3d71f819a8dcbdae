"""Thresholds: what each does on pictures whose answer is plain, and at sizes and values at the edge."""

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.models.masks import as_large_as, gaussian_weights, grey, threshold

ADAPTIVE = ("adaptive_mean", "adaptive_gaussian")


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (31, 17), dtype=np.uint8)


def test_binary_is_white_above_the_strength() -> None:
    picture = np.array([[0, 84, 85, 86, 255]], np.uint8)
    assert threshold(picture, "binary").tolist() == [[0, 0, 0, 255, 255]]
    assert threshold(picture, "binary", strength=85.9).tolist() == [[0, 0, 0, 255, 255]]
    assert threshold(picture, "binary", strength=0).tolist() == [[0, 255, 255, 255, 255]]
    assert threshold(picture, "binary", strength=255).max() == 0


def test_none_changes_nothing(noise: np.ndarray) -> None:
    assert np.array_equal(threshold(noise, "none"), noise)


@pytest.mark.parametrize("block_size", [3, 5, 7, 9, 11, 21, 101])
@pytest.mark.parametrize("c", [-3.0, 0.0, 0.5, 2.0])
def test_the_mean_of_the_window_by_the_definition(noise: np.ndarray, block_size: int, c: float) -> None:
    reach = block_size // 2
    padded = np.pad(noise, reach, mode="edge").astype(int)
    weights = {"adaptive_mean": np.full(block_size, 1 / block_size), "adaptive_gaussian": gaussian_weights(block_size)}
    for kind in ADAPTIVE:
        found = threshold(noise, kind, block_size=block_size, c=c)
        for y, x in ((0, 0), (30, 16), (15, 8), (3, 16), (29, 1)):
            window = padded[y : y + block_size, x : x + block_size]
            mean = np.rint(np.float64(weights[kind] @ window @ weights[kind]) + 1e-9)
            assert (found[y, x] == 255) == (noise[y, x] - mean > -np.ceil(c)), (kind, y, x)


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_an_even_picture_is_white_for_a_positive_c_and_black_for_none(kind: str, value: int) -> None:
    """As OpenCV's: an adaptive threshold finds what stands out, and nothing does."""
    picture = np.full((13, 20), value, np.uint8)
    assert threshold(picture, kind, c=2.0).min() == 255
    assert threshold(picture, kind, c=0.0).max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (40, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["none", "binary", *ADAPTIVE])
def test_any_size(shape: tuple[int, int], kind: str) -> None:
    picture = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    found = threshold(picture, kind, block_size=21)
    assert found.shape == shape
    assert found.dtype == np.uint8
    assert kind == "none" or set(np.unique(found)) <= {0, 255}


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("block_size", [-1, 0, 1, 2, 10])
def test_even_and_small_windows_are_refused(noise: np.ndarray, kind: str, block_size: int) -> None:
    with pytest.raises(ValueError, match=f"odd and at least 3, got {block_size}"):
        threshold(noise, kind, block_size=block_size)


def test_unknown_kinds_are_refused(noise: np.ndarray) -> None:
    with pytest.raises(ValueError, match="got 'otsu'"):
        threshold(noise, "otsu")  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [3, 5, 7, 9, 11, 31, 511])
def test_gaussian_weights_are_a_bell(n: int) -> None:
    weights = gaussian_weights(n)
    assert weights.shape == (n,)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(weights, weights[::-1])
    assert (np.diff(weights[: n // 2 + 1]) > 0).all()


def test_grey_is_truncated_and_relative_where_asked() -> None:
    logits = torch.tensor([[-20.0, 0.0], [1.0, -1.0]])
    assert grey(logits, relative=False).tolist() == [[0, 127], [186, 68]]
    assert grey(logits, relative=True).tolist() == [[0, 174], [255, 93]]


def test_relative_always_finds_something() -> None:
    logits = torch.full((3, 4), -9.0)
    logits[1, 2] = -8
    assert grey(logits, relative=False).max() == 0
    assert grey(logits, relative=True).max() == 255
    assert grey(torch.full((3, 4), -200.0), relative=True).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (100, 70), (1, 40)])
def test_as_large_as_takes_the_nearest_pixel(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(2).integers(0, 256, (14, 14), dtype=np.uint8)
    found = as_large_as(mask, *size)
    assert (found.mode, found.size) == ("L", size)
    width, height = size
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 2)):
        assert found.getpixel((x, y)) == mask[int((y + 0.5) * 14 / height), int((x + 0.5) * 14 / width)]
    assert isinstance(found, Image.Image)
