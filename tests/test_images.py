"""Pictures: limits before decoding, recipes through PNG, files whole or not at all, contact sheets."""

import contextlib
import errno
import io
import os
import random
import stat
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from dalle_flow.errors import PictureError, ReplayError, StorageError
from dalle_flow.images import (
    MAX_BYTES,
    MAX_PIXELS,
    PARAMETERS_CHUNK,
    RECIPE_CHUNK,
    contact_sheet,
    cut_out,
    decode,
    encode_animation,
    encode_png,
    parameters_text,
    picture_id,
    read_picture,
    recipe_of,
    to_image,
    write_file,
)
from dalle_flow.types import Candidate, Recipe, Score

RECIPE = Recipe("dalle", "0123456789abcdef", "a cat", 7, {"top_k": 64, "guidance_scale": 7.5, "negative": None})
HOSTILE = [
    'quotes "and" \\ and } , {',
    "two\nlines\r\nSteps: 9, Seed: 1",
    "nul \x00 and escape \x1b[31m",
    "\u202eright to left\u202c and \u2066isolate\u2069",
    "e\u0301 is not é; 猫; 👩‍👩‍👧; \u200b",
    "x" * 2000,
]


def image_of(width: int = 17, height: int = 5, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return noise.convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and holds hardly any pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


class TestDecode:
    @pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("size", [(1, 1), (17, 5)])
    def test_reads(self, form: str, size: tuple[int, int]) -> None:
        assert decode(encoded(image_of(*size), form)).size == size

    @pytest.mark.parametrize(
        ("form", "mode"),
        [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "I;16"), ("PNG", "1"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "LA")],
    )
    def test_reads_other_modes(self, form: str, mode: str) -> None:
        if mode == "I;16":
            image = Image.fromarray(np.arange(85, dtype=np.uint16).reshape(5, 17) * 700)
        else:
            image = image_of(mode=mode)
        found = decode(encoded(image, form))
        assert (found.mode, found.size) == (mode, (17, 5))
        assert found.convert("RGB").size == (17, 5)

    @pytest.mark.parametrize("size", [(30_000, 30_000), (2**31 - 1, 1), (8193, 8192)])
    def test_refuses_too_many_pixels_by_the_header_alone(self, size: tuple[int, int]) -> None:
        with pytest.raises(PictureError, match=f"at most {MAX_PIXELS} pixels"):
            decode(png_header(*size))

    def test_the_largest_size_is_only_damaged(self) -> None:
        with pytest.raises(PictureError, match="damaged"):
            decode(png_header(8192, 8192))

    def test_refuses_too_many_bytes(self) -> None:
        with pytest.raises(PictureError, match=f"at most {MAX_BYTES}"):
            decode(bytes(MAX_BYTES + 1))

    @pytest.mark.parametrize("form", ["PNG", "WEBP"])
    def test_refuses_animations(self, form: str) -> None:
        frames = [image_of(), image_of().transpose(Image.Transpose.ROTATE_180)]
        with pytest.raises(PictureError, match="animation of 2 frames"):
            decode(encoded(frames[0], form, save_all=True, append_images=frames[1:]))

    def test_a_cameras_file_with_a_second_picture_gives_the_first(self) -> None:
        first, second = image_of(), image_of().transpose(Image.Transpose.ROTATE_180)
        data = encoded(first, "MPO", save_all=True, append_images=[second], quality=100, subsampling=0)
        found = decode(data)
        assert np.abs(np.asarray(found, int) - np.asarray(first, int)).mean() < 3

    @pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
    def test_refuses_other_kinds(self, form: str) -> None:
        with pytest.raises(PictureError, match="PNG, JPEG, WEBP"):
            decode(encoded(image_of(32, 32), form))

    @pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"hello", b"<svg/>", b"\xff\xd8\xff"])
    def test_refuses_what_is_no_picture(self, data: bytes) -> None:
        with pytest.raises(PictureError):
            decode(data)

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
    def test_refuses_every_truncation(self, form: str) -> None:
        whole = encoded(image_of(), form)
        end = 24 if form == "PNG" else 2  # missing checksums or end marks take no pixel away
        for length in range(0, len(whole) - end, 7):
            with pytest.raises(PictureError):
                decode(whole[:length])

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
    def test_damage_is_a_picture_error_and_no_other(self, form: str) -> None:
        whole, rng = encode_png(image_of(), RECIPE) if form == "PNG" else encoded(image_of(), form), random.Random(0)
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            with contextlib.suppress(PictureError):
                decode(bytes(data))

    def test_a_text_bomb_is_refused(self) -> None:
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("bomb", "0" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
        with pytest.raises(PictureError):
            decode(encoded(image_of(), "PNG", pnginfo=chunks))


class TestReadPicture:
    def test_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "x.png").write_bytes(b"hello")
        with pytest.raises(PictureError, match=r"x\.png: not a picture"):
            read_picture(tmp_path / "x.png")

    def test_missing_or_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PictureError, match=r"y\.png: No such file"):
            read_picture(tmp_path / "y.png")
        with pytest.raises(PictureError, match="Is a directory"):
            read_picture(tmp_path)

    def test_too_large_a_file_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "z.png").open("wb") as file:
            file.truncate(MAX_BYTES + 1)
        with pytest.raises(PictureError, match="more than"):
            read_picture(tmp_path / "z.png")


