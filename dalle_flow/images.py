"""The only place where bytes become pictures and pictures become bytes, with the size limits and the recipe in PNGs."""

import io
import math
import os
import struct
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image, ImageChops, ImageDraw, ImageFont, PngImagePlugin, UnidentifiedImageError

from .errors import PictureError, ReplayError, StorageError
from .types import SEEDLESS, Candidate, Deep, Recipe, as_picture, on_white
from .types import picture_id as picture_id

if TYPE_CHECKING:
    import torch

P = TypeVar("P")

RECIPE_CHUNK = "dalle_flow"  # our own text chunk: the recipe as canonical JSON
PARAMETERS_CHUNK = "parameters"  # the text that Stable Diffusion web UI and its many readers know
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 2**26  # 8192 x 8192
FORMATS = ("PNG", "JPEG", "WEBP")
ANIMATIONS: dict[str, dict[str, int]] = {"WEBP": {"quality": 90}, "GIF": {}}
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")  # how files of these formats begin


def to_image(pixels: "torch.Tensor") -> Image.Image:
    """(3, H, W) float in [0, 1] -> RGB picture; values are truncated to 8 bits as DALL·E Mini does, not rounded."""
    array = (pixels.detach().float().clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(array)


def decode(data: bytes) -> Image.Image:
    """Bytes of a PNG, JPEG or WebP file -> picture, checked against the limits before any pixel is decoded.

    Raises:
        PictureError: too many bytes or pixels, another format, an animation, or damaged data.
    """
    if len(data) > MAX_BYTES:
        raise PictureError(f"the picture has {len(data)} bytes; at most {MAX_BYTES} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of sizes, for which our own limit is checked
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(f"{image.width} x {image.height}")
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a camera's JPEG with further pictures behind its own
                raise PictureError(f"the picture is an animation of {frames} frames; give one frame")
            image.load()
    except PictureError:
        raise
    except Image.DecompressionBombError:
        # Raised before there is a picture to ask; a PNG's first chunk has its size.
        known = data.startswith(SIGNATURES[0]) and data[12:16] == b"IHDR"
        size = "{} x {}".format(*struct.unpack(">II", data[16:24])) if known else "too large"
        raise _too_large(size) from None
    except UnidentifiedImageError:
        if data.startswith(SIGNATURES):
            raise PictureError("the picture is damaged: its first parts cannot be read") from None
        raise PictureError(f"not a picture of a kind that is read here: {', '.join(FORMATS)}") from None
    except (OSError, ValueError, SyntaxError, EOFError):
        # The decoder's own words are not passed on: they have told attackers about memory before.
        raise PictureError("the picture is damaged: it could not be decoded to its end") from None
    return image


def _too_large(size: str) -> PictureError:
    return PictureError(f"the picture is {size}; at most {MAX_PIXELS} pixels are allowed")


def read_picture(path: Path) -> Image.Image:
    """A picture file, checked as `decode` does; PictureError names the file."""
    return read_by(decode, path)


def read_by(decoder: Callable[[bytes], P], path: Path) -> P:
    """What a decoder makes of a picture file that is not too large; PictureError names the file."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PictureError(f"{path}: more than {MAX_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or 'cannot be read'}") from None
    try:
        return decoder(data)
    except PictureError as error:
        raise PictureError(f"{path}: {error.message}") from None


def recipe_of(image: Image.Image | Deep) -> Recipe:
    """The recipe inside a picture; ReplayError when there is none."""
    text = image.info.get(RECIPE_CHUNK)
    if not isinstance(text, str):
        raise ReplayError("the picture carries no recipe: it was made elsewhere, or its metadata was stripped")
    return Recipe.from_json(text)


def encode_png(image: Image.Image, recipe: Recipe | None = None) -> bytes:
    """Picture -> PNG bytes, with its recipe in two text chunks when one is given, and no other metadata."""
    chunks = PngImagePlugin.PngInfo()
    if recipe is not None:
        chunks.add_itxt(RECIPE_CHUNK, recipe.to_json())
        chunks.add_itxt(PARAMETERS_CHUNK, parameters_text(recipe, image))
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=chunks)
    return out.getvalue()


def parameters_text(recipe: Recipe, image: Image.Image) -> str:
    """The recipe as the `parameters` text of Stable Diffusion web UI: prompt, then one line of `Name: value`."""
    known = {"num_inference_steps": "Steps", "sampler": "Sampler", "guidance_scale": "CFG scale"}
    settings = {known.get(k, k): v for k, v in recipe.options.items() if v is not None}
    settings |= {} if recipe.kind in SEEDLESS else {"Seed": recipe.seed}
    settings |= {"Size": f"{image.width}x{image.height}", "Model": recipe.executor}
    settings |= {"Model hash": recipe.weights[:10]}
    prompt = " ".join(recipe.prompt.split())  # one line: a line break would start the settings
    return f"{prompt}\n" + ", ".join(f"{name}: {value}" for name, value in settings.items())


def encode_animation(
    images: Sequence[Image.Image], form: str = "WEBP", *, ms_per_frame: int = 120, back: bool = False
) -> bytes:
    """Pictures of one size -> an animation that repeats for ever.

    Args:
        form: "WEBP" or "GIF"; a GIF has 256 colours a frame.
        ms_per_frame: milliseconds that each picture is shown; a GIF rounds them to tens.
        back: go on from the last picture back to the first, in place of jumping to it.
    """
    if form not in ANIMATIONS:
        raise ValueError(f"an animation is one of {', '.join(ANIMATIONS)}, got {form!r}")
    if not images:
        raise ValueError("an animation needs at least one picture")
    frames = [on_white(as_picture(image)) for image in images]
    frames += frames[-2:0:-1] if back else []
    out = io.BytesIO()
    frames[0].save(
        out, form, save_all=True, append_images=frames[1:], duration=ms_per_frame, loop=0, **ANIMATIONS[form]
    )
    return out.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Write whole or not at all: to a temporary name beside the target, then renamed. StorageError names the path."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            partial = file.name
            os.fchmod(file.fileno(), 0o644)  # a temporary file is private; a result is an ordinary file
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
    finally:  # also when interrupted; after the rename there is nothing of that name
        if partial is not None:
            with suppress(OSError):
                os.unlink(partial)


def cut_out(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture where the mask is white, transparent where it is black: "RGBA". What was transparent stays so.

    Raises:
        PictureError: the mask is not as large as the picture.
    """
    if mask.size != image.size:
        sizes = " and ".join(f"{part.width} x {part.height}" for part in (mask, image))
        raise PictureError(f"the mask and the picture are {sizes}; give a mask as large as the picture", field="mask")
    found = image.convert("RGBA")
    found.putalpha(ImageChops.multiply(found.getchannel("A"), mask.convert("L")))
    return found


def contact_sheet(
    candidates: Sequence[Candidate], *, columns: int | None = None, min_side_px: int = 192
) -> Image.Image:
    """All candidates in one picture, best first, each with its index, score and executor below it.

    `columns`: as near to a square as it goes when None. Small pictures are enlarged by a whole factor until their side
    is at least `min_side_px`.
    """
    if not candidates:
        raise ValueError("a contact sheet needs at least one candidate")
    largest = max(max(c.image.size) for c in candidates)
    factor = max(1, math.ceil(min_side_px / largest))
    cell, gap, label = largest * factor, 12, 30
    columns = columns or math.ceil(math.sqrt(len(candidates)))
    rows = math.ceil(len(candidates) / columns)
    size = (gap + columns * (cell + gap), gap + rows * (cell + label + gap))
    sheet = Image.new("RGB", size, "#16181d")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for index, candidate in enumerate(candidates):
        x, y = gap + index % columns * (cell + gap), gap + index // columns * (cell + label + gap)
        image = on_white(as_picture(candidate.image))
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)
        sheet.paste(image, (x + (cell - image.width) // 2, y + (cell - image.height) // 2))
        draw.text((x + 2, y + cell + 6), f"{index:02d}", fill="#ffffff", font=font)
        score = "" if candidate.score is None else f"{candidate.score.cosine:.3f}"
        draw.text((x + 34, y + cell + 6), score, fill="#9ecbff", font=font)
        name = candidate.recipe.executor
        start = cell - 2 - draw.textlength(name, font)
        if start > 34 + draw.textlength(score, font):  # where there is room beside the score
            draw.text((x + start, y + cell + 6), name, fill="#8b93a1", font=font)
    return sheet
