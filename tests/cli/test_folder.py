"""The folder of a round: what was changed while the round was made is never overwritten, and the round is not lost."""

import hashlib
import json
from pathlib import Path

import pytest

from dalle_flow.cli.folder import round_folder
from dalle_flow.errors import StorageError

NAMES = ["00.png"]
FILES = {"00.png": b"a picture", "sheet.png": b"a sheet"}


def save(folder: Path, files: dict[str, bytes], names: list[str]) -> None:
    with round_folder(folder, names) as made:
        made.save("first", files)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "round.json"}


def apart(folder: Path) -> dict[str, bytes]:
    [place] = [path for path in folder.iterdir() if path.is_dir()]
    assert place.name.startswith("round-")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents(place).items()}
    assert json.loads((place / "round.json").read_text())["files"] == hashes
    return contents(place)


@pytest.mark.parametrize("name", ["00.png", "sheet.png"])
def test_a_file_edited_meanwhile(tmp_path: Path, name: str) -> None:
    save(tmp_path, FILES, NAMES)
    new = {"00.png": b"new", "sheet.png": b"new sheet"}
    with round_folder(tmp_path, NAMES) as folder:
        (tmp_path / name).write_bytes(b"painted over")
        with pytest.raises(StorageError, match=f"{name} was changed while the pictures were made"):
            folder.save("second", new)
    assert contents(tmp_path) == {**FILES, name: b"painted over"}
    assert apart(tmp_path) == new


def test_a_file_put_there_meanwhile(tmp_path: Path) -> None:
    with round_folder(tmp_path, NAMES) as folder:
        (tmp_path / "00.png").write_bytes(b"mine")
        with pytest.raises(StorageError, match=r"00\.png was changed"):
            folder.save("first", FILES)
    assert contents(tmp_path) == {"00.png": b"mine"}
    assert not (tmp_path / "round.json").exists()
    assert apart(tmp_path) == FILES


@pytest.mark.parametrize("earlier", [True, False])
def test_a_second_run_meanwhile(tmp_path: Path, earlier: bool) -> None:
    if earlier:
        save(tmp_path, FILES, NAMES)
    theirs = {"00.png": b"theirs", "01.png": b"their second", "sheet.png": b"their sheet"}
    with round_folder(tmp_path, NAMES) as folder:
        save(tmp_path, theirs, ["00.png", "01.png"])
        with pytest.raises(StorageError, match="was changed"):
            folder.save("second", {"00.png": b"ours", "sheet.png": b"our sheet"})
    assert contents(tmp_path) == theirs
    assert set(json.loads((tmp_path / "round.json").read_text())["files"]) == set(theirs)
    assert apart(tmp_path)["00.png"] == b"ours"


def test_a_list_that_was_damaged_meanwhile(tmp_path: Path) -> None:
    with round_folder(tmp_path, NAMES) as folder:
        (tmp_path / "round.json").write_text("{")
        with pytest.raises(StorageError, match=r"round\.json was changed"):
            folder.save("first", FILES)
    assert (tmp_path / "round.json").read_text() == "{"


def test_a_file_removed_meanwhile_is_in_nobodys_way(tmp_path: Path) -> None:
    save(tmp_path, FILES, NAMES)
    with round_folder(tmp_path, NAMES) as folder:
        (tmp_path / "00.png").unlink()
        folder.save("second", {"00.png": b"new", "sheet.png": b"new sheet"})
    assert contents(tmp_path) == {"00.png": b"new", "sheet.png": b"new sheet"}
