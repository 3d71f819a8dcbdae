"""Fetching from a hub on loopback and from folders: what arrives is checked, what fails leaves nothing."""

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dalle_flow.errors import FetchError, OptionError, UnknownNameError, WeightsError
from dalle_flow.weights import fetch as module
from dalle_flow.weights import index as index_module
from dalle_flow.weights.fetch import fetch, verify
from dalle_flow.weights.files import load_vqgan
from dalle_flow.weights.index import find_entry, index, list_weights, names_with_needs, place_of
from dalle_flow.weights.lock import read_lock

constants = pytest.importorskip("huggingface_hub.constants")
spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)

VQGAN, REPO = "vqgan-f16-16384", "dalle-mini/vqgan_imagenet_f16_16384"
BIG = bytes(range(256)) * 4000


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DALLE_FLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub on loopback, with an empty cache, and no waiting between tries."""
    import huggingface_hub.file_download as downloads
    from huggingface_hub import close_session
    from huggingface_hub.utils import _http

    with hub_server.serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
        hub.repos[REPO] = {"flax_model.msgpack": BIG, "config.json": b"{}"}
        yield hub
        close_session()


@pytest.fixture
def pinned_to_main(monkeypatch):
    """The VQGAN's entry at the branch, so that what is behind it can change."""
    entry = find_entry(VQGAN)
    files = tuple(replace(file, revision="main") for file in entry.files)
    monkeypatch.setattr(index_module, "_parsed", lambda: {VQGAN: replace(entry, revision="main", files=files)})


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def everything_in(folder):
    return (
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
    )


def test_fetch_downloads_checks_locks_and_then_does_not_ask_again(hub, home):
    told, checked = [], []
    folder = fetch(VQGAN, progress=lambda *p: told.append(p), checking=lambda *p: checked.append(p))
    assert folder == home / VQGAN
    assert (folder / "flax_model.msgpack").read_bytes() == BIG
    assert everything_in(home) == [f"{VQGAN}/{name}" for name in ("config.json", "flax_model.msgpack", "weights.lock")]
    assert told[-1] == (len(BIG) + 2, len(BIG) + 2)
    assert told == sorted(told)
    assert checked[-1] == (2, 2)
    lock = read_lock(folder)
    assert lock.files["flax_model.msgpack"].sha256 == sha256(BIG)
    assert {name: file.trusted for name, file in lock.files.items()} == {
        "flax_model.msgpack": "hub", "config.json": "first fetch",
    }  # fmt: skip
    assert lock.commits == {REPO: find_entry(VQGAN).revision}
    asked = len(hub.requests)
    assert fetch(VQGAN) == folder
    assert len(hub.requests) == asked
    assert verify(VQGAN) == verify(folder) == lock


def test_a_fetched_folder_loads(hub, home, parity):
    hub_server.folder_as_repo(hub, REPO, parity / "dalle" / "tiny_vqgan")
    assert load_vqgan(fetch(VQGAN)).config.num_codes == 96


def test_what_the_hubs_cache_has_is_not_downloaded_and_serves_offline(hub, home, tmp_path):
    fetch(VQGAN)
    gets = [request for request in hub.requests if request.startswith("GET")]
    shutil.rmtree(home)
    told = []
    fetch(VQGAN, tmp_path / "elsewhere", progress=lambda *p: told.append(p))
    assert [request for request in hub.requests if request.startswith("GET")] == gets
    assert told == []
    hub.requests.clear()
    assert everything_in(fetch(VQGAN, offline=True)) == ["config.json", "flax_model.msgpack", "weights.lock"]
    assert hub.requests == []


def test_offline_without_the_files_says_so(hub, home, monkeypatch):
    for offline in (True, False):
        if not offline:
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(FetchError, match=r"not in the hub's cache, and the network is off; fetch once"):
            fetch(VQGAN, offline=offline)
    assert hub.requests == []
    assert everything_in(home) == []


