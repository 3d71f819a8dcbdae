"""The command line in this process: what it printed, and its exit code."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dalle_flow.cli.app import run


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
