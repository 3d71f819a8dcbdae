"""Executors by name: built in, or from any installed package by an entry point; nothing imported to list them."""

import subprocess
import sys
from pathlib import Path

import pytest

from dalle_flow.errors import UnknownNameError
from dalle_flow.registry import BUILT_IN, executor_class, executor_names
from dalle_flow.types import Kind


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's package, installed: a module, and a dist-info that names its executors."""
    (tmp_path / "their_executors.py").write_text("class Mine: kind = 'generator'\nclass Clip: kind = 'ranker'\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dalle_flow.executors]\nmine = their_executors:Mine\nclip = their_executors:Clip\n"
        "broken = their_executors:Missing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_built_in() -> None:
    assert set(BUILT_IN) <= set(executor_names())
    assert executor_names() == sorted(set(executor_names()))
    assert executor_class("clip").kind is Kind.RANKER


def test_a_plug_in_is_found_by_its_entry_point(package: Path) -> None:
    assert "mine" in executor_names()
    assert executor_class("mine").__module__ == "their_executors"


def test_a_plug_in_cannot_take_a_built_in_name(package: Path) -> None:
    """Otherwise installing a package would change what a flow file means."""
    assert executor_class("clip").__module__ == "dalle_flow.executors.clip"


def test_the_plug_in_of_the_tests(plugin: object) -> None:
    assert executor_class("noise").kind is Kind.GENERATOR


def test_an_unknown_name_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"no executor named 'clp'; did you mean 'clip'\? Known: .*dalle"):
        executor_class("clp")


def test_listing_imports_none() -> None:
    script = "import sys, dalle_flow.registry as r; r.executor_names(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not {"torch", "PIL", "pydantic", "numpy"} & set(found.stdout.split())