class TestRecipeInPng:
    @pytest.mark.parametrize("prompt", HOSTILE)
    def test_comes_back_as_it_went(self, prompt: str) -> None:
        recipe = replace(RECIPE, prompt=prompt)
        image = decode(encode_png(image_of(), recipe))
        assert recipe_of(image) == recipe
        assert picture_id(image) == picture_id(image_of())

    @pytest.mark.parametrize("prompt", HOSTILE)
    def test_parameters_are_one_line_of_prompt_and_one_of_settings(self, prompt: str) -> None:
        image = decode(encode_png(image_of(), replace(RECIPE, prompt=prompt)))
        lines = image.info[PARAMETERS_CHUNK].split("\n")
        assert len(lines) == 2
        assert lines[0] == " ".join(prompt.split())
        assert lines[1].endswith("Seed: 7, Size: 17x5, Model: dalle, Model hash: 0123456789")

    def test_parameters_use_the_names_that_others_read(self) -> None:
        text = parameters_text(replace(RECIPE, options={"num_inference_steps": 30, "guidance_scale": 7.5}), image_of())
        assert text == "a cat\nSteps: 30, CFG scale: 7.5, Seed: 7, Size: 17x5, Model: dalle, Model hash: 0123456789"

    def test_without_a_recipe_there_is_no_metadata(self) -> None:
        image = image_of()
        image.info["comment"] = "private"
        image.info["exif"] = b"Exif\0\0private"
        data = encode_png(image)
        assert b"private" not in data
        assert decode(data).info == {}
        with pytest.raises(ReplayError, match="no recipe"):
            recipe_of(decode(data))

    def test_a_recipe_that_is_none(self) -> None:
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(RECIPE_CHUNK, '{"executor": "rm -rf"}')
        with pytest.raises(ReplayError, match="exactly the fields"):
            recipe_of(decode(encoded(image_of(), "PNG", pnginfo=chunks)))

    def test_survives_another_program_that_keeps_text(self) -> None:
        image = decode(encode_png(image_of(), RECIPE))
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(RECIPE_CHUNK, image.info[RECIPE_CHUNK])
        assert recipe_of(decode(encoded(image, "PNG", pnginfo=chunks, optimize=True))) == RECIPE


