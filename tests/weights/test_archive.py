"""One file out of a zip archive: that one, whole, and nothing else that an archive can do."""

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from dalle_flow.errors import FetchError
from dalle_flow.weights import archive as module
from dalle_flow.weights.archive import extract

DATA = b"weights" * 1000


def packed(folder: Path, *entries: tuple[str, bytes], mode: int = 0) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, data)
    return path


@pytest.mark.parametrize("name", ["a.pth", "weights/a.pth", "deep/er/a.pth", "../../a.pth", "/etc/a.pth"])
def test_the_member_is_found_in_any_folder_and_put_where_we_say(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path, ("readme.txt", b"x"), ("a.pth/", b""), (name, DATA), ("b.pth", b"y"))
    (tmp_path / "out").mkdir()
    extract(archive, "a.pth", tmp_path / "out" / "mine.pth")
    assert (tmp_path / "out" / "mine.pth").read_bytes() == DATA
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "mine.pth", "out"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("b.pth", b"y")], r"no file of that name; it has 'b\.pth'"),
        ([], "no file of that name"),
        ([("x/a.pth", b"1"), ("y/a.pth", b"2")], "several files of that name"),
    ],
)
def test_what_is_not_there_once_is_refused(tmp_path: Path, entries: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(FetchError, match=message):
        extract(packed(tmp_path, *entries), "a.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_is_no_file(tmp_path: Path) -> None:
    archive = packed(tmp_path, ("a.pth", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777)
    with pytest.raises(FetchError, match="no plain file"):
        extract(archive, "a.pth", tmp_path / "out")
    extract(packed(tmp_path, ("a.pth", DATA), mode=stat.S_IFREG | 0o4777), "a.pth", tmp_path / "out")
    assert not (tmp_path / "out").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


def test_a_member_that_would_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path, ("a.pth", bytes(100_000)))
    monkeypatch.setattr(module, "MOST_BYTES", 99_999)
    with pytest.raises(FetchError, match="would have 100,000 bytes; at most 99,999"):
        extract(archive, "a.pth", tmp_path / "out")


def test_a_size_that_is_a_lie(tmp_path: Path) -> None:
    """The directory says 10 bytes, 100,000 are packed."""
    archive = packed(tmp_path, ("a.pth", bytes(100_000)))
    data = archive.read_bytes()
    assert data.count(struct.pack("<L", 100_000)) == 2
    archive.write_bytes(data.replace(struct.pack("<L", 100_000), struct.pack("<L", 10)))
    with pytest.raises(FetchError, match="damaged"):
        extract(archive, "a.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists() or (tmp_path / "out").stat().st_size <= 10


@pytest.mark.parametrize("damage", ["bits", "cut", "no zip", "encrypted", "empty"])
def test_damage(tmp_path: Path, damage: str) -> None:
    archive = packed(tmp_path, ("a.pth", DATA))
    data = bytearray(archive.read_bytes())
    if damage == "bits":
        at = data.index(b"a.pth") + 5
        data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    elif damage == "encrypted":
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    else:
        data = {"cut": data[:-30], "no zip": bytearray(b"<html>"), "empty": bytearray()}[damage]
    archive.write_bytes(data)
    with pytest.raises(FetchError, match=r"damaged|encrypted"):
        extract(archive, "a.pth", tmp_path / "out")
