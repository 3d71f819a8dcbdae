"""The hash of weights: the same for the same files, and found whatever has become of its memory."""

from pathlib import Path

import pytest

from dalle_flow.weights import identity
from dalle_flow.weights.disk import read_json
from dalle_flow.weights.identity import weights_id


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large enough to be remembered."""
    monkeypatch.setattr(identity, "REMEMBERED_BYTES", 1)
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"numbers")
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DALLE_FLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_hash_is_remembered(weights: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights_id({"dalle": weights})
    assert len(read_json(home / "hashes.json")) == 1
    monkeypatch.setattr(identity, "sha256_of", None)
    assert weights_id({"dalle": weights}) == first


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_a_broken_memory_does_not_stop_anything(weights: Path, home: Path, content: bytes | None) -> None:
    first = weights_id({"dalle": weights})
    (home / "hashes.json").unlink()
    if content is None:
        (home / "hashes.json").mkdir()
    else:
        (home / "hashes.json").write_bytes(content)
    assert weights_id({"dalle": weights}) == first


def test_a_memory_of_something_else_is_not_believed(weights: Path, home: Path) -> None:
    first = weights_id({"dalle": weights})
    memory = home / "hashes.json"
    memory.write_text(memory.read_text().replace(': "', ': ["').replace('"\n}', '"]\n}'))
    assert weights_id({"dalle": weights}) == first


@pytest.mark.parametrize("place", ["file", "dangling", "file/below"])
def test_a_home_that_cannot_be_used_does_not_stop_anything(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "dangling")
    monkeypatch.setenv("DALLE_FLOW_HOME", str(tmp_path / place))
    assert len(weights_id({"dalle": weights})) == 64


def test_no_home_at_all(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALLE_FLOW_HOME", "~nobody-of-that-name/x")
    assert len(weights_id({"dalle": weights})) == 64
