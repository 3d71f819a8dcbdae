"""Named weights whose files come from web servers, alone and beside the hub's, by `fetch` as a person calls it."""

import hashlib
import importlib.util
import io
import os
import zipfile
from pathlib import Path

import pytest

from dalle_flow.errors import FetchError, WeightsError
from dalle_flow.weights import index as index_module
from dalle_flow.weights.fetch import download_size, fetch, verify
from dalle_flow.weights.index import IndexEntry, IndexFile
from dalle_flow.weights.lock import read_lock

spec = importlib.util.spec_from_file_location("web_server", Path(__file__).with_name("web_server.py"))
web_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(web_server)

UNET, TEXT = os.urandom(2_000_000), os.urandom(500_000)


def zipped(**files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"weights/{name}.pth", data)
    return made.getvalue()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DALLE_FLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home"


@pytest.fixture
def web(home):
    with web_server.serving() as web:
        web.files |= {"/unet.pt": UNET, "/text.pt": TEXT}
        yield web


@pytest.fixture
def entry(web, monkeypatch):
    """`entry(file={...}, ...)`: what the index has, under the name "glid"."""

    def make(**changes):
        files = tuple(
            IndexFile((f"{name}.pt",), url=f"{web.url}/{name}.pt", **changes.get(name, {})) for name in ("unet", "text")
        )
        made = IndexEntry("glid", "GLID", "glid3", "MIT", files + tuple(changes.get("more", ())))
        monkeypatch.setattr(index_module, "_parsed", lambda: {"glid": made})
        return made

    return make


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "lock")


WHOLE = ["glid/text.pt", "glid/unet.pt", "glid/weights.lock"]


def test_fetches_locks_and_keeps_no_second_copy(web, home, entry):
    made = entry(unet={"sha256": hashlib.sha256(UNET).hexdigest(), "size": len(UNET)})
    assert not made.is_pinned
    assert made.size_bytes is None
    assert download_size(made) == (2_500_000, 2_500_000)
    told = []
    folder = fetch("glid", progress=lambda *p: told.append(p))
    assert everything_in(home) == WHOLE
    assert (folder / "unet.pt").read_bytes() == UNET
    assert told[-1] == (2_500_000, 2_500_000)
    assert {n: f.trusted for n, f in read_lock(folder).files.items()} == {"unet.pt": "index", "text.pt": "first fetch"}
    web.requests.clear()
    assert fetch("glid") == folder
    assert web.requests == []
    assert verify("glid").files["text.pt"].sha256 == hashlib.sha256(TEXT).hexdigest()


def test_what_came_before_a_failure_is_not_fetched_again(web, home, entry):
    made = entry()
    web.cuts = [len(UNET), 100_000, 0, 0, 0]
    with pytest.raises(FetchError, match=r"/text\.pt: the download ended early .* try again"):
        fetch("glid")
    assert not (home / "glid").exists()
    assert download_size(made) == (2_500_000, 500_000)
    web.requests.clear()
    assert (fetch("glid") / "text.pt").read_bytes() == TEXT
    assert web.asked == ["/text.pt bytes=100000-"]
    assert everything_in(home) == WHOLE


def test_another_file_than_the_published_one_is_refused_and_asked_for_anew(web, home, entry):
    entry(unet={"sha256": "0" * 64})
    with pytest.raises(FetchError, match=r"unet\.pt of glid: has sha256 .*, published is 0000"):
        fetch("glid")
    assert everything_in(home) == []
    entry(unet={"size": len(UNET) + 1})
    with pytest.raises(FetchError, match=r"unet\.pt: has 2,000,000 bytes, published are 2,000,001"):
        fetch("glid")
    assert everything_in(home) == []


def test_trust_on_first_use(web, home, entry):
    entry()
    folder = fetch("glid")
    web.files["/text.pt"] = TEXT[::-1]
    with pytest.raises(FetchError, match=r"text\.pt of glid: has changed since it was first fetched"):
        fetch("glid", again=True)
    assert (folder / "text.pt").read_bytes() == TEXT
    assert verify("glid")
    entry(text={"sha256": "0" * 64})  # somebody has looked since, and it is another one
    with pytest.raises(WeightsError, match="is not the published file"):
        verify("glid")


def test_one_file_of_an_archive(web, home, entry):
    web.files["/all"] = zipped(a=TEXT, b=b"other")
    more = IndexFile(("decoder/a.pth",), url=f"{web.url}/all", member="a.pth")
    entry(more=[more])
    folder = fetch("glid")
    assert (folder / "decoder" / "a.pth").read_bytes() == TEXT
    assert everything_in(home) == ["glid/decoder/a.pth", *WHOLE]
    assert verify("glid").files["decoder/a.pth"].trusted == "first fetch"


@pytest.mark.parametrize("data", [zipped(b=b"other"), b"<html>gone</html>"])
def test_an_archive_without_it_is_not_kept(web, home, entry, data):
    web.files["/all"] = data
    entry(more=[IndexFile(("a.pth",), url=f"{web.url}/all", member="a.pth")])
    with pytest.raises(FetchError, match=r"a\.pth: the archive"):
        fetch("glid")
    web.files["/all"] = zipped(a=TEXT)
    assert (fetch("glid") / "a.pth").read_bytes() == TEXT


def test_what_is_gone(web, home, entry):
    made = entry()
    del web.files["/text.pt"]
    for call in (lambda: fetch("glid"), lambda: download_size(made)):
        with pytest.raises(FetchError, match=r"there is no text\.pt at http://127.* any more; .* with --from"):
            call()
    assert not (home / "glid").exists()


def test_offline_takes_what_has_come(web, home, entry):
    made = entry()
    with pytest.raises(FetchError, match=r"glid: unet\.pt is not here, and the network is off"):
        fetch("glid", offline=True)
    assert web.requests == []
    web.cuts = [len(UNET), 0, 0, 0]
    with pytest.raises(FetchError, match="ended early"):
        fetch("glid")
    with pytest.raises(FetchError, match=r"glid: text\.pt is not here, and the network is off"):
        download_size(made, offline=True)


def test_from_a_folder(home, entry, tmp_path, web):
    entry(more=[IndexFile(("sub/a.pth",), url=f"{web.url}/all", member="a.pth")])
    (tmp_path / "sub").mkdir()
    for name in ("unet.pt", "text.pt", "sub/a.pth"):
        (tmp_path / name).write_bytes(TEXT)
    fetch("glid", source=tmp_path)
    assert everything_in(home) == ["glid/sub/a.pth", *WHOLE]
    assert web.requests == []


def test_a_web_file_beside_one_of_the_hub_needs_both(web, home, entry, monkeypatch):
    """Both are asked before anything is fetched, so that what is missing is said before gigabytes have come."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    entry(more=[IndexFile(("vocab.txt",), repo="google-bert/bert-base-uncased")])
    with pytest.raises(FetchError, match=r"vocab\.txt"):
        fetch("glid")
    assert web.asked == []