class TestPictureId:
    def test_is_of_the_pixels_not_of_the_file(self) -> None:
        image = image_of()
        again = decode(encoded(image, "PNG", compress_level=0))
        assert picture_id(again) == picture_id(decode(encode_png(image, RECIPE))) == picture_id(image)

    def test_tells_pixels_sizes_and_modes_apart(self) -> None:
        image = image_of()
        other = image.copy()
        other.putpixel((3, 2), (0, 0, 0))
        turned = Image.frombytes("RGB", (5, 17), image.tobytes())
        ids = {picture_id(i) for i in (image, other, turned, image.convert("RGBA"))}
        assert len(ids) == 4


def test_to_image_truncates_and_clamps() -> None:
    pixels = torch.tensor([-0.5, 0.0, 0.9999 / 255, 1 / 255, 0.9999, 1.5]).view(1, 2, 3).expand(3, 2, 3)
    image = to_image(pixels)
    assert image.size == (3, 2)
    assert [p[0] for p in np.asarray(image).reshape(-1, 3).tolist()] == [0, 0, 0, 1, 254, 255]


class TestWriteFile:
    def test_writes_and_replaces(self, tmp_path: Path) -> None:
        target = tmp_path / "a" / "b" / "x.png"
        write_file(target, b"one")
        write_file(target, b"two")
        assert target.read_bytes() == b"two"
        assert stat.S_IMODE(target.stat().st_mode) == 0o644
        assert [p.name for p in target.parent.iterdir()] == ["x.png"]

    def test_a_full_disk_leaves_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "x.png"
        write_file(target, b"one")

        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=r"x\.png: No space left"):
            write_file(target, b"two")
        assert target.read_bytes() == b"one"
        assert [p.name for p in tmp_path.iterdir()] == ["x.png"]

    def test_an_interrupt_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*args: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_file(tmp_path / "x.png", b"two")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match="cannot write"):
            write_file(tmp_path / "file" / "x.png", b"one")


class TestAnimation:
    @staticmethod
    def frames(data: bytes) -> list[tuple[int, tuple[int, ...]]]:
        """Milliseconds and middle pixel of each frame."""
        found = []
        with Image.open(io.BytesIO(data)) as animation:
            for frame in range(getattr(animation, "n_frames", 1)):
                animation.seek(frame)
                animation.load()
                found.append((animation.info.get("duration", 0), animation.convert("RGB").getpixel((8, 2))))
        return found  # type: ignore[return-value]

    @pytest.mark.parametrize("form", ["WEBP", "GIF"])
    @pytest.mark.parametrize(
        ("number", "back", "order"),
        [(1, True, [0]), (2, True, [0, 1]), (4, True, [0, 1, 2, 3, 2, 1]), (5, False, [0, 1, 2, 3, 4])],
    )
    def test_every_picture_in_its_place(self, form: str, number: int, back: bool, order: list[int]) -> None:
        images = [Image.new("RGB", (17, 5), (50 * i, 255 - 50 * i, 9)) for i in range(number)]
        frames = self.frames(encode_animation(images, form, ms_per_frame=70, back=back))
        assert len(frames) == len(order)
        for (ms, colour), i in zip(frames, order, strict=True):
            assert ms == 70 or number == 1
            assert max(abs(a - b) for a, b in zip(colour, (50 * i, 255 - 50 * i, 9), strict=True)) < 9

    @pytest.mark.parametrize("form", ["WEBP", "GIF"])
    def test_repeats_for_ever(self, form: str) -> None:
        data = encode_animation([image_of(), image_of().transpose(Image.Transpose.ROTATE_180)], form)
        with Image.open(io.BytesIO(data)) as animation:
            assert animation.info["loop"] == 0

    def test_other_modes(self) -> None:
        assert len(self.frames(encode_animation([image_of(mode="L"), image_of(mode="RGBA").rotate(180)]))) == 2

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="at least one picture"):
            encode_animation([])
        with pytest.raises(ValueError, match="one of WEBP, GIF, got 'PNG'"):
            encode_animation([image_of()], "PNG")


