"""Pictures of any kind become "L", "RGB" or "RGBA", the right way up; what is unclear is refused."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dalle_flow.deep_picture import DeepPicture
from dalle_flow.errors import OptionError, PictureError
from dalle_flow.images import decode
from dalle_flow.types import as_any_depth, as_mask, as_picture, is_transparent, on_white, picture_id

SIZE = (5, 3)


def noise(*channels: int, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (SIZE[1], SIZE[0], *channels), dtype=dtype, endpoint=True)


RGB = Image.fromarray(noise(3))


def saved(image: Image.Image, form: str = "PNG", **options: object) -> Image.Image:
    out = io.BytesIO()
    image.save(out, form, **options)
    return decode(out.getvalue())


class TestAsPicture:
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
    def test_what_is_as_it_should_be_stays_so(self, mode: str) -> None:
        image = RGB.convert(mode)
        assert as_picture(image) is image
        assert as_picture(saved(image)).mode == mode
        assert picture_id(as_picture(saved(image))) == picture_id(image)

    @pytest.mark.parametrize(
        ("mode", "ours"), [("1", "L"), ("LA", "RGBA"), ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB")]
    )
    def test_other_modes(self, mode: str, ours: str) -> None:
        image = RGB.convert(mode)
        found = as_picture(image)
        assert (found.mode, found.size, found.info) == (ours, SIZE, {})
        assert found.tobytes() == image.convert(ours).tobytes()

    def test_a_palette_without_loss(self) -> None:
        assert as_picture(saved(RGB.quantize(256))).tobytes() == RGB.tobytes()

    def test_a_palette_with_a_transparent_colour(self) -> None:
        palette = RGB.quantize(256)
        found = as_picture(saved(palette, transparency=palette.getpixel((2, 1))))
        assert (found.mode, found.getpixel((2, 1))) == ("RGBA", (*RGB.getpixel((2, 1)), 0))  # type: ignore[misc]
        assert found.getpixel((0, 0)) == (*RGB.getpixel((0, 0)), 255)  # type: ignore[misc]

    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_one_colour_that_is_transparent(self, mode: str) -> None:
        image = RGB.convert(mode)
        found = as_picture(saved(image, transparency=image.getpixel((2, 1))))
        assert found.mode == "RGBA"
        assert found.getchannel("A").getpixel((2, 1)) == 0
        assert found.getchannel("A").getpixel((0, 0)) == 255

    def test_grey_of_16_bits_is_rounded(self) -> None:
        array = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
        found = as_picture(saved(Image.fromarray(array)))
        assert found.mode == "L"
        assert np.asarray(found).tolist() == [[0, 0, 1, 1, 128, 254, 255, 255]]

    def test_a_transparent_shade_of_16_bits_is_refused(self) -> None:
        image = saved(Image.fromarray(noise(dtype=np.uint16)), transparency=700)
        with pytest.raises(PictureError, match="16-bit grey with a transparent shade"):
            as_picture(image)

    @pytest.mark.parametrize("mode", ["F", "I", "LAB"])
    def test_values_of_no_known_meaning_are_refused(self, mode: str) -> None:
        with pytest.raises(PictureError, match=f"in mode '{mode}'"):
            as_picture(Image.new(mode, SIZE))

    @pytest.mark.parametrize("wrong", [None, "x.png", b"x", noise(3)])
    def test_what_is_no_picture(self, wrong: object) -> None:
        with pytest.raises(OptionError, match="picture must be a PIL picture"):
            as_picture(wrong)  # type: ignore[arg-type]


class TestAnyDepth:
    @pytest.mark.parametrize("channels", [2, 3, 4])
    def test_colour_of_16_bits_keeps_them_where_it_may(self, channels: int) -> None:
        deep = DeepPicture(noise(channels, dtype=np.uint16))
        assert as_any_depth(deep) is deep
        found = as_picture(deep)
        assert (found.mode, found.size) == ("RGB" if channels == 3 else "RGBA", SIZE)
        assert found.tobytes() == deep.to_8_bits().convert(found.mode).tobytes()

    def test_grey_of_16_bits_keeps_them(self) -> None:
        array = noise(dtype=np.uint16)
        found = as_any_depth(saved(Image.fromarray(array)))
        assert isinstance(found, Image.Image)
        assert (found.mode, found.info) == ("I;16", {})
        assert np.array_equal(np.asarray(found), array)
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = as_any_depth(saved(Image.fromarray(array), exif=exif))
        assert np.array_equal(np.asarray(turned), np.rot90(array, -1))

    def test_all_else_is_as_ever(self) -> None:
        assert as_any_depth(RGB) is RGB
        assert as_any_depth(RGB.convert("CMYK")).mode == "RGB"
        for wrong in (None, "x.png", noise(3)):
            with pytest.raises(OptionError, match="must be a PIL picture"):
                as_any_depth(wrong)  # type: ignore[arg-type]


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
    def test_is_applied_once(self, orientation: int, form: str) -> None:
        """A corner that stands out; where it lies in the file, and where it belongs, as EXIF defines it."""
        upright = Image.new("RGB", (16, 8), "black")
        upright.paste("white", (0, 0, 8, 4))
        stored = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = upright if stored is None else upright.transpose(Image.Transpose(stored))
        found = as_picture(saved(image, form, exif=exif))
        assert (found.size, found.info) == ((16, 8), {})
        assert [found.convert("L").getpixel(at) > 127 for at in ((3, 1), (12, 1), (3, 6), (12, 6))] == [True] + 3 * [
            False
        ]
        assert as_picture(found) is found

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_numbers_without_a_meaning_turn_nothing(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert as_picture(saved(RGB, exif=exif)).tobytes() == RGB.tobytes()

    def test_damaged_metadata_is_a_picture_error_and_no_other(self) -> None:
        rng = np.random.default_rng(0)
        exif = Image.Exif()
        exif[0x0112] = 6
        whole = exif.tobytes()
        read = 0
        for _ in range(300):
            data = bytearray(whole)
            for at in rng.integers(6, len(data), 2):
                data[at] = rng.integers(256)
            image = RGB.copy()
            image.info["exif"] = bytes(data)
            with contextlib.suppress(PictureError):
                read += as_picture(image).mode == "RGB"
        assert read > 0


class TestAsMask:
    @pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
    def test_any_mode(self, mode: str) -> None:
        grey = Image.new("L", SIZE, 0)
        grey.putpixel((2, 1), 255)
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
        mask = as_mask(image)
        assert mask.mode == "L"
        assert mask.tobytes() == grey.tobytes()

    def test_transparency_is_unclear(self) -> None:
        with pytest.raises(PictureError, match="white is made new") as caught:
            as_mask(Image.new("RGBA", SIZE))
        assert caught.value.field == "mask"


class TestOnWhite:
    def test_transparent_places_become_white(self) -> None:
        image = Image.new("RGBA", SIZE, (10, 20, 30, 255))
        image.putpixel((1, 1), (10, 20, 30, 0))
        image.putpixel((2, 1), (0, 0, 0, 51))
        assert is_transparent(image)
        found = on_white(image)
        assert found.mode == "RGB"
        assert [found.getpixel((x, 1)) for x in range(3)] == [(10, 20, 30), (255, 255, 255), (204, 204, 204)]

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
    def test_opaque_pictures_keep_their_pixels(self, mode: str) -> None:
        image = RGB.convert(mode)
        assert not is_transparent(image)
        assert on_white(image).tobytes() == image.convert("RGB").tobytes()


def test_16_bit_colour_with_a_transparent_shade_is_refused() -> None:
    """Pillow keeps the colour as it stands in the file, and the pixels with 8 bits."""
    image = RGB.copy()
    image.info["transparency"] = (700, 3, 9)
    with pytest.raises(PictureError, match="16-bit colour with a transparent shade"):
        as_picture(image)
    chunks = PngImagePlugin.PngInfo()
    assert as_picture(saved(RGB, pnginfo=chunks)).mode == "RGB"