def test_optional_files_and_alternatives(hub, home):
    hub.repos["openai/clip-vit-base-patch32"] = {
        "pytorch_model.bin": BIG,
        "config.json": b"{}",
        "vocab.json": b"{}",
        "merges.txt": b"#",
        "tokenizer.json": b"[]",
    }
    folder = fetch("clip-vit-b-32")
    expected = ["config.json", "merges.txt", "pytorch_model.bin", "tokenizer.json", "vocab.json", "weights.lock"]
    assert everything_in(folder) == expected
    hub.commit = "c" * 40
    del hub.repos["openai/clip-vit-base-patch32"]["vocab.json"]
    shutil.rmtree(folder)
    with pytest.raises(FetchError, match=r"has no vocab\.json"):
        fetch("clip-vit-b-32")
    del hub.repos["openai/clip-vit-base-patch32"]["pytorch_model.bin"]
    with pytest.raises(FetchError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        fetch("clip-vit-b-32")
    assert everything_in(home) == []


def test_a_file_may_come_from_another_repository(hub, home):
    needed = {
        "flax_model.msgpack": BIG,
        "config.json": b"{}",
        "tokenizer.json": b"1",
        "vocab.json": b"2",
        "merges.txt": b"3",
    }
    hub.repos |= {"dalle-mini/dalle-mega": needed, "dalle-mini/dalle-mini": {"enwiki-words-frequency.txt": b"the 9"}}
    assert "enwiki-words-frequency.txt" in everything_in(fetch("dalle-mega"))
    assert names_with_needs(["dalle-mega", "dalle-mini"]) == ["dalle-mega", VQGAN, "dalle-mini"]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ((404, "RepoNotFound"), "no such repository, or it is private"),
        ((401, "RepoNotFound"), "no such repository, or it is private"),
        ((403, "GatedRepo"), "ask for consent; accept on http://127.0.0.1"),
        ((404, "RevisionNotFound"), "no such revision; update dalle-flow"),
        ((404, "EntryNotFound"), r"has no flax_model\.msgpack"),
        ((500, ""), "cannot be reached|answered 500"),
        ((503, ""), "cannot be reached|answered 503"),
        ((416, ""), "cannot be reached|answered 416"),
    ],
)
def test_when_the_hub_says_no_the_cure_is_named_and_nothing_is_left(hub, home, status, message):
    hub.status["flax_model.msgpack"] = status
    with pytest.raises(FetchError, match=message):
        fetch(VQGAN)
    assert everything_in(home) == []


def test_no_network_says_what_could_not_be_reached(hub, home, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"http://127\.0\.0\.1:9 cannot be reached; check the network"):
        fetch(VQGAN)
    assert everything_in(home) == []


def test_a_download_that_ends_early_leaves_nothing_and_the_next_try_works(hub, home, tmp_path):
    hub.cut.add("flax_model.msgpack")
    with pytest.raises(FetchError, match=r"download failed|ended early"):
        fetch(VQGAN)
    assert everything_in(home) == []
    assert [path for path in everything_in(tmp_path / "cache") if "incomplete" in path] == []
    hub.cut.clear()
    assert (fetch(VQGAN) / "flax_model.msgpack").read_bytes() == BIG


def test_a_damaged_download_is_dropped_so_that_the_next_try_works(hub, home):
    hub.damaged.add("flax_model.msgpack")
    with pytest.raises(
        FetchError, match=r"flax_model\.msgpack of vqgan-f16-16384: was damaged on its way .* try again"
    ):
        fetch(VQGAN)
    assert everything_in(home) == []
    hub.damaged.clear()
    assert (fetch(VQGAN) / "flax_model.msgpack").read_bytes() == BIG


def test_a_hash_in_the_index_counts_most(hub, home, monkeypatch):
    entry = find_entry(VQGAN)

    def expecting(digest):
        files = tuple(replace(file, sha256=digest) if "config.json" in file.names else file for file in entry.files)
        monkeypatch.setattr(index_module, "_parsed", lambda: {VQGAN: replace(entry, files=files)})

    expecting("0" * 64)
    with pytest.raises(FetchError, match=r"config\.json .* published is 0000"):
        fetch(VQGAN)
    assert everything_in(home) == []
    expecting(sha256(b"{}"))
    assert read_lock(fetch(VQGAN)).files["config.json"].trusted == "index"
    expecting("0" * 64)
    with pytest.raises(WeightsError, match="not the published file"):
        verify(VQGAN)


