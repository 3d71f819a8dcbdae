"""Documents hold: what they name exists, what exists is named, and the generated pages are up to date."""

import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dalle_flow.cli.app import app
from dalle_flow.cli.reference import reference
from dalle_flow.flow.plan import named_flows
from dalle_flow.registry import BUILT_IN, executor_class, executor_names
from dalle_flow.settings import SETTINGS
from dalle_flow.weights.index import index

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[list[str]]:
    """Every `dalle-flow ...` in the shell blocks of a page, as words."""
    joined = [block.replace("\\\n", " ") for block in blocks(text, "bash")]
    words = [shlex.split(line, comments=True) for block in joined for line in block.splitlines()]
    return [line[1:] for line in words if line[:1] == ["dalle-flow"]]


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that a line runs, and what is left of the line."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def all_roles(uses: str) -> tuple[str, ...]:
    executor = executor_class(uses)
    return (*executor.roles, *executor.optional_roles)


class TestReadme:
    def test_is_short(self) -> None:
        assert len(README.split()) < 800

    def test_the_first_command_is_near_the_top(self) -> None:
        lines = README.splitlines()
        assert lines.index("```bash") < 30

    def test_has_one_real_picture_with_the_command_that_made_it(self) -> None:
        pictures = re.findall(r"!\[.+\]\((.+)\)", README)
        assert pictures == ["docs/images/demo.png"]
        after = README.split("docs/images/demo.png")[1]
        assert "--seed" in blocks(after, "bash")[0]

    def test_the_file_table_is_the_tree(self) -> None:
        table = README.split("| in `dalle_flow/` |")[1].split("\n\n")[0]
        named = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
        tree = {path.name + "/" * path.is_dir() for path in (ROOT / "dalle_flow").iterdir()}
        assert sorted(named) == sorted(tree - {"__pycache__/", "py.typed"})

    def test_the_executor_table_is_the_registry(self) -> None:
        table = README.split("| executor | kind |")[1].split("\n\n")[0]
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.MULTILINE)
        assert dict(rows) == {name: executor_class(name).kind.value for name in BUILT_IN}

    def test_the_python_runs(self, noise_flow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the flow of the tests in place of the embedded one."""
        (block,) = blocks(README, "python")
        assert len(block.strip().splitlines()) <= 6
        from dalle_flow import session

        monkeypatch.setattr(session.generate, "__kwdefaults__", {**session.generate.__kwdefaults__, "flow": noise_flow})
        monkeypatch.setattr(session.replay, "__kwdefaults__", {"flow": noise_flow})
        exec(block, {})

    def test_install_and_test_are_what_ci_does(self) -> None:
        ci = (ROOT / ".ci" / "run").read_text()
        (install,) = [line for line in README.splitlines() if line.startswith("pip install")]
        assert install.removeprefix("pip install ") in ci
        assert "make test" in README
        assert re.search(r"^make test", ci, re.MULTILINE)


def test_everything_the_package_needs_is_packed() -> None:
    """An ordinary install gets what an editable one finds in the folder."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["dalle_flow"]
    packed = {path for pattern in patterns for path in (ROOT / "dalle_flow").glob(pattern) if path.is_file()}
    kept = {path for path in (ROOT / "dalle_flow").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in kept if path.suffix != ".py"} == packed


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {target for page in PAGES for target in re.findall(r"(?:`|^)make (\w+)", page.read_text("utf-8"), re.M)}
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestEveryPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link and not link.endswith("images/demo.png"):
                assert (page.parent / link).exists(), link

    def test_commands_and_their_options_exist(self, page: Path) -> None:
        for words in command_lines(page.read_text(encoding="utf-8")):
            command, rest = find_command(words)
            assert not getattr(command, "commands", {}), f"no such command: {words}"
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            given = {word for word in rest if re.fullmatch(r"-{1,2}[a-z][a-z-]*", word)}
            assert given <= known, (words, given - known)

    def test_named_weights_and_roles_exist(self, page: Path) -> None:
        roles = {role for uses in executor_names() for role in all_roles(uses)}
        for words in command_lines(page.read_text(encoding="utf-8")):
            pairs = list(pairwise(words))
            flows = {value for option, value in pairs if option == "--flow"}
            assert {flow for flow in flows if "/" not in flow and "." not in flow} <= set(named_flows()), words
            if words[:2] == ["weights", "fetch"]:
                named = {word for word in words[2:] if not word.startswith("-")}
                assert named - flows <= set(index()), words
            for option, value in pairs:
                if option == "--weights" and "=" in value:  # without a role: the executor's first
                    assert value.split("=")[0].rpartition(".")[2] in roles, words

    def test_speaks_of_the_project_alone(self, page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/work/|\.\./shared|/home/|/root/", text)


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference(), "run 'make docs'"


def test_every_command_says_what_it_does_in_few_words() -> None:
    root: Any = typer.main.get_command(app)
    for command in [*root.commands.values(), *root.commands["weights"].commands.values()]:
        first = (command.help or "").split("\n")[0]
        assert first.endswith("."), command.name
        assert len(first) <= 45, f"{command.name}: is cut off in the list of commands"
        for parameter in command.params:
            assert parameter.help, (command.name, parameter.name)


def test_every_setting_is_in_the_docs() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for setting in SETTINGS.values():
        assert setting.variable in text


def test_every_error_code_is_in_the_docs() -> None:
    from dalle_flow import errors

    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, errors.DalleFlowError):
            assert f"`{cls.__name__}`" in text, cls
