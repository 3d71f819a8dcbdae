"""Pictures of 16 bits: read, written, and every picture as an array."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle_flow.deep_picture import DeepPicture, decode_deep, encode_deep, from_pixels, to_pixels
from dalle_flow.errors import PictureError
from dalle_flow.images import recipe_of
from dalle_flow.types import Recipe, picture_id

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def pixels_of(channels: int, height: int = 7, width: int = 9) -> Any:
    pixels = np.random.default_rng(channels).integers(0, 65536, (height, width, channels), dtype=np.uint16)
    pixels[0, 0], pixels[0, 1] = 0, 65535
    return pixels


def png(pixels: Any, *, interlaced: bool = False, extra: bytes = b"", cut: int | None = None) -> bytes:
    """A PNG written by hand: 16 bits, no filter."""
    height, width, channels = pixels.shape
    parts = [pixels[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [pixels]
    rows = [b"\0" + row.astype(">u2").tobytes() for part in parts if part.size for row in part]
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, int(interlaced))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", zlib.compress(b"".join(rows))[:cut])
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_all_bits_are_read(channels: int, interlaced: bool) -> None:
    pixels = pixels_of(channels)
    picture = decode_deep(png(pixels, interlaced=interlaced))
    assert picture.mode == {1: "I;16", 2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}[channels]
    assert picture.size == (9, 7)
    assert np.array_equal(to_pixels(picture), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_written_and_read_again(channels: int) -> None:
    pixels = pixels_of(channels)
    data = encode_deep(from_pixels(pixels))
    assert np.array_equal(to_pixels(decode_deep(data)), pixels)
    with Image.open(io.BytesIO(data)) as image:  # other programs read it too
        image.load()
        assert image.size == (9, 7)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_recipe_is_kept(channels: int) -> None:
    recipe = Recipe("upscale", "ab" * 32, "a cat, 猫", 0, {"scale": 2})
    data = encode_deep(from_pixels(pixels_of(channels)), recipe)
    picture = decode_deep(data)
    assert recipe_of(picture) == recipe  # type: ignore[arg-type]
    assert "Size: 9x7" in picture.info["parameters"]
    assert b"iTXt" not in encode_deep(from_pixels(pixels_of(channels)))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_shade_that_stands_for_transparent(channels: int) -> None:
    pixels = pixels_of(channels)
    key = pixels[3, 4]
    data = key.astype(">u2").tobytes()
    chunk = struct.pack(">I", len(data)) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))
    found = to_pixels(decode_deep(png(pixels, extra=chunk)))
    assert np.array_equal(found[..., :-1], pixels)
    assert found[3, 4, -1] == 0
    assert int((found[..., -1] == 0).sum()) == 1


def test_pictures_of_8_bits_are_as_ever() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8))
    data = encode_deep(image)
    found = decode_deep(data)
    assert isinstance(found, Image.Image)
    assert np.array_equal(np.asarray(found), np.asarray(image))


@pytest.mark.parametrize("end", [0, 7, 20, 40, -60])
def test_damaged_files_are_refused(end: int) -> None:
    with pytest.raises(PictureError):
        decode_deep(png(pixels_of(3))[:end])
    with pytest.raises(PictureError, match="damaged"):
        decode_deep(png(pixels_of(3), cut=20))


def test_to_be_turned_is_refused() -> None:
    data = b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    with pytest.raises(PictureError, match="save it upright"):
        decode_deep(png(pixels_of(3), extra=chunk))


def test_ids_tell_pictures_apart_by_every_bit() -> None:
    pixels = pixels_of(3)
    other = pixels.copy()
    other[2, 2, 2] ^= 1
    ids = {picture_id(DeepPicture(p)) for p in (pixels, pixels.copy(), other)}  # type: ignore[arg-type]
    assert len(ids) == 2


def test_in_8_bits_for_those_who_must() -> None:
    pixels = np.array([0, 128, 129, 65535, 257 * 7 + 100], np.uint16).reshape(1, 5, 1).repeat(3, 2)
    assert np.asarray(DeepPicture(pixels).to_8_bits())[0, :, 0].tolist() == [0, 0, 1, 255, 7]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 5)])
def test_refuses_other_arrays(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match=r"\(H, W, 2 to 4\) uint16"):
        DeepPicture(np.zeros(shape, np.uint16))


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 2), ("La", 2), ("RGB", 3), ("P", 3), ("CMYK", 3), ("YCbCr", 3), ("RGBA", 4), ("PA", 4)],
)
def test_any_mode_as_an_array(mode: str, channels: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8))
    image = image.convert("LA").convert(mode) if mode in ("La", "PA") else image.convert(mode)
    pixels = to_pixels(image)
    assert pixels.shape == (5, 6, channels)
    assert pixels.dtype == np.uint8
    wanted = image.convert({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels])
    assert np.array_equal(pixels.squeeze(), np.asarray(wanted))
    assert np.array_equal(to_pixels(from_pixels(pixels)), pixels)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_becomes_alpha(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    image.info["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    assert to_pixels(image)[..., 3].max() == 0


@pytest.mark.parametrize("mode", ["F", "I"])
def test_refuses_pixels_without_a_known_range(mode: str) -> None:
    with pytest.raises(PictureError, match=f"a picture in mode '{mode}' is not read here"):
        to_pixels(Image.new(mode, (3, 2)))