@pytest.mark.usefixtures("pinned_to_main")
def test_what_changed_since_the_first_fetch_is_refused_and_the_old_kept(hub, home):
    folder = fetch(VQGAN)
    hub.repos[REPO]["flax_model.msgpack"] = BIG[::-1]
    hub.commit = "b" * 40
    with pytest.raises(FetchError, match=r"has changed since it was first fetched .* remove the folder"):
        fetch(VQGAN, again=True)
    assert (folder / "flax_model.msgpack").read_bytes() == BIG
    verify(VQGAN)
    shutil.rmtree(folder)
    assert (fetch(VQGAN) / "flax_model.msgpack").read_bytes() == BIG[::-1]
    assert read_lock(folder).commits == {REPO: "b" * 40}


def test_again_mends_a_folder(hub, home):
    folder = fetch(VQGAN)
    (folder / "config.json").unlink()
    assert {s.entry.name: s.state for s in list_weights()}[VQGAN] == "incomplete"
    fetch(VQGAN)
    assert verify(VQGAN)
    target = folder / "flax_model.msgpack"
    target.unlink()  # it is a link to the hub's cache, which must not be changed with it
    target.write_bytes(b"!" * len(BIG))
    with pytest.raises(WeightsError, match=r"flax_model\.msgpack has sha256 .*, expected"):
        verify(VQGAN)
    fetch(VQGAN, again=True)
    assert verify(VQGAN)


def test_a_full_disk_is_noticed_before_and_while_the_files_come(hub, home, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(FetchError, match=r"0\.07 GB are needed, 0\.00 GB are free; free some space"):
        fetch(VQGAN)
    assert not any(request.startswith("GET") for request in hub.requests)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*args, **options):
        raise full

    with monkeypatch.context() as patch:
        import huggingface_hub.file_download as downloads

        patch.setattr(downloads, "http_get", fail)
        with pytest.raises(FetchError, match=r"the disk is full; free some space in .*cache"):
            fetch(VQGAN)
    for name in ("_link", "sha256_of", "write_lock"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(FetchError, match="the disk is full; free some space and try again"):
                fetch(VQGAN)
    assert everything_in(home) == []
    fetch(VQGAN)


def test_an_interruption_leaves_nothing_and_keeps_what_was_there(hub, home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_lock", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fetch(VQGAN)
    assert everything_in(home) == []
    before = everything_in(fetch(VQGAN))
    renamed = []

    def rename(self, target):
        renamed.append(self)
        if len(renamed) == 2:  # the old folder is aside, the new one not there yet
            raise KeyboardInterrupt
        return os.rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            fetch(VQGAN, again=True)
    assert everything_in(home / VQGAN) == before
    assert os.listdir(home) == [VQGAN]


@pytest.fixture
def local(tmp_path):
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "flax_model.msgpack").write_bytes(BIG)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "unrelated.txt").write_bytes(b"x")
    return folder


def test_from_a_local_folder(home, local):
    told = []
    folder = fetch(VQGAN, source=local, progress=lambda *p: told.append(p))
    assert everything_in(folder) == ["config.json", "flax_model.msgpack", "weights.lock"]
    assert told[-1] == (len(BIG) + 2, len(BIG) + 2)
    assert verify(folder).files["flax_model.msgpack"].trusted == "first fetch"
    (local / "flax_model.msgpack").unlink()  # a copy, not a link
    verify(folder)
    with pytest.raises(FetchError, match=r"has no flax_model\.msgpack, which vqgan-f16-16384 needs"):
        fetch(VQGAN, home / "other", source=local)
    with pytest.raises(FetchError, match="no such folder"):
        fetch(VQGAN, home / "other", source=local / "absent")
    assert os.listdir(home) == [VQGAN]


def test_a_folder_with_other_things_is_not_touched(home, local):
    with pytest.raises(OptionError, match="other files in it"):
        fetch(VQGAN, local, source=local)
    assert everything_in(local) == ["config.json", "flax_model.msgpack", "unrelated.txt"]


def test_verify_names_what_is_wrong(home, local, tmp_path):
    folder = fetch(VQGAN, source=local)
    (folder / "config.json").write_bytes(b"{ }")
    (folder / "flax_model.msgpack").unlink()
    with pytest.raises(
        WeightsError, match=r"flax_model\.msgpack is missing; config\.json has 3 bytes, expected 2"
    ) as error:
        verify(folder)
    assert str(folder) in str(error.value)
    with pytest.raises(WeightsError, match="no hashes are known"):
        verify(local)
    with pytest.raises(UnknownNameError, match="did you mean 'dalle-mega'"):
        verify("dalle-megga")
    for text in (
        "[]",
        "{",
        "{}",
        '{"name": "x", "files": {"../../etc/passwd": {"sha256": "", "size": 1, "trusted": ""}}}',
    ):
        (folder / "weights.lock").write_text(text)
        with pytest.raises(WeightsError):
            verify(folder)
        assert {s.entry.name: s.state for s in list_weights()}[VQGAN] == "incomplete"


