"""The other commands: executors, weights, evaluate; and what `dalle-flow` alone says."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dalle_flow.flow.plan import read_plan

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[2]


class TestAlone:
    def test_version(self, cli: Cli) -> None:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        assert cli("--version").out == f"dalle-flow {version}\n"

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["-h"], ["generate", "--help"], ["inpaint", "-h"], ["weights", "-h"]]
    )
    def test_help(self, cli: Cli, arguments: list[str]) -> None:
        said = cli(*arguments)
        assert said.code == 0
        assert said.out.startswith("Usage: dalle-flow")

    @pytest.mark.parametrize("arguments", [[], ["weights"]])
    def test_nothing_asked_for_is_help_too(self, cli: Cli, arguments: list[str]) -> None:
        said = cli(*arguments)
        assert said.code == 2
        assert said.err.startswith("Usage: dalle-flow")

    def test_an_unknown_command(self, cli: Cli) -> None:
        said = cli("genrate")
        assert said.code == 2
        assert said.err.startswith("error: No such command 'genrate'")

    def test_a_setting_that_is_neither_yes_nor_no(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DALLE_FLOW_DEBUG", "maybe")
        said = cli("show", "x.png")
        assert said.code == 2
        assert said.err.startswith("error: DALLE_FLOW_DEBUG must be one of")

    def test_debug_shows_where(self, generate: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DALLE_FLOW_DEBUG", "1")
        said = generate("a cat", "--set", "fail_at=1")
        assert said.code == 1
        assert "Traceback" in said.err
        assert said.err.endswith("error: the noise ran out\n")


class TestExecutors:
    def test_lists_options_with_what_they_allow(self, cli: Cli, noise_flow: Path) -> None:
        said = cli("executors", "--flow", str(noise_flow))
        assert (said.code, said.err) == (0, "")
        lines = {line.split()[0]: line for line in said.out.splitlines()}
        assert lines["noise:"] == "noise: generator, can generate, refine, inpaint, interpolate"
        assert lines["strength"].endswith("1 ignores the given picture (refine, inpaint)")
        assert lines["rank:"] == "rank: ranker (of class bright)"
        assert "number >= 0 <= 1" in lines["contrast"]
        assert "default 1.0" in lines["contrast"]
        assert "0 is a grey picture" in lines["contrast"]
        assert "colour | grey" in lines["palette"]
        assert "integer >= 0 or null" in lines["fail_at"]
        *_, last = said.out.splitlines()
        assert last.startswith("Installed and not in this flow: clip, dalle, find-bright")
        assert "noise" not in last

    def test_options_by_round(self, cli: Cli, noise_flow: Path) -> None:
        noise_flow.write_text("executors: {noise: {uses: noise, options: {strength: 0.5}}, find: {uses: segment}}")
        data = json.loads(cli("executors", "--flow", str(noise_flow), "--json").out)["executors"]
        assert list(data["noise"]["rounds"]) == ["generate", "refine", "inpaint", "interpolate"]
        assert "strength" not in data["noise"]["rounds"]["generate"]
        strength = data["noise"]["rounds"]["refine"]["strength"]
        assert (strength["default"], strength["allowed"]) == (0.5, "number > 0 <= 1")
        assert data["noise"]["options"] == data["noise"]["rounds"]["generate"]
        assert data["find"]["weights"] == {"clipseg": None, "clip": None}
        assert data["find"]["optional_weights"] == ["clip"]
        said = cli("executors", "--flow", str(noise_flow)).out
        assert "weights clipseg: none given\n" in said
        assert "weights clip: none given, and none needed\n" in said

    def test_the_embedded_flow_by_default(self, cli: Cli) -> None:
        data = json.loads(cli("executors", "--json").out)
        assert data["flow"] == "embedded"
        assert data["executors"]["dalle"]["kind"] == "generator"
        options = data["executors"]["dalle"]["options"]
        assert options["top_k"]["default"] == read_plan().executor("dalle").options["top_k"], "not the class's"
        assert data["executors"]["rank"]["kind"] == "ranker"

    def test_a_bad_flow(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "x.yml").write_text("executors: {a: {uses: nope}, b: 3}")
        said = cli("executors", "--flow", "x.yml")
        assert said.code == 2
        assert said.err.startswith("error: x.yml:\n  executors.a: uses: no executor named 'nope'")


class TestWeights:
    def test_list(self, cli: Cli) -> None:
        said = cli("weights", "list")
        assert said.code == 0
        assert "dalle-mega" in said.out
        assert "absent" in said.out
        names = [entry["name"] for entry in json.loads(cli("weights", "list", "--json").out)]
        assert [line.split()[0] for line in said.out.splitlines()] == names

    def test_fetch_from_a_folder_then_verify(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "mirror").mkdir()
        for name in ("flax_model.msgpack", "config.json"):
            (tmp_path / "mirror" / name).write_text(name)
        said = cli("weights", "fetch", "vqgan-f16-16384", "--from", "mirror")
        assert (said.code, said.err) == (0, "")
        folder = tmp_path / "home" / "vqgan-f16-16384"
        assert said.out == f"vqgan-f16-16384: {folder}\n"
        assert cli("weights", "verify").out == "vqgan-f16-16384: 2 files as they should be (by first fetch)\n"
        (folder / "config.json").write_text("CONFIG.JSON")
        said = cli("weights", "verify", "vqgan-f16-16384")
        assert said.code == 1
        assert "config.json has sha256" in said.err

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["fetch", "vqgan"], 2, "no weights named 'vqgan'"),
            (["fetch"], 2, "Missing argument"),
            (["fetch", "dalle-mini", "--from", "nowhere"], 1, "no such folder"),
            (["fetch", "dalle-mini", "dalle-mega", "--folder", "x"], 2, "one name at a time"),
            (["fetch", "dalle-mini", "--offline"], 1, "not in the hub's cache"),
            (["verify", "vqgan"], 2, "no weights named 'vqgan'"),
            (["verify", "."], 1, "no hashes are known"),
            (["convert", "nowhere", "x"], 1, "no such file or folder"),
            (["convert", "nowhere"], 2, "Missing argument"),
            (["convert", "nowhere", "x", "--dtype", "int4"], 2, "--dtype is one of float32, float16, bfloat16"),
            (["convert", "nowhere", "x", "--config", "7"], 2, "--config takes NAME=VALUE"),
        ],
    )
    def test_refusals(
        self, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
    ) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        said = cli("weights", *arguments)
        assert said.code == code
        assert message in said.err
        assert said.err.startswith("error: ")
        assert said.out == ""

    def test_nothing_to_verify(self, cli: Cli) -> None:
        assert cli("weights", "verify").out == "nothing was fetched yet\n"


class TestEvaluate:
    def test_without_a_training_run(self, cli: Cli) -> None:
        said = cli("evaluate", "--work", "nowhere", "--samples", "1")
        assert said.code == 1
        assert said.err.startswith("error: ")
        assert "nowhere" in said.err
        for stage in ("scenes", "judge"):
            assert f"python -m dalle_flow.train {stage}" in said.err
            assert f"python -m dalle_flow.train {stage}" in " ".join(cli("evaluate", "--help").out.split())

    def test_bad_numbers(self, cli: Cli) -> None:
        assert cli("evaluate", "--samples", "0").code == 2
        assert cli("evaluate", "--seed", "-1").code == 2


def test_what_the_readme_writes_is_not_for_git() -> None:
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("dalle-flow ")]
    outputs = {name.strip("/") for line in lines for name in re.findall(r" -o (\S+)", line)}
    ignored = {name.strip("/") for name in (ROOT / ".gitignore").read_text().splitlines()}
    assert outputs
    assert outputs <= ignored
