"""Pictures of 16 bits a channel, which Pillow cannot hold in colour; and any picture as an array of its pixels.

Pillow reads such files as 8 bits. Its decoder is used here all the same, with its checks and its speed: it is asked for
the upper and for the lower byte of every value, one after the other.
"""

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import PictureError
from .images import PARAMETERS_CHUNK, RECIPE_CHUNK, decode, encode_png, parameters_text
from .types import Recipe

Pixels = NDArray[np.uint8] | NDArray[np.uint16]  # (H, W, C), C = 1 grey, 2 grey with alpha, 3 RGB, 4 RGBA

MODES_8_BIT = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
MODES_16_BIT = {2: "LA;16", 3: "RGB;16", 4: "RGBA;16"}  # of `DeepPicture`; plain grey is Pillow's own "I;16"
GREY_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
AS_RGB = ("RGB", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX")

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = {4: 2, 2: 3, 6: 4}  # PNG's colour type -> channels
ORIENTATION = 0x0112  # EXIF's tag: how the camera was held


@dataclass(frozen=True, eq=False)
class DeepPicture:
    """A picture of 16 bits a channel, in colour or with alpha; as much like Pillow's as ids and files need."""

    pixels: NDArray[np.uint16]  # (H, W, C), C from `MODES_16_BIT`
    info: dict[str, Any] = field(default_factory=dict)  # text chunks, as Pillow names them

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint16 or self.pixels.ndim != 3 or self.pixels.shape[2] not in MODES_16_BIT:
            raise PictureError(f"a deep picture is (H, W, 2 to 4) uint16, got {self.pixels.shape} {self.pixels.dtype}")

    @property
    def mode(self) -> str:
        return MODES_16_BIT[self.pixels.shape[2]]

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    def tobytes(self) -> bytes:
        """Row by row, the upper byte of each value first."""
        return self.pixels.astype(">u2").tobytes()

    def to_8_bits(self) -> Image.Image:
        """The nearest "LA", "RGB" or "RGBA" picture of Pillow's."""
        return Image.fromarray(((self.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8))


Picture = Image.Image | DeepPicture


def decode_deep(data: bytes) -> Picture:
    """As `images.decode`, but a PNG of 16 bits a channel in colour or with alpha keeps them.

    Raises:
        PictureError: as `images.decode`, and for 16-bit pictures that are to be turned by their EXIF.
    """
    image = decode(data)
    if not data.startswith(SIGNATURE) or data[24] != 16:
        return image
    channels = PNG_COLOURS.get(data[25], 1)
    if channels == 1 and "transparency" not in image.info:
        return image
    if image.getexif().get(ORIENTATION, 1) != 1:
        raise PictureError("the picture has 16 bits and is to be turned, as its EXIF says; save it upright")
    pixels = _all_bits(data, image, channels)  # (H, W, C)
    if "transparency" in image.info:  # one shade or colour that stands for transparent
        key = np.array(image.info["transparency"], np.uint16)
        alpha = np.where((pixels == key).all(2, keepdims=True), 0, 65535).astype(np.uint16)
        pixels = np.concatenate([pixels, alpha], 2)
    return DeepPicture(pixels, {str(key): value for key, value in image.info.items()})


def _all_bits(data: bytes, image: Image.Image, channels: int) -> NDArray[np.uint16]:
    """(H, W, C) of a PNG that was decoded to 8 bits without complaint."""
    if channels == 1:
        return np.asarray(image).astype(np.uint16)[..., None]
    if channels == 2:  # four bytes a pixel, so they come as if they were RGBA
        values = _bytes(data, "RGBA")
        upper, lower = values[..., 0::2], values[..., 1::2]
    else:
        name = "RGB" if channels == 3 else "RGBA"
        upper, lower = (_bytes(data, f"{name};16{order}") for order in "BL")
    return np.stack([upper, lower], -1).view(">u2")[..., 0].astype(np.uint16)


def _bytes(data: bytes, raw_mode: str) -> NDArray[np.uint8]:
    """(H, W, C): what Pillow's decoder gives when told that the values lie in the file in that way."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        return np.asarray(image)


def encode_deep(picture: Picture, recipe: Recipe | None = None) -> bytes:
    """As `images.encode_png`, for pictures of 16 bits a channel too."""
    if isinstance(picture, Image.Image):
        return encode_png(picture, recipe)
    channels = picture.pixels.shape[2]
    rows = np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, -1)
    filtered = np.full((picture.height, rows.shape[1] + 1), 2, np.uint8)  # 2: each byte less the one above it
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    colour_type = next(key for key, value in PNG_COLOURS.items() if value == channels)
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 16, colour_type, 0, 0, 0)
    chunks = [_chunk(b"IHDR", head)]
    if recipe is not None:
        size = Image.new("1", picture.size)  # the text wants width and height alone
        texts = {RECIPE_CHUNK: recipe.to_json(), PARAMETERS_CHUNK: parameters_text(recipe, size)}
        chunks += [_chunk(b"iTXt", name.encode() + b"\0" * 5 + text.encode()) for name, text in texts.items()]
    chunks += [_chunk(b"IDAT", zlib.compress(filtered.tobytes())), _chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def to_pixels(picture: Picture) -> Pixels:
    """Any picture -> (H, W, C): grey stays grey, alpha stays, 16 bits stay; palettes, CMYK and others become RGB.

    Raises:
        PictureError: pixels whose meaning is not known.
    """
    if isinstance(picture, DeepPicture):
        return picture.pixels
    mode, transparent = picture.mode, "transparency" in picture.info
    if mode in GREY_16_BIT and not transparent:
        return np.asarray(picture).astype(np.uint16)[..., None]
    if mode in ("L", "LA", "RGB", "RGBA") and not transparent:
        found = picture
    elif mode == "La":
        found = picture.convert("LA")
    elif mode in WITH_ALPHA or (transparent and mode in ("1", "L", "RGB", "P")):
        found = picture.convert("RGBA")
    elif mode == "1":
        found = picture.convert("L")
    elif mode in AS_RGB and not transparent:
        found = picture.convert("RGB")
    else:
        raise PictureError(f"a picture in mode {mode!r} is not read here; save it as RGB or RGBA", field="picture")
    pixels = np.asarray(found, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def from_pixels(pixels: Pixels) -> Picture:
    """(H, W, C) -> "L", "LA", "RGB" or "RGBA"; of 16 bits "I;16", or a `DeepPicture`."""
    channels = pixels.shape[2]
    if pixels.dtype != np.uint16:
        mode = MODES_8_BIT[channels]
        return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())
    deep = pixels.astype(np.uint16, copy=False)
    return Image.fromarray(deep[..., 0]) if channels == 1 else DeepPicture(deep)
