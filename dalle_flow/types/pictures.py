"""What a picture is to a request: its id, and the few forms in which executors are given one.

Forms: "L", "RGB" or "RGBA", 8 bits a channel, the right way up, without metadata; and to be upscaled, 16 bits too.
Pillow is imported by whoever has a picture to give; here it is only named.
"""

import hashlib
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import OptionError, PictureError

if TYPE_CHECKING:
    from PIL import Image

MODES = ("L", "RGB", "RGBA")
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
AS_RGB = ("P", "CMYK", "YCbCr", "HSV")
ORIENTATION = 0x0112  # EXIF's tag: how the camera was held
HALF = 128  # of 255: a mask is white from here on


@runtime_checkable
class Deep(Protocol):
    """A picture of 16 bits a channel, which Pillow cannot hold: `deep_picture.DeepPicture`."""

    @property
    def info(self) -> dict[str, Any]: ...
    @property
    def mode(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    def tobytes(self) -> bytes: ...
    def to_8_bits(self) -> "Image.Image": ...


def picture_id(image: "Image.Image | Deep") -> str:
    """sha256 over mode, size and pixels: the same picture has the same id whatever file it came in."""
    head = f"{image.mode} {image.width} {image.height}\n".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def as_any_depth(image: "Image.Image | Deep", field: str = "picture") -> "Image.Image | Deep":
    """As `as_picture`, but what has 16 bits a channel keeps them: as "I;16" or `Deep`."""
    if isinstance(image, Deep):
        return image
    if getattr(image, "mode", None) != "I;16" or "transparency" in image.info:
        return as_picture(image, field)
    turn = _turn(image)
    found = image.copy() if turn is None else image.transpose(turn)
    found.info = {}
    return found


def as_picture(image: "Image.Image | Deep", field: str = "picture") -> "Image.Image":
    """Any picture -> "L", "RGB", or "RGBA" where it has transparency; turned as its EXIF says, without metadata.

    16 bits are rounded to 8. A picture of this form is given back as it is.

    Raises:
        OptionError: not a PIL picture, or one without pixels. PictureError: pixels whose meaning is not known.
    """
    from PIL import Image

    if isinstance(image, Deep):
        image = image.to_8_bits()
    if not isinstance(image, Image.Image):
        raise OptionError(f"{field} must be a PIL picture, got {image!r:.60}", field=field)
    if not (image.width and image.height):
        raise OptionError(f"the {field} is {image.width} x {image.height}: it has no pixels", field=field)
    turn = _turn(image)
    if turn is None and image.mode in MODES and not image.info:
        return image
    found = _in_our_mode(image, field)
    found = found.copy() if found is image else found
    found = found if turn is None else found.transpose(turn)
    found.info = {}  # also so that nobody turns it once more
    return found


def as_mask(image: "Image.Image | Deep") -> "Image.Image":
    """Any picture in black and white -> "L".

    Raises:
        PictureError: it is transparent in places, so that it is unclear what it says. OptionError: as `as_picture`.
    """
    mask = as_picture(image, "mask")
    if is_transparent(mask):
        raise PictureError(
            "the mask is transparent in places; give black and white: white is made new, black is kept", field="mask"
        )
    return mask if mask.mode == "L" else mask.convert("L")


def is_transparent(image: "Image.Image") -> bool:
    """Whether any pixel of an "L", "RGB" or "RGBA" picture is."""
    return image.mode == "RGBA" and lowest(image.getchannel("A")) < 255


def on_white(image: "Image.Image") -> "Image.Image":
    """An "L", "RGB" or "RGBA" picture -> "RGB", white where it is transparent."""
    if not is_transparent(image):
        return image if image.mode == "RGB" else image.convert("RGB")
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def transparent_part(image: "Image.Image") -> "Image.Image":
    """The mask ("L") of an "RGBA" picture's transparency: white where nothing is to be seen."""
    return image.getchannel("A").point([255 - value for value in range(256)])


def is_black(mask: "Image.Image") -> bool:
    """Whether no pixel of an "L" mask is white, in which grey counts as the nearer of the two."""
    return highest(mask) < HALF


def white_share(mask: "Image.Image") -> float:
    """How much of an "L" mask is white, 0 to 1, in which grey counts as the nearer of the two."""
    return sum(mask.histogram()[HALF:]) / (mask.width * mask.height)


def lowest(channel: "Image.Image") -> int:
    return int(channel.getextrema()[0])  # type: ignore[arg-type]


def highest(channel: "Image.Image") -> int:
    return int(channel.getextrema()[1])  # type: ignore[arg-type]


def _turn(image: "Image.Image") -> "Image.Transpose | None":
    """What brings the picture upright, by its EXIF; None when it is."""
    from PIL.Image import Transpose

    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's reader raises whatever damaged metadata makes it stumble over
        raise PictureError("the picture's EXIF metadata is damaged; save it without") from None
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(orientation)


def _in_our_mode(image: "Image.Image", field: str) -> "Image.Image":
    if image.mode in SIXTEEN_BITS:
        if "transparency" in image.info:
            raise _unclear(field, "16-bit grey with a transparent shade")
        return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # Pillow has cut the colours to 8 bits, and not this one
        raise _unclear(field, "16-bit colour with a transparent shade")
    if image.mode in MODES and key is None:
        return image
    if image.mode == "1" and key is None:
        return image.convert("L")
    if image.mode in ("LA", "PA") or key is not None:
        return image.convert("RGBA")
    if image.mode in AS_RGB:
        return image.convert("RGB")
    raise _unclear(field, f"in mode {image.mode!r}")


def _unclear(field: str, what: str) -> PictureError:
    return PictureError(
        f"the {field} is {what}, which is not read here; save it as RGB or RGBA with 8 bits", field=field
    )