def test_unknown_names_are_refused_with_the_nearest(home):
    with pytest.raises(UnknownNameError, match="did you mean 'clip-vit-l-14"):
        fetch("clip-vit-l14")


def test_the_index_is_sound(home):
    kinds = {"dalle-bart", "vqgan", "clip", "siglip", "glid3", "stable", "diffusers", "upscaler", "clipseg"}
    for name, entry in index().items():
        assert entry.kind in kinds
        assert entry.licence
        assert all(need in index() for need in entry.needs)
        names = [name for file in entry.files for name in file.names]
        assert len(names) == len(set(names))
        assert all(Path(name).parts and not Path(name).is_absolute() and ".." not in name for name in names)
        assert name == entry.name
        for file in entry.files:
            assert (file.repo is None) != (file.url is None), "from one place"
            assert file.repo is None or file.repo.count("/") == 1
            assert file.url is None or (file.url.startswith("https://") and len(file.names) == 1 and not file.optional)
            assert file.sha256 is None or (len(file.sha256) == 64 and file.sha256 == file.sha256.lower())
            assert file.member is None or file.url
    assert {status.state for status in list_weights()} == {"absent"}
    assert not home.exists()


def test_a_name_is_never_mistaken_for_a_path(home, tmp_path):
    assert place_of("dalle-mega", tmp_path) == home / "dalle-mega"
    assert place_of("glid3-xl/bert.pt", tmp_path) == home / "glid3-xl" / "bert.pt"
    (tmp_path / "dalle-mega").mkdir()
    assert place_of("dalle-mega", tmp_path) == home / "dalle-mega"
    assert place_of("./dalle-mega", tmp_path) == tmp_path / "dalle-mega"
    assert place_of("mega/dalle-mega", tmp_path) == tmp_path / "mega" / "dalle-mega"
    assert place_of("/x", tmp_path) == Path("/x")
    assert place_of("~/x", tmp_path) == Path.home() / "x"
    for wrong in ("", "dalle-mega/../x", "dalle-mega//etc", "~nobody-of-that-name/x", "a\0b"):
        with pytest.raises(OptionError, match="must be a path or the name of weights"):
            place_of(wrong, tmp_path)


SCRIPT = """
import json, sys
from dalle_flow.errors import FetchError
from dalle_flow.weights.fetch import fetch
try:
    print(fetch(sys.argv[1]))
except FetchError as error:
    print("refused:", error)
"""


def test_the_environment_of_the_hub_is_honoured(hub, tmp_path):
    """In a process of its own: HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and DALLE_FLOW_HOME as a person sets them."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "DALLE_FLOW_HOME": str(tmp_path / "a"),
    }
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)

    def run(**more):
        command = [sys.executable, "-c", SCRIPT, VQGAN]
        return subprocess.run(
            command, env=environment | more, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert run(HF_HUB_OFFLINE="1").startswith("refused:")
    assert run() == str(tmp_path / "a" / VQGAN)
    assert (tmp_path / "hf" / "hub").is_dir()
    assert run(HF_HUB_OFFLINE="1", DALLE_FLOW_HOME=str(tmp_path / "b")) == str(tmp_path / "b" / VQGAN)
    assert json.loads((tmp_path / "b" / VQGAN / "weights.lock").read_text())["commits"] == {
        REPO: find_entry(VQGAN).revision
    }


def test_a_folder_that_is_a_link_stays_one(home, tmp_path):
    local, disk = tmp_path / "local", tmp_path / "disk"
    local.mkdir()
    for name, data in (("config.json", b"{}"), ("flax_model.msgpack", b"x")):
        (local / name).write_bytes(data)
    home.mkdir()
    (home / VQGAN).symlink_to(disk)
    for again in (False, True):  # first into nothing, then in place of what is there
        folder = fetch(VQGAN, source=local, again=again)
        assert folder == home / VQGAN
        assert folder.is_symlink()
        assert everything_in(disk) == ["config.json", "flax_model.msgpack", "weights.lock"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "home", "local"]
    assert [path.name for path in home.iterdir()] == [VQGAN]
