"""The hash of weights: the same for the same files, and found whatever has become of its memory."""

from pathlib import Path

import pytest

from dalle_flow.errors import WeightsError
from dalle_flow.weights import identity
from dalle_flow.weights.disk import read_json
from dalle_flow.weights.identity import TOKENIZER, beside, weights_id


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


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of other contents under one name."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.pth").write_text(name)
    return tmp_path / "one" / "a.pth", tmp_path / "other" / "a.pth"


def test_files_that_change_places_are_other_weights(pair: tuple[Path, Path]) -> None:
    one, other = pair
    first = weights_id({"upscaler": one, "wdn": other})
    assert first != weights_id({"upscaler": other, "wdn": one})
    assert first != weights_id({"upscaler": [one, other]})
    assert weights_id({"upscaler": one}) != weights_id({"face": one})


def test_neither_places_nor_order_count(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = pair
    first = weights_id({"upscaler": one, "wdn": other})
    assert weights_id({"wdn": other, "upscaler": one}) == first
    assert weights_id({"upscaler": [one.parent, one], "wdn": [other]}) == first
    (tmp_path / "elsewhere").mkdir()
    assert weights_id({"upscaler": one.rename(tmp_path / "elsewhere" / "a.pth"), "wdn": other}) == first


def test_what_lies_beside_a_file(pair: tuple[Path, Path]) -> None:
    one, _ = pair
    for name in ("vocab.json", "bpe_16e6.txt.gz", "other.json"):
        one.with_name(name).write_text(name)
    one.with_name("merges.txt").mkdir()
    assert beside(one, *TOKENIZER) == [one, one.with_name("bpe_16e6.txt.gz"), one.with_name("vocab.json")]
    assert beside(one.parent, *TOKENIZER) == [one.parent]


@pytest.mark.parametrize(("name", "counts"), [("spiece.model", True), ("tokenizer.json", True), ("README.md", False)])
def test_what_counts_in_a_folder(pair: tuple[Path, Path], name: str, counts: bool) -> None:
    folder = pair[0].parent
    first = weights_id({"siglip": folder})
    (folder / name).write_text("said")
    assert (weights_id({"siglip": folder}) != first) is counts


def test_a_folder_below_does_not_count(pair: tuple[Path, Path]) -> None:
    first = weights_id({"siglip": pair[0].parent})
    (pair[0].parent / "onnx.json").mkdir()
    assert weights_id({"siglip": pair[0].parent}) == first


def test_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no such file"):
        weights_id({"siglip": tmp_path / "nothing.pt"})
