"""What all tests share: the plug-in executors of tests/plugin, which need no weights, and a flow made of them."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

# One thread: toy models are faster with it, by far where the cores are shared. A test that wants more says so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PLUGIN = Path(__file__).parent / "plugin"
EMBEDDED = Path(__file__).parent.parent / "dalle_flow" / "embedded"
NOISE_FLOW = "name: noise\nexecutors:\n  noise: {uses: noise}\n  rank: {uses: bright}\n"

sys.path.append(str(PLUGIN))  # installs the plug-in: its entry points are found like those of any package

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
def command(tmp_path: Path) -> Command:
    """`command("generate", ..., cwd=...)` runs `dalle-flow` as a process of its own, the plug-in installed."""

    def run(*arguments: str, cwd: Path = tmp_path, limits: Sequence[str] = (), **environment: str) -> object:
        program = [*limits, sys.executable, "-m", "dalle_flow", *arguments]
        known = {**os.environ, "PYTHONPATH": str(PLUGIN), "DALLE_FLOW_HOME": str(tmp_path / "home"), **environment}
        return subprocess.run(
            program, cwd=cwd, env=known, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )

    return run  # type: ignore[return-value]


@pytest.fixture
def embedded() -> Path:
    """The embedded weights; the test is skipped, with the reason, while the package has none."""
    if not list(EMBEDDED.rglob("*.safetensors")):
        pytest.skip("dalle_flow/embedded has no weights yet")
    return EMBEDDED
