"""What all tests share: the plug-in executors of tests/plugin, which need no weights, and a flow made of them."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# One thread: toy models are faster with it, by far where the cores are shared. A test that wants more says so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PLUGIN = Path(__file__).parent / "plugin"
EMBEDDED = Path(__file__).parent.parent / "dalle_flow" / "embedded"
NOISE_FLOW = "name: noise\nexecutors:\n  noise: {uses: noise}\n  rank: {uses: bright}\n"

sys.path.append(str(PLUGIN))  # installs the plug-in: its entry points are found like those of any package

Process = subprocess.Popen[str]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def plugin() -> ModuleType:
    """The module of the plug-in."""
    return importlib.import_module("noise_executors")


@pytest.fixture
def noise_flow(tmp_path: Path) -> Path:
    """A flow file of the plug-in's generator and ranker."""
    path = tmp_path / "noise.yml"
    path.write_text(NOISE_FLOW)
    return path


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`start("generate", ..., cwd=...)` starts `dalle-flow` as a process of its own, the plug-in installed."""
    started: list[Process] = []

    def begin(*arguments: str, cwd: Path = tmp_path, limits: Sequence[str] = (), **environment: str) -> Process:
        ours = {"PYTHONPATH": str(PLUGIN), "DALLE_FLOW_HOME": str(tmp_path / "home")}
        ours |= {"PYTHONDONTWRITEBYTECODE": "1"}  # where files may not grow, Python would write its own cut short
        known = {**os.environ, **ours, **environment}
        process = subprocess.Popen(
            [*limits, sys.executable, "-m", "dalle_flow", *arguments],
            cwd=cwd,
            env=known,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def command(start: Callable[..., Process]) -> Command:
    """As `start`, and waits for its end: return code, stdout, stderr."""

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, **more)
        out, error = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)

    return run


@pytest.fixture
def embedded() -> Path:
    """The embedded weights; the test is skipped, with the reason, while the package has none."""
    if not list(EMBEDDED.rglob("*.safetensors")):
        pytest.skip("dalle_flow/embedded has no weights yet")
    return EMBEDDED
