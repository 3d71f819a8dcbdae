"""`dalle-flow upscale`: one larger picture into one file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle_flow.deep_picture import decode_deep, encode_deep, from_pixels, to_pixels
from dalle_flow.images import picture_id, read_picture, recipe_of
from dalle_flow.types import RoundKind

Cli = Callable[..., Any]
PARITY = Path(__file__).parents[1] / "data" / "parity" / "upscale"


def test_a_larger_picture_with_its_recipe(round_of: Cli, picture: Path, tmp_path: Path) -> None:
    said = round_of("upscale", "out/01.png", "-o", "new/final.png")
    assert (said.code, said.out, said.err) == (0, "new/final.png: 68 x 20, from 17 x 5\n", "")
    recipe = recipe_of(read_picture(tmp_path / "new" / "final.png"))
    assert (recipe.kind, recipe.prompt, recipe.options) == (RoundKind.UPSCALE, "a fox", {"scale": 4})
    assert recipe.parent == picture_id(read_picture(picture))


@pytest.mark.parametrize(("scale", "size"), [("2", (24, 20)), ("3.0", (36, 30))])
def test_scale(round_of: Cli, photo: Path, scale: str, size: tuple[int, int]) -> None:
    assert round_of("upscale", "photo.png", "-o", "final.png", "--scale", scale).code == 0
    assert read_picture(photo.with_name("final.png")).size == size


@pytest.mark.parametrize(
    ("mode", "ours"), [("RGBA", "RGBA"), ("LA", "RGBA"), ("L", "L"), ("CMYK", "RGB"), ("P", "RGB")]
)
def test_transparency_and_grey_are_kept(round_of: Cli, photo: Path, mode: str, ours: str) -> None:
    image = read_picture(photo).convert(mode)
    image.save(photo.with_name("x.jpg" if mode == "CMYK" else "x.png"))
    assert round_of("upscale", "x.jpg" if mode == "CMYK" else "x.png", "-o", "final.png").code == 0
    assert read_picture(photo.with_name("final.png")).mode == ours


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_kept_and_replayed(cli: Cli, round_of: Cli, tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (3, 5, channels), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(encode_deep(from_pixels(pixels)))
    said = round_of("upscale", "deep.png", "-o", "final.png", "--scale", "2")
    assert (said.code, said.out) == (0, "final.png: 10 x 6, from 5 x 3\n"), said.err
    found = decode_deep((tmp_path / "final.png").read_bytes())
    assert np.array_equal(to_pixels(found), pixels.repeat(2, 0).repeat(2, 1))
    said = round_of("replay", "final.png", "--parent", "deep.png", "-o", "again.png")
    assert (said.code, said.out) == (0, "the pixels are identical\nwritten to again.png\n")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "final.png").read_bytes()
    assert cli("show", "final.png").out.splitlines()[-1].endswith(picture_id(found))  # type: ignore[arg-type]


def test_a_published_network_named_by_its_file_alone(round_of: Cli, tmp_path: Path) -> None:
    """--executor with an installed one that the flow has not, and --weights without a role."""
    source = str(PARITY / "inputs" / "rgb16.png")
    arguments = ["--executor", "upscale", "--weights", str(PARITY / "checkpoints" / "srvgg_x4.pth")]
    said = round_of("upscale", source, "-o", "final.png", *arguments)
    assert said.code == 0, said.err
    before, after = (decode_deep(path.read_bytes()) for path in (Path(source), tmp_path / "final.png"))
    assert (after.width, after.height, after.mode) == (4 * before.width, 4 * before.height, "RGB;16")
    said = round_of("replay", "final.png", "--parent", source)
    assert (said.code, "upscale: no weights given for upscaler" in said.err) == (1, True)
    said = round_of("replay", "final.png", "--parent", source, *arguments[2:])
    assert (said.code, said.out) == (0, "the pixels are identical\n"), said.err


def test_16_bits_that_differ_are_told(round_of: Cli, tmp_path: Path) -> None:
    pixels = np.full((3, 5, 3), 700, np.uint16)
    (tmp_path / "deep.png").write_bytes(encode_deep(from_pixels(pixels)))
    round_of("upscale", "deep.png", "-o", "final.png", "--scale", "1")
    recipe = recipe_of(read_picture(tmp_path / "final.png"))
    pixels[1, 2, 0] += 9
    (tmp_path / "final.png").write_bytes(encode_deep(from_pixels(pixels), recipe))
    said = round_of("replay", "final.png", "--parent", "deep.png")
    assert (said.code, said.out) == (1, "the pixels differ: by at most 9 of 65535\n")
    (tmp_path / "final.png").write_bytes(encode_deep(from_pixels((pixels // 257).astype(np.uint8)), recipe))
    said = round_of("replay", "final.png", "--parent", "deep.png")
    assert said.out == "the pixels differ: one of them has 16 bits\n"


def test_json_quiet_and_without_metadata(round_of: Cli, photo: Path) -> None:
    data = json.loads(round_of("upscale", "photo.png", "-o", "final.png", "--json").out)
    assert (data["kind"], data["candidates"][0]["path"], data["ranker"]) == ("upscale", "final.png", None)
    assert data["candidates"][0]["id"] == picture_id(read_picture(Path("final.png")))
    assert "seed" not in data
    assert round_of("upscale", "photo.png", "-o", "final.png", "-q", "--no-metadata").out == "final.png\n"
    assert read_picture(Path("final.png")).info == {}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["photo.png"], 2, "Missing option"),
        (
            ["photo.png", "-o", "photo.png"],
            2,
            "photo.png is what the picture is made from; choose another name with -o",
        ),
        (["photo.png", "-o", "./x/../photo.png"], 2, "is what the picture is made from"),
        (["photo.png", "-o", "final.jpg"], 2, "-o takes the name of a PNG, such as final.png; got final.jpg"),
        (["photo.png", "-o", "folder"], 2, "folder is a folder; -o takes a file"),
        (["photo.png", "-o", "/proc/x.png"], 1, "cannot write /proc/x.png"),
        (["photo.png", "-o", "f.png", "--scale", "99"], 2, "option 'scale': got 99; it takes integer >= 1 <= 8"),
        (["photo.png", "-o", "f.png", "--scale", "2.5"], 2, "option 'scale': got 2.5; it takes integer >= 1 <= 8"),
        (["photo.png", "-o", "f.png", "--scale", "x"], 2, "option 'scale': got 'x'; it takes integer >= 1 <= 8"),
        (["photo.png", "-o", "f.png", "--scale", "2", "--set", "scale=3"], 2, "option 'scale' is said twice: '2' and"),
        (["photo.png", "-o", "f.png", "--scale", "0"], 2, "option 'scale'"),
        (["photo.png", "-o", "f.png", "--executor", "noise"], 2, "'noise' is not an upscaler; upscalers are: repeat"),
        (["all.yml", "-o", "f.png"], 2, "all.yml: not a picture"),
    ],
)
def test_refusals(round_of: Cli, photo: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "folder").mkdir()
    before = photo.read_bytes()
    said = round_of("upscale", *arguments)
    assert (said.code, said.out) == (code, ""), said.err
    assert message in said.err
    assert photo.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.yml", "folder", "photo.png"]


def test_a_flow_without_an_upscaler(cli: Cli, noise_flow: Path, photo: Path) -> None:
    said = cli("upscale", "photo.png", "-o", "final.png", "--flow", str(noise_flow))
    assert said.code == 2
    assert (
        "the flow has no upscaler; its executors are: noise (generate, refine, inpaint, interpolate), rank" in said.err
    )


def test_a_huge_picture_is_refused_by_its_header(round_of: Cli, tmp_path: Path) -> None:
    Image.new("1", (30_000, 30_000)).save(tmp_path / "huge.png")
    said = round_of("upscale", "huge.png", "-o", "final.png")
    assert said.code == 2
    assert "huge.png: the picture is 30000 x 30000; at most 67108864 pixels are allowed" in said.err


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_animations_are_refused(round_of: Cli, photo: Path, form: str) -> None:
    image = read_picture(photo)
    image.save("moving", form, save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    said = round_of("upscale", "moving", "-o", "final.png")
    assert said.code == 2
    assert ("not a picture of a kind that is read here" if form == "GIF" else "an animation of 2 frames") in said.err


def test_a_damaged_picture_is_refused(round_of: Cli, photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-30])
    said = round_of("upscale", "photo.png", "-o", "final.png")
    assert (said.code, "photo.png: the picture is damaged" in said.err) == (2, True)
