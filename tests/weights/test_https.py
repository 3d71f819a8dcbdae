"""Fetching from a web server on loopback: whole or not at all, resumed where it stopped, and by https alone."""

import importlib.util
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from dalle_flow.errors import FetchError
from dalle_flow.weights import https
from dalle_flow.weights.https import find_on_web, forget_download, get_from_web

spec = importlib.util.spec_from_file_location("web_server", Path(__file__).with_name("web_server.py"))
web_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(web_server)

DATA = os.urandom(3_000_001)
NOBODY = [].append  # is told


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setenv("DALLE_FLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with web_server.serving() as web:
        web.files["/a.pt"] = DATA
        yield web


@pytest.fixture
def downloads(tmp_path):
    """What lies in the folder of downloads, by how its name ends."""
    return lambda: sorted(p.suffix or "whole" for p in (tmp_path / "home" / ".downloads").glob("*") if p.name != "lock")


def fetch(web, path="/a.pt", **options):
    told = []
    found = get_from_web(web.url + path, told.append, **options)
    return found.read_bytes(), told


def test_a_file_comes_whole_and_is_kept(web, downloads):
    assert find_on_web(web.url + "/a.pt") == https.WebFile(web.url + "/a.pt", len(DATA), False)
    data, told = fetch(web)
    assert data == DATA
    assert sum(told) == len(DATA)
    assert downloads() == ["whole"]
    web.requests.clear()
    assert fetch(web) == (DATA, [])
    assert find_on_web(web.url + "/a.pt") == https.WebFile(web.url + "/a.pt", len(DATA), True)
    assert find_on_web(web.url + "/a.pt", offline=True).is_cached
    assert web.requests == []
    assert fetch(web, again=True)[0] == DATA
    assert web.asked == ["/a.pt all"]
    forget_download(web.url + "/a.pt")
    assert downloads() == []
    assert find_on_web(web.url + "/a.pt", offline=True) is None


def test_nothing_secret_is_sent(web, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    web.moved["/b.pt"] = "/a.pt"
    web.headers["Set-Cookie"] = "a=b"
    find_on_web(web.url + "/b.pt")
    fetch(web, "/b.pt")
    for _, headers in web.requests:
        assert {name.lower() for name in headers} <= {"host", "user-agent", "accept-encoding", "connection", "range"}


def test_a_cut_download_goes_on_where_it_stopped(web):
    web.cuts = [1_000_000, 500_000]
    data, told = fetch(web)
    assert data == DATA
    assert sum(told) == len(DATA)
    assert web.asked == ["/a.pt all", "/a.pt bytes=1000000-", "/a.pt bytes=1500000-"]


def test_it_goes_on_in_the_next_process_too(web, downloads):
    web.cuts = [700_000, 0, 0, 0]
    with pytest.raises(FetchError, match=r"ended early \(.*0\.7 MB came\); try again, it goes on from there"):
        fetch(web)
    assert downloads() == [".json", ".part"]
    web.requests.clear()
    data, told = fetch(web)
    assert data == DATA
    assert told[0] == 700_000
    assert sum(told) == len(DATA)
    assert web.asked == ["/a.pt bytes=700000-"]


def test_another_file_at_the_same_address_is_taken_from_its_beginning(web):
    web.cuts = [700_000, 0, 0, 0]
    with pytest.raises(FetchError):
        fetch(web)
    web.files["/a.pt"] = DATA[::-1]
    data, told = fetch(web)
    assert data == DATA[::-1]
    assert sum(told) == len(DATA)
    assert told[:2] == [700_000, -700_000]


@pytest.mark.parametrize("change", ["no ranges", "no tags"])
def test_where_it_cannot_go_on_it_begins_anew(web, change):
    web.ranges, web.tags = change != "no ranges", change != "no tags"
    web.cuts = [700_000]
    data, told = fetch(web)
    assert data == DATA
    assert sum(told) == len(DATA)


def test_a_file_with_a_known_hash_is_completed_without_a_tag(web):
    web.tags = False
    web.cuts = [700_000]
    assert fetch(web, pinned=True)[0] == DATA
    assert web.asked == ["/a.pt all", "/a.pt bytes=700000-"]


def test_a_part_that_is_longer_than_the_file_is_dropped(web):
    web.cuts = [700_000, 0, 0, 0]
    with pytest.raises(FetchError):
        fetch(web)
    web.files["/a.pt"] = DATA[:600_000]  # 416: there is nothing from 700,000 on
    data, told = fetch(web, pinned=True)
    assert data == DATA[:600_000]
    assert sum(told) == 600_000


def test_a_wrong_part_is_not_taken(web):
    web.cuts = [700_000]
    web.shift = 5
    with pytest.raises(FetchError, match="ended early"):
        fetch(web)


def test_a_server_that_sends_no_length(web, downloads):
    web.lengths = False
    assert find_on_web(web.url + "/a.pt").size == len(DATA), "of the range that was asked for"
    web.ranges = False
    assert find_on_web(web.url + "/a.pt").size is None
    web.cuts = [700_000]
    data, told = fetch(web)
    assert data == DATA, "chunks say where they end"
    assert sum(told) == len(DATA)
    web.chunked = False
    web.files["/b.pt"] = DATA
    with pytest.raises(FetchError, match="does not say how long the file is"):
        fetch(web, "/b.pt")
    assert fetch(web, "/b.pt", pinned=True)[0] == DATA
    assert downloads() == ["whole", "whole"]


@pytest.mark.parametrize(
    ("status", "cure"),
    [
        (401, "not for everybody"),
        (403, "not for everybody"),
        (404, "no such file any more"),
        (410, "no such file any more"),
        (429, "try again later"),
        (500, "try again later"),
        (503, "try again later"),
    ],
)
def test_when_the_server_says_no(web, downloads, status, cure):
    web.status["/a.pt"] = status
    with pytest.raises(FetchError, match=rf"/a\.pt: the server answered {status}: .*{cure}"):
        fetch(web)
    assert downloads() == []
    if status in (404, 410):
        assert find_on_web(web.url + "/a.pt") is None
    else:
        with pytest.raises(FetchError, match=f"answered {status}"):
            find_on_web(web.url + "/a.pt")


def test_when_nobody_is_there(web):
    for call in (find_on_web, lambda url: get_from_web(url, NOBODY)):
        with pytest.raises(FetchError, match=r"127\.0\.0\.1 cannot be reached .*ConnectionRefused.*check the network"):
            call("http://127.0.0.1:9/a.pt")


def test_https_is_spoken_where_it_is_asked_for(web):
    with pytest.raises(FetchError, match=r"SSLError"):
        find_on_web(web.url.replace("http:", "https:") + "/a.pt")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_that_nobody_vouches_for(web, tmp_path):
    """A server on loopback with a certificate of its own making: whole, of the right name, and still not trusted."""
    files = {"-keyout": tmp_path / "key.pem", "-out": tmp_path / "cert.pem"}
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *named]
    subprocess.run([*command, *(str(word) for pair in files.items() for word in pair)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["-out"], files["-keyout"])
    with web_server.serving(context) as secret:
        secret.files["/a.pt"] = DATA
        for call in (find_on_web, lambda url: get_from_web(url, NOBODY)):
            with pytest.raises(
                FetchError, match=r"127\.0\.0\.1 cannot prove who it is \(its certificate is not valid\)"
            ):
                call(secret.url + "/a.pt")
        assert secret.requests == []


def test_a_few_redirects_are_followed(web):
    web.moved |= {f"/{i}": f"/{i + 1}" for i in range(5)}
    web.moved["/4"] = "/a.pt"
    assert fetch(web, "/0")[0] == DATA
    web.moved |= {"/4": "/5", "/5": "/a.pt"}
    with pytest.raises(FetchError, match="answered 302: it sends us on too often"):
        fetch(web, "/0", again=True)
    web.moved["/round"] = "/round"
    with pytest.raises(FetchError, match="answered 302"):
        find_on_web(web.url + "/round")


@pytest.mark.parametrize(
    "place",
    ["http://example.org/a.pt", "ftp://example.org/a.pt", "file:///etc/passwd", "http://127.0.0.1.example.org/"],
)
def test_no_other_address_is_asked(web, place):
    with pytest.raises(FetchError, match="only https addresses are fetched"):
        find_on_web(place)
    web.moved["/b.pt"] = place
    with pytest.raises(FetchError, match=r"only https addresses are fetched|answered 302: .* to no https address"):
        get_from_web(web.url + "/b.pt", NOBODY)


def test_this_machine_is_not_reached_by_way_of_another():
    with pytest.raises(FetchError, match="only https"):
        https._check_address("http://127.0.0.1/a", "https://example.org/a")
    with pytest.raises(FetchError, match="password"):
        https._check_address("https://me:secret@example.org/a", "https://example.org/a")
    with pytest.raises(FetchError, match="is no address"):
        https._check_address("https://[x", "https://example.org/a")


def test_an_answer_that_is_packed_is_refused(web):
    web.headers["Content-Encoding"] = "gzip"
    with pytest.raises(FetchError, match="sends it encoded"):
        fetch(web)


def test_a_file_without_end(web, monkeypatch):
    monkeypatch.setattr(https, "MOST_BYTES", 2_000_000)
    with pytest.raises(FetchError, match="longer than"):
        fetch(web)


def test_two_at_once_do_not_spoil_one_file(web, tmp_path):
    with https._alone(tmp_path / "home" / ".downloads"), pytest.raises(FetchError, match="another process"):
        fetch(web)
    assert fetch(web)[0] == DATA


def test_a_damaged_note_costs_the_part(web, tmp_path):
    web.cuts = [700_000, 0, 0, 0]
    with pytest.raises(FetchError):
        fetch(web)
    (note,) = (tmp_path / "home" / ".downloads").glob("*.json")
    note.write_text("{")
    assert fetch(web)[0] == DATA
    assert web.asked[-1] == "/a.pt all"


def test_a_full_disk(web, monkeypatch):
    def fail(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(https, "sync", fail)
        with pytest.raises(FetchError, match="the disk is full; free some space"):
            fetch(web)
    assert fetch(web)[0] == DATA
