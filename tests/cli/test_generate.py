"""`dalle-flow generate`: exactly the pictures asked for, whole or not at all; every bad wish refused in one line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dalle_flow.images import read_picture, recipe_of
from dalle_flow.types import MAX_PROMPT_CHARACTERS, Recipe

Cli = Callable[..., Any]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def recipes(folder: Path) -> list[Recipe]:
    return [recipe_of(read_picture(path)) for path in sorted(folder.glob("[0-9]*.png"))]


class TestWriting:
    @pytest.mark.parametrize(
        ("number", "first", "last"), [(1, "00", "00"), (5, "00", "04"), (6, "00", "05"), (40, "00", "39")]
    )
    def test_exactly_as_many_as_asked_for(
        self, generate: Cli, tmp_path: Path, number: int, first: str, last: str
    ) -> None:
        said = generate("a cat", "-n", str(number), "--seed", "7")
        assert (said.code, said.err) == (0, "")
        found = [path.stem for path in sorted((tmp_path / "out").glob("[0-9]*.png"))]
        assert (len(found), found[0], found[-1]) == (number, first, last)
        assert {recipe.seed for recipe in recipes(tmp_path / "out")} == set(range(7, 7 + number))
        which = (
            f"{number} pictures, best first: out/{first}.png to {last}.png" if number > 1 else "1 picture: out/00.png"
        )
        assert f"{which} (seed 7)\nsheet: out/sheet.png" in said.out

    def test_more_than_a_hundred_have_three_digits(self, generate: Cli, tmp_path: Path) -> None:
        generate("a cat", "-n", "101", "--set", "num_inference_steps=1")
        assert names(tmp_path / "out")[0] == "000.png"
        assert "100.png" in names(tmp_path / "out")

    def test_nine_by_default_and_a_seed_at_random(self, generate: Cli, tmp_path: Path) -> None:
        generate("a cat")
        first = recipes(tmp_path / "out")
        assert len(first) == 9
        generate("a cat")
        assert {r.seed for r in first} != {r.seed for r in recipes(tmp_path / "out")}

    def test_best_first(self, generate: Cli, tmp_path: Path) -> None:
        document = json.loads(generate("a cat", "--json").out)
        cosines = [candidate["score"]["cosine"] for candidate in document["candidates"]]
        assert cosines == sorted(cosines, reverse=True)
        paths = [Path(candidate["path"]).name for candidate in document["candidates"]]
        assert paths == [f"{i:02d}.png" for i in range(9)]

    def test_the_sheet_is_a_picture_of_all(self, generate: Cli, tmp_path: Path) -> None:
        generate("a cat", "-n", "5")
        assert read_picture(tmp_path / "out" / "sheet.png").width > 3 * 192

    def test_another_folder_with_missing_parents(self, generate: Cli, tmp_path: Path) -> None:
        assert generate("a cat", "-n", "1", "-o", "a/b c/ü").code == 0
        assert names(tmp_path / "a" / "b c" / "ü") == ["00.png", "round.json", "sheet.png"]

    def test_without_metadata(self, generate: Cli, tmp_path: Path) -> None:
        for _ in range(2):  # the second replaces the first, by round.json
            assert generate("a private cat", "-n", "2", "--no-metadata").code == 0
        for path in (tmp_path / "out").iterdir():
            assert b"private" not in path.read_bytes()
        assert read_picture(tmp_path / "out" / "00.png").info == {}


class TestRerun:
    def test_replaces_the_earlier_round(self, generate: Cli, tmp_path: Path) -> None:
        generate("a cat", "-n", "9")
        (tmp_path / "out" / "notes.txt").write_text("mine")
        generate("a dog", "-n", "2")
        assert names(tmp_path / "out") == ["00.png", "01.png", "notes.txt", "round.json", "sheet.png"]
        assert {recipe.prompt for recipe in recipes(tmp_path / "out")} == {"a dog"}

    @pytest.mark.parametrize("name", ["00.png", "01.png", "sheet.png"])
    def test_refuses_to_replace_what_is_not_ours(self, generate: Cli, tmp_path: Path, name: str) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_bytes(b"mine")
        said = generate("a cat", "-n", "2")
        assert said.code == 2
        assert said.err.startswith(f"error: out/{name} exists and is not a picture of an earlier round")
        assert (tmp_path / "out" / name).read_bytes() == b"mine"
        assert names(tmp_path / "out") == [name]

    def test_refuses_to_replace_what_was_changed_since(self, generate: Cli, tmp_path: Path) -> None:
        generate("a cat", "-n", "2")
        (tmp_path / "out" / "01.png").write_bytes(b"painted over")
        assert generate("a dog", "-n", "2").code == 2
        assert {recipe_of(read_picture(tmp_path / "out" / "00.png")).prompt} == {"a cat"}
        assert generate("a dog", "-n", "1").code == 0, "it is not in the way of one picture"
        assert (tmp_path / "out" / "01.png").read_bytes() == b"painted over"

    def test_keeps_a_picture_that_was_put_there(self, generate: Cli, tmp_path: Path) -> None:
        """A favourite copied here from another folder has a recipe, and is not of the earlier round here."""
        generate("a cat", "-n", "6", "-o", "other")
        generate("a cat", "-n", "2")
        (tmp_path / "out" / "05.png").write_bytes((tmp_path / "other" / "05.png").read_bytes())
        generate("a cat", "-n", "1")
        assert names(tmp_path / "out") == ["00.png", "05.png", "round.json", "sheet.png"]

    @pytest.mark.parametrize(
        "manifest",
        ["", "{", "[]", "3", '{"files": 3}', '{"files": [1]}', "[" * 100_000, '{"round": "x"}'],
    )
    def test_a_list_that_is_none(self, generate: Cli, tmp_path: Path, manifest: str) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "round.json").write_text(manifest)
        said = generate("a cat")
        assert said.code == 2
        assert "round.json is not the list of an earlier round's files" in said.err

    def test_a_list_cannot_make_us_remove_others_files(self, generate: Cli, tmp_path: Path) -> None:
        for name in ("precious.png", "out/notes.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        files = {"../precious.png": empty, str(tmp_path / "precious.png"): empty, "notes.txt": empty}
        (tmp_path / "out" / "round.json").write_text(json.dumps({"files": files}))
        assert generate("a cat", "-n", "1").code == 0
        assert (tmp_path / "precious.png").exists()
        assert (tmp_path / "out" / "notes.txt").exists()

    def test_does_not_follow_a_link(self, generate: Cli, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "00.png").symlink_to(tmp_path / "elsewhere.png")
        assert generate("a cat", "-n", "1").code == 2
        assert not (tmp_path / "elsewhere.png").exists()

    def test_a_folder_that_is_a_link_to_nothing(self, generate: Cli, tmp_path: Path) -> None:
        (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
        said = generate("a cat", "-n", "1")
        assert (said.code, said.err) == (2, "error: out is a link to nothing; -o takes a folder\n")
        assert not (tmp_path / "elsewhere").exists()

    def test_does_not_wait_for_a_pipe(self, generate: Cli, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        os.mkfifo(tmp_path / "out" / "00.png")
        assert generate("a cat", "-n", "1").code == 2


class TestOptions:
    @pytest.mark.parametrize(
        ("setting", "option", "value"),
        [
            ("contrast=0.5", "contrast", 0.5),
            ("noise.contrast=1", "contrast", 1.0),
            ("noise.num_inference_steps=7", "num_inference_steps", 7),
            ("palette=grey", "palette", "grey"),
            ("label=7", "label", "7"),
            ("label=true", "label", "true"),
            ("label=a=b.c", "label", "a=b.c"),
            ("label=", "label", ""),
            ("fail_at=null", "fail_at", None),
            ("crash=false", "crash", False),
        ],
    )
    def test_set(self, generate: Cli, tmp_path: Path, setting: str, option: str, value: object) -> None:
        said = generate("a cat", "-n", "1", "--set", setting)
        assert said.code == 0, said.err
        assert recipes(tmp_path / "out")[0].options[option] == value

    def test_an_option_goes_to_every_generator_that_has_it(self, cli: Cli, tmp_path: Path) -> None:
        flow = tmp_path / "two.yml"
        flow.write_text("executors: {a: {uses: noise}, b: {uses: noise}}")
        assert cli("generate", "x", "-n", "1", "--flow", "two.yml", "--set", "contrast=0.5").code == 0
        assert [recipe.options["contrast"] for recipe in recipes(tmp_path / "out")] == [0.5, 0.5]
        assert cli("generate", "x", "-n", "1", "--flow", "two.yml", "--set", "b.contrast=0.25").code == 0
        assert [recipe.options["contrast"] for recipe in recipes(tmp_path / "out")] == [1.0, 0.25]
        assert cli("generate", "x", "-n", "1", "--flow", "two.yml", "--executor", "b").code == 0
        assert [recipe.executor for recipe in recipes(tmp_path / "out")] == ["b"]

    def test_json_is_all_that_is_on_stdout(self, generate: Cli) -> None:
        said = generate("an unseen cat, 猫", "-n", "2", "--seed", "7", "--json")
        document = json.loads(said.out)
        assert said.err == "warning: I do not know 'unseen'\n"
        assert document["seed"] == 7
        assert document["warnings"] == ["I do not know 'unseen'"]
        assert document["sheet"] == "out/sheet.png"
        for candidate in document["candidates"]:
            image = read_picture(Path(candidate["path"]))
            assert json.loads(recipe_of(image).to_json()) == candidate["recipe"]
            assert candidate["recipe"]["prompt"] == "an unseen cat, 猫"
            assert len(candidate["id"]) == 64

    def test_quiet(self, generate: Cli) -> None:
        said = generate("an unseen cat", "-n", "1", "-q")
        assert said.out == "out/sheet.png\n"
        assert said.err == "warning: I do not know 'unseen'\n", "a warning is not noise"


BAD: dict[str, tuple[list[str], int, str]] = {
    "empty prompt": ([""], 2, "the prompt is empty"),
    "blank prompt": ([" \n "], 2, "the prompt is empty"),
    "no prompt": ([], 2, "Missing argument"),
    "long prompt": (["x" * 10_000], 2, f"10000 characters; at most {MAX_PROMPT_CHARACTERS}"),
    "half a character": (["a \udcff"], 2, "the prompt is not valid UTF-8; check the terminal's encoding"),
    "none": (["a cat", "-n", "0"], 2, "num_images must be 1 to 1000, got 0"),
    "negative": (["a cat", "-n", "-3"], 2, "num_images must be 1 to 1000, got -3"),
    "too many": (["a cat", "-n", "5000"], 2, "num_images must be 1 to 1000, got 5000"),
    "no number": (["a cat", "-n", "x"], 2, "-n"),
    "negative seed": (["a cat", "--seed", "-1"], 2, "seed must be 0 to"),
    "large seed": (["a cat", "--seed", str(2**40)], 2, "seed must be 0 to"),
    "unknown executor": (["a cat", "--executor", "noize"], 2, "no executor named 'noize'; did you mean 'noise'?"),
    "a ranker": (["a cat", "--executor", "rank"], 2, "'rank' is not a generator; generators are: noise"),
    "executor twice": (["a cat", "--executor", "noise", "--executor", "noise"], 2, "'noise' twice"),
    "unknown flag": (["a cat", "--sneed", "7"], 2, "No such option"),
    "unknown option": (["a cat", "--set", "contrats=1"], 2, "no option named 'contrats'; did you mean 'contrast'?"),
    "unknown option of one": (["a cat", "--set", "noise.x=1"], 2, "no option of noise named 'x'"),
    "option of no executor": (["a cat", "--set", "nose.x=1"], 2, "no executor named 'nose'; did you mean 'noise'?"),
    "option of the ranker": (["a cat", "--set", "rank.x=1"], 2, "'rank' is not asked to generate"),
    "no value": (["a cat", "--set", "contrast"], 2, "--set takes OPTION=VALUE"),
    "no option": (["a cat", "--set", "=1"], 2, "--set takes OPTION=VALUE"),
    "no executor": (["a cat", "--set", ".x=1"], 2, "--set takes OPTION=VALUE"),
    "wrong type": (["a cat", "--set", "contrast=much"], 2, "option 'contrast': got 'much'; it takes number >= 0 <= 1"),
    "wrong whole number": (["a cat", "--set", "num_inference_steps=2.5"], 2, "got 2.5; it takes integer >= 1 <= 1000"),
    "a list": (["a cat", "--set", "contrast=[1]"], 2, "option 'contrast'"),
    "not a number": (["a cat", "--set", "contrast=NaN"], 2, "got 'NaN'; it takes number >= 0 <= 1"),
    "deep": (["a cat", "--set", "contrast=" + "[" * 100_000], 2, "option 'contrast'"),
    "out of range": (["a cat", "--set", "contrast=1.5"], 2, "'contrast': got 1.5; it takes number >= 0 <= 1"),
    "no such choice": (["a cat", "--set", "palette=blue"], 2, "'palette': got 'blue'; it takes colour | grey"),
    "unknown role": (["a cat", "--weights", "unet=/x"], 2, "no weights role named 'unet'"),
    "no path": (["a cat", "--weights", "unet="], 2, "--weights takes ROLE=PATH"),
    "said twice": (
        ["a cat", "--set", "contrast=1", "--set", "contrast=0"],
        2,
        "option 'contrast' is said twice: '1' and '0'",
    ),
    "said twice of one": (
        ["a cat", "--set", "noise.palette=x", "--set", "noise.palette=y"],
        2,
        "'noise.palette' is said twice",
    ),
    "no such flow": (["a cat", "--flow", "none.yml"], 2, "none.yml: No such file"),
    "a file as folder": (["a cat", "-o", "noise.yml"], 2, "noise.yml is a file; -o takes a folder"),
    "below a file": (["a cat", "-o", "noise.yml/out"], 1, "cannot write into noise.yml/out"),
    "no place": (["a cat", "-o", "/proc/out"], 1, "cannot write into /proc/out"),
    "long name": (["a cat", "-o", "x" * 300], 1, "File name too long"),
    "failing executor": (["a cat", "--set", "fail_at=1"], 1, "the noise ran out"),
    "crashing executor": (
        ["a cat", "--set", "fail_at=1", "--set", "crash=true"],
        1,
        "unexpected RuntimeError: a fault",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(generate: Cli, tmp_path: Path, case: str) -> None:
    arguments, code, message = BAD[case]
    said = generate(*arguments)
    assert said.code == code
    assert message in said.err
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    assert said.out == ""
    assert names(tmp_path) == ["noise.yml"], "something was left behind"


def test_an_error_cannot_speak_to_the_terminal(generate: Cli) -> None:
    said = generate("a cat", "--executor", "no\x1b[31m\u202e")
    assert "\x1b" not in said.err
    assert "\\u202e" in said.err


def test_missing_weights_are_said_at_once(cli: Cli, tmp_path: Path) -> None:
    said = cli("generate", "a cat", "--weights", "dalle=nowhere")
    assert said.code == 1
    assert "dalle: no weights at nowhere" in said.err
    assert names(tmp_path) == []


def test_an_option_of_one_executor_stands_over_that_of_all(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two.yml").write_text("executors: {a: {uses: noise}, b: {uses: noise}}")
    arguments = ["generate", "a cat", "-n", "1", "--flow", "two.yml", "--set", "a.contrast=0", "--set", "contrast=0.5"]
    assert cli(*arguments).code == 0
    assert {r.executor: r.options["contrast"] for r in recipes(tmp_path / "out")} == {"a": 0.0, "b": 0.5}


class TestWeightsWithoutARole:
    """They are those of the only executor of the flow that can do the round."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["upscale", "photo.png", "-o", "x.png"], "upscale: no weights at rrdb.pth"),
            (["segment", "photo.png", "x", "-o", "x.png"], "segment: no weights at rrdb.pth"),
            (["interpolate", "a", "b"], "stable: no weights at rrdb.pth"),
            (["refine", "photo.png", "--prompt", "a"], "stable: no weights at rrdb.pth"),
        ],
    )
    def test_one_can(self, cli: Cli, photo: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
        uses = ", ".join(f"{name}: {{uses: {name}}}" for name in ("stable", "upscale", "segment", "clip"))
        (tmp_path / "one.yml").write_text(f"executors: {{{uses}}}")
        said = cli(*arguments, "--flow", "one.yml", "--weights", "rrdb.pth")
        assert (said.code, said.out) == (1, "")
        assert message in said.err

    def test_several_can(self, cli: Cli, photo: Path, tmp_path: Path) -> None:
        (tmp_path / "two.yml").write_text("executors: {fast: {uses: upscale}, d: {uses: dalle}, best: {uses: upscale}}")
        arguments = ["upscale", "photo.png", "-o", "x.png", "--flow", "two.yml", "--weights", "rrdb.pth"]
        said = cli(*arguments)
        assert said.code == 2
        assert "choose one with --executor, or write fast.upscaler=PATH or best.upscaler=PATH" in said.err
        assert "dalle" not in said.err
        assert "best: no weights at rrdb.pth" in cli(*arguments, "--executor", "best").err

    def test_none_can(self, cli: Cli, noise_flow: Path, photo: Path) -> None:
        said = cli("upscale", "photo.png", "-o", "x.png", "--flow", str(noise_flow), "--weights", "rrdb.pth")
        assert said.code == 2
        assert "no executor of the flow can upscale; name one that can with --executor" in said.err


def test_a_role_of_two_executors_needs_the_executor(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two.yml").write_text("executors: {a: {uses: clip}, b: {uses: clip}, c: {uses: noise}}")
    said = cli("generate", "a cat", "--flow", "two.yml", "--weights", "clip=/x")
    assert "several executors have a role 'clip'; write a.clip=PATH or b.clip=PATH" in said.err
    said = cli("generate", "a cat", "--flow", "two.yml", "--weights", "a.clip=/x")
    assert "a: no weights at /x" in said.err


def test_a_failed_round_leaves_the_earlier_one(generate: Cli, tmp_path: Path) -> None:
    generate("a cat", "-n", "2")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert generate("a dog", "--set", "fail_at=2").code == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


class TestExecutorOfTheRegistry:
    """--executor with a name that the flow has not, and the installed ones have."""

    def test_takes_part_as_it_is(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "x.yml").write_text("executors: {grey: {uses: noise, options: {contrast: 0.0}}}")
        arguments = ["generate", "a cat", "-n", "2", "--flow", "x.yml", "--executor", "noise"]
        assert cli(*arguments).code == 0
        assert [(r.executor, r.options["contrast"]) for r in recipes(tmp_path / "out")] == [("noise", 1.0)] * 2
        assert cli(*arguments, "--executor", "grey").code == 0
        assert {r.executor for r in recipes(tmp_path / "out")} == {"noise", "grey"}

    def test_a_path_is_for_its_first_role(self, generate: Cli) -> None:
        said = generate("a cat", "--executor", "dalle", "--weights", "/nowhere/a=b.ckpt", "--weights", "codec=/other")
        assert said.code == 1
        assert said.err.startswith("error: dalle: no weights at /nowhere/a=b.ckpt; say where with dalle=PATH")
        said = generate("a cat", "--executor", "dalle", "--weights", "codec=/other")
        assert said.err.startswith("error: dalle: no weights given for dalle; say where with dalle=PATH")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--executor", "noise", "--weights", "/x"], "--weights: noise needs no weights, got '/x'"),
            (["--weights", "/x"], "--weights: noise needs no weights, got '/x'"),
            (
                ["--executor", "noise", "--executor", "dalle", "--weights", "/x"],
                "'/x' does not say whose it is; choose one with --executor, or write dalle.dalle=PATH",
            ),
            (
                ["--executor", "dalle", "--weights", "/x", "--weights", "dalle=/y"],
                "--weights: dalle.dalle is said twice: '/x' and 'dalle=/y'",
            ),
            (["--executor", "dalle", "--weights", ""], "--weights takes ROLE=PATH"),
            (["--executor", "clip"], "'clip' is not a generator; generators are: noise"),
            (["--executor", "dale"], "no executor named 'dale'; did you mean 'dalle'?"),
        ],
    )
    def test_refusals(self, generate: Cli, arguments: list[str], message: str) -> None:
        said = generate("a cat", *arguments)
        assert (said.code, said.out) == (2, "")
        assert message in said.err


def test_a_role_that_one_needs_and_another_can_do_without(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two.yml").write_text("executors: {find: {uses: segment}, rank: {uses: clip}, c: {uses: noise}}")
    said = cli("generate", "a cat", "--flow", "two.yml", "--weights", "clip=/x")
    assert said.err.startswith("error: rank: no weights at /x")