class TestContactSheet:
    @pytest.mark.parametrize(("number", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (6, 3, 2), (9, 3, 3), (40, 7, 6)])
    def test_size(self, number: int, columns: int, rows: int) -> None:
        sheet = contact_sheet(candidates_of(number, (64, 64)))
        assert sheet.size == (12 + columns * (192 + 12), 12 + rows * (192 + 30 + 12))

    def test_every_picture_is_there_in_order(self) -> None:
        colours = [(40 * i, 255 - 40 * i, 9) for i in range(6)]
        candidates = [Candidate(str(i), Image.new("RGB", (64, 64), c), RECIPE) for i, c in enumerate(colours)]
        sheet = contact_sheet(candidates)
        for i, colour in enumerate(colours):
            at = 12 + i % 3 * 204 + 96, 12 + i // 3 * 234 + 96
            assert sheet.getpixel(at) == colour

    def test_every_picture_has_a_label(self) -> None:
        plain = contact_sheet(candidates_of(5, (64, 64)))
        for i in range(5):
            x, y = 12 + i % 3 * 204, 12 + i // 3 * 234 + 192
            label = plain.crop((x, y, x + 192, y + 30))
            assert len(label.getcolors(9999) or ()) > 3, f"nothing is written under picture {i}"

    def test_sizes_and_modes_may_differ(self) -> None:
        images = [image_of(17, 5), image_of(5, 17, "L"), image_of(1, 1, "RGBA"), image_of(300, 200, "CMYK")]
        sheet = contact_sheet([Candidate(str(i), image, RECIPE) for i, image in enumerate(images)])
        assert sheet.mode == "RGB"
        assert sheet.width == 12 + 2 * (300 + 12)

    def test_nothing_to_show(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            contact_sheet([])


def candidates_of(number: int, size: tuple[int, int]) -> list[Candidate]:
    return [Candidate(str(i), image_of(*size), RECIPE, Score(0.3 - i / 100, 1 / number)) for i in range(number)]


def test_a_png_with_a_changed_chunk_is_called_damaged() -> None:
    data = bytearray(encode_png(Image.new("RGB", (4, 4)), None))
    data[20] ^= 1  # in the header chunk, whose checksum no longer fits
    with pytest.raises(PictureError, match="damaged"):
        decode(bytes(data))


class TestCutOut:
    """A mask and a picture make a picture that is transparent where the mask is black."""

    @staticmethod
    def picture(mode: str = "RGB") -> Image.Image:
        return Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)).convert(mode)

    @pytest.fixture
    def mask(self) -> Image.Image:
        made = Image.new("L", (5, 7), 0)
        made.paste(255, (0, 0, 2, 3))
        made.putpixel((4, 6), 100)
        return made

    @pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
    def test_what_is_white_stays(self, mask: Image.Image, mode: str) -> None:
        picture = self.picture(mode)
        before = picture.tobytes()
        found = cut_out(picture, mask)
        assert found.mode == "RGBA"
        assert found.getchannel("A").tobytes() == mask.tobytes()
        assert np.array_equal(np.asarray(found)[..., :3], np.asarray(picture.convert("RGB")))
        assert picture.tobytes() == before

    def test_what_was_transparent_stays_so(self, mask: Image.Image) -> None:
        picture = self.picture("RGBA")
        picture.putalpha(Image.new("L", picture.size, 128))
        alpha = np.asarray(cut_out(picture, mask).getchannel("A"))
        assert (alpha[0, 0], alpha[6, 4], alpha[5, 0]) == (128, 50, 0)

    @pytest.mark.parametrize("mode", ["1", "L", "RGB"])
    def test_masks_of_other_modes(self, mode: str) -> None:
        half = Image.new("L", (5, 7), 0)
        half.paste(255, (0, 0, 5, 3))
        assert cut_out(self.picture(), half.convert(mode)).getchannel("A").tobytes() == half.tobytes()

    def test_a_mask_of_another_size_is_refused(self, mask: Image.Image) -> None:
        with pytest.raises(PictureError, match="7 x 5 and 5 x 7; give a mask as large") as caught:
            cut_out(self.picture(), mask.resize((7, 5)))
        assert caught.value.field == "mask"
