"""`dalle-flow show` and `replay`: the recipe in a picture, and the same pixels from it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle_flow.images import encode_png, picture_id, read_picture, recipe_of
from dalle_flow.types import Recipe, RoundKind

Cli = Callable[..., Any]


@pytest.fixture
def picture(generate: Cli, tmp_path: Path) -> Path:  # a flow of a generator and a ranker alone
    """The best of three pictures."""
    assert generate("a cat, 猫", "-n", "3", "--seed", "7").code == 0
    return tmp_path / "out" / "00.png"


def repaint(path: Path, **changes: Any) -> None:
    """The same pixels with another recipe."""
    image = read_picture(path)
    path.write_bytes(encode_png(image, replace(recipe_of(image), **changes)))


class TestShow:
    def test_says_all_of_the_recipe(self, cli: Cli, picture: Path) -> None:
        said = cli("show", str(picture))
        assert (said.code, said.err) == (0, "")
        for part in ("a cat, 猫", "noise", "contrast", "1.0", "torch", "17 x 5", picture_id(read_picture(picture))):
            assert part in said.out

    def test_json(self, cli: Cli, picture: Path) -> None:
        data = json.loads(cli("show", str(picture), "--json").out)
        assert Recipe(**data["recipe"]) == recipe_of(read_picture(picture))
        assert (data["width"], data["height"], data["id"]) == (17, 5, picture_id(read_picture(picture)))

    def test_says_what_it_was_made_from(self, cli: Cli, picture: Path) -> None:
        repaint(picture, kind=RoundKind.INPAINT, parent="f00d", mask="beef")
        said = cli("show", str(picture)).out
        for line in (
            "made by                noise, inpaint",
            "parent                 f00d",
            "mask                   beef",
        ):
            assert line in said
        repaint(picture, kind=RoundKind.INTERPOLATE, parent=None, mask=None, prompt_to="a dog", frame=(3, 16))
        said = cli("show", str(picture)).out
        for line in ("to prompt              a dog", "made by                noise, interpolate, picture 4 of 16"):
            assert line in said

    @pytest.mark.parametrize("prompt", ["\x1b]0;owned\x07", "a\nseed  9", "\u202egnp.tac", "[red]a[/red]", "\x9b31m"])
    def test_a_picture_cannot_speak_to_the_terminal(self, cli: Cli, picture: Path, prompt: str) -> None:
        repaint(picture, prompt=prompt, executor=prompt, versions={prompt: prompt}, options={prompt: prompt})
        said = cli("show", str(picture))
        assert said.code == 0
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(said.out)
        assert len(said.out.splitlines()) == 7, said.out
        if prompt.startswith("["):
            assert prompt in said.out, "nothing is taken for mark-up"

    def test_the_id_is_that_of_the_pixels_however_they_are_kept(self, cli: Cli, picture: Path) -> None:
        image = read_picture(picture)
        picture.write_bytes(encode_png(image.quantize(256), recipe_of(image)))
        assert json.loads(cli("show", str(picture), "--json").out)["id"] == picture_id(image)

    def test_needs_no_torch(self, command: Cli, picture: Path) -> None:
        said = command("show", str(picture), PYTHONPROFILEIMPORTTIME="1")
        assert said.returncode == 0
        assert "torch" not in said.stderr
        assert "rich" not in said.stderr

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "No such file"),
            (b"", "not a picture"),
            (b"hello", "not a picture"),
            (encode_png(Image.new("RGB", (3, 2))), "carries no recipe"),
        ],
    )
    def test_refusals(self, cli: Cli, tmp_path: Path, content: bytes | None, message: str) -> None:
        if content is not None:
            (tmp_path / "x.png").write_bytes(content)
        for name in ("show", "replay"):
            said = cli(name, "x.png")
            assert said.code in (1, 2)
            assert said.err.startswith("error: ")
            assert message in said.err
            assert "x.png: " in said.err

    @pytest.mark.parametrize("kind", [RoundKind.UPSCALE, RoundKind.SEGMENT])
    def test_what_has_no_seed_shows_none(self, cli: Cli, picture: Path, kind: RoundKind) -> None:
        assert "seed                   " in cli("show", str(picture)).out
        repaint(picture, kind=kind, executor=kind.value, seed=0, parent="f00d")
        said = cli("show", str(picture)).out
        assert f"made by                {kind}\n" in said, "said once where both are of one name"
        assert "seed" not in said
        assert "Seed" not in read_picture(picture).info["parameters"]


class TestReplay:
    def test_the_pixels_are_identical(self, cli: Cli, picture: Path, noise_flow: Path) -> None:
        said = cli("replay", str(picture), "--flow", str(noise_flow))
        assert (said.code, said.out, said.err) == (0, "the pixels are identical\n", "")

    def test_writes_the_picture_when_asked(self, cli: Cli, picture: Path, noise_flow: Path, tmp_path: Path) -> None:
        said = cli("replay", str(picture), "-o", "new/again.png", "--flow", str(noise_flow))
        assert "written to new/again.png" in said.out
        assert (tmp_path / "new" / "again.png").read_bytes() == picture.read_bytes()

    def test_json(self, cli: Cli, picture: Path, noise_flow: Path) -> None:
        data = json.loads(cli("replay", str(picture), "--flow", str(noise_flow), "--json").out)
        assert data["identical"] is True
        assert data["id"] == data["original"] == picture_id(read_picture(picture))
        assert data["path"] is None

    def test_changed_pixels_are_told(self, cli: Cli, picture: Path, noise_flow: Path) -> None:
        image = read_picture(picture)
        recipe = recipe_of(image)
        red, green, blue = image.getpixel((3, 2))  # type: ignore[misc]
        image.putpixel((3, 2), (red ^ 5, green, blue))
        picture.write_bytes(encode_png(image, recipe))
        said = cli("replay", str(picture), "--flow", str(noise_flow))
        assert said.code == 1
        assert "the pixels differ: by at most" in said.out
        assert json.loads(cli("replay", str(picture), "--flow", str(noise_flow), "--json").out)["identical"] is False

    @pytest.mark.parametrize("mode", ["RGBA", "P"])
    def test_the_same_pixels_kept_otherwise(self, cli: Cli, picture: Path, noise_flow: Path, mode: str) -> None:
        image = read_picture(picture)
        palette = image.quantize(256) if mode == "P" else image.convert(mode)
        assert palette.mode == mode
        assert palette.convert("RGB").tobytes() == image.tobytes()
        picture.write_bytes(encode_png(palette, recipe_of(image)))
        said = cli("replay", str(picture), "--flow", str(noise_flow))
        assert (said.code, said.out) == (0, "the pixels are identical\n")
        data = json.loads(cli("replay", str(picture), "--flow", str(noise_flow), "--json").out)
        assert (data["identical"], data["id"]) == (True, data["original"])

    def test_transparency_is_a_difference(self, cli: Cli, picture: Path, noise_flow: Path) -> None:
        image = read_picture(picture)
        clear = image.convert("RGBA")
        clear.putpixel((3, 2), (*image.getpixel((3, 2)), 9))  # type: ignore[misc]
        picture.write_bytes(encode_png(clear, recipe_of(image)))
        said = cli("replay", str(picture), "--flow", str(noise_flow))
        assert (said.code, said.out) == (1, "the pixels differ: one of them is transparent in places\n")

    def test_another_size_is_told(self, cli: Cli, picture: Path, noise_flow: Path) -> None:
        image = read_picture(picture)
        picture.write_bytes(encode_png(image.resize((34, 10)), recipe_of(image)))
        said = cli("replay", str(picture), "--flow", str(noise_flow))
        assert said.out == "the pixels differ: 34 x 10 there, 17 x 5 here\n"

    def test_other_versions_are_told_where_the_pixels_differ(self, cli: Cli, picture: Path, noise_flow: Path) -> None:
        repaint(picture, seed=99, versions={"torch": "0.1"})
        said = cli("replay", str(picture), "--flow", str(noise_flow))
        assert "made with torch 0.1; here is dalle_flow" in said.out

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"executor": "glid"}, "made by 'glid', which this flow does not have"),
            ({"executor": "rank"}, "'rank', which makes no pictures"),
            ({"weights": "0123"}, "other weights"),
            ({"options": {"nope": 1}}, "does not fit this version: no option 'nope'"),
            ({"prompt": ""}, "the prompt is empty"),
        ],
    )
    def test_recipes_that_cannot_be_replayed(
        self, cli: Cli, picture: Path, noise_flow: Path, changes: dict[str, Any], message: str
    ) -> None:
        repaint(picture, **changes)
        said = cli("replay", str(picture), "--flow", str(noise_flow))
        assert said.code == 1
        assert message in said.err

    def test_a_place_that_cannot_be_written_is_said_first(self, cli: Cli, picture: Path, noise_flow: Path) -> None:
        (picture.parent / "folder").mkdir()
        said = cli("replay", str(picture), "--flow", str(noise_flow), "-o", "out/folder")
        assert (said.code, "is a folder" in said.err) == (2, True)
        said = cli("replay", str(picture), "--flow", str(noise_flow), "-o", "/proc/x.png")
        assert (said.code, "cannot write /proc/x.png" in said.err) == (1, True)
        said = cli("replay", str(picture), "--flow", str(noise_flow), "-o", str(noise_flow / "x.png"))
        assert (said.code, "cannot write" in said.err) == (1, True)
        said = cli("replay", str(picture), "--flow", str(noise_flow), "-o", "again.jpg")
        assert (said.code, said.err) == (2, "error: -o takes the name of a PNG, such as again.png; got again.jpg\n")


class TestReplayFromAPicture:
    def test_every_kind(self, round_of: Cli, photo: Path, picture: Path) -> None:
        """Generated, refined, upscaled, segmented, inpainted: each from the file of the one before."""
        assert round_of("refine", "out/00.png", "-n", "2").code == 0
        assert round_of("upscale", "refined/01.png", "-o", "large.png").code == 0
        assert round_of("segment", "large.png", "the sun", "-o", "mask.png").code == 0
        assert round_of("inpaint", "large.png", "a hat", "--mask", "mask.png", "-n", "2").code == 0
        assert round_of("interpolate", "a heart", "a moon", "-n", "5").code == 0
        for arguments in (
            ["refined/01.png", "--parent", "out/00.png"],
            ["large.png", "--parent", "refined/01.png"],
            ["mask.png", "--parent", "large.png"],
            ["inpainted/01.png", "--parent", "large.png", "--mask", "mask.png"],
            ["interpolated/03.png"],
        ):
            said = round_of("replay", *arguments)
            assert (said.code, said.out, said.err) == (0, "the pixels are identical\n", ""), arguments

    def test_the_parent_is_asked_for_by_its_id(self, round_of: Cli, picture: Path) -> None:
        round_of("refine", "out/00.png", "-n", "1")
        said = round_of("replay", "refined/00.png")
        assert (said.code, said.out) == (2, "")
        assert f"give it with --parent, its id is {picture_id(read_picture(picture))}" in said.err
        said = round_of("replay", "refined/00.png", "--parent", "out/02.png")
        assert said.code == 2
        assert "that is not the parent" in said.err
        assert round_of("replay", "out/00.png", "--parent", "out/02.png").code == 2
        assert round_of("replay", "refined/00.png", "--parent", "none.png").code == 2

    def test_the_parent_is_not_written_over(self, round_of: Cli, picture: Path) -> None:
        round_of("refine", "out/00.png", "-n", "1")
        before = picture.read_bytes()
        said = round_of("replay", "refined/00.png", "--parent", "out/00.png", "-o", "out/../out/00.png")
        assert said.code == 2
        assert "is what the picture is made from" in said.err
        assert picture.read_bytes() == before
