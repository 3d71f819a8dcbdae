"""The command line in this process: what it printed, and its exit code."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from dalle_flow.cli.app import run
from dalle_flow.images import read_picture, recipe_of
from dalle_flow.types import Recipe


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """`cli("show", "x.png")`, run in an empty folder, with weights kept there too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DALLE_FLOW_HOME", str(tmp_path / "home"))

    def call(*arguments: str) -> Said:
        code = run(arguments)
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return call


@pytest.fixture
def generate(cli: Cli, noise_flow: Path) -> Cli:
    """`generate(...)`: 'dalle-flow generate' with the flow of the plug-in."""

    def call(*arguments: str) -> Said:
        return cli("generate", "--flow", str(noise_flow), *arguments)

    return call


@pytest.fixture
def all_flow(tmp_path: Path) -> Path:
    """A flow file of the plug-in's executors, which can do every kind of round."""
    path = tmp_path / "all.yml"
    path.write_text(
        "executors: {noise: {uses: noise}, rank: {uses: bright}, repeat: {uses: repeat}, find: {uses: find-bright}}"
    )
    return path


@pytest.fixture
def round_of(cli: Cli, all_flow: Path) -> Cli:
    """`round_of("refine", "x.png", ...)`: a command with that flow."""

    def call(command: str, *arguments: str) -> Said:
        return cli(command, "--flow", all_flow.name, *arguments)

    return call


@pytest.fixture
def photo(cli: Cli, tmp_path: Path) -> Path:
    """A picture as a person brings it, without a recipe: 12 x 10, the left half dark."""
    image = Image.new("RGB", (12, 10), (200, 180, 160))
    image.paste((20, 30, 40), (0, 0, 6, 10))
    image.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def picture(round_of: Cli, tmp_path: Path) -> Path:
    """A picture with a recipe, in a folder of three."""
    assert round_of("generate", "a fox", "-n", "3", "--seed", "7").code == 0
    return tmp_path / "out" / "01.png"


@pytest.fixture
def recipes_in(tmp_path: Path) -> Callable[[str], list[Recipe]]:
    """`recipes_in("out")`: those of the pictures of a round, in the order of their files."""
    return lambda folder: [recipe_of(read_picture(path)) for path in sorted((tmp_path / folder).glob("[0-9]*.png"))]
