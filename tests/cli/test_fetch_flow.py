"""`dalle-flow weights fetch --flow`: what it shows, what it asks, and what is there after it went wrong."""

import importlib.util
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dalle_flow.weights import index as index_module
from dalle_flow.weights.index import IndexEntry, IndexFile

Cli = Callable[..., Any]
WEIGHTS = Path(__file__).parents[1] / "weights"
CLIP, UNET, TEXT = os.urandom(3_000_000), os.urandom(1_500_000), os.urandom(400_000)


def server(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, WEIGHTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import huggingface_hub.file_download as downloads
    from huggingface_hub import close_session, constants
    from huggingface_hub.utils import _http

    with server("hub_server").serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
        hub.repos["some/clip"] = {"model.safetensors": CLIP, "config.json": b"{}"}
        yield hub
        close_session()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with server("web_server").serving() as web:
        web.files |= {"/unet.pt": UNET, "/text.pt": TEXT}
        yield web


@pytest.fixture
def flow(hub: Any, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A flow of weights from both kinds of servers; `clip` needs `words` besides."""
    clip = tuple(IndexFile((name,), repo="some/clip") for name in ("model.safetensors", "config.json"))
    entries = [
        IndexEntry("clip", "CLIP", "clip", "MIT (code)", clip, needs=("words",)),
        IndexEntry("words", "Words", "vqgan", "BSD-3-Clause", (IndexFile(("text.pt",), url=f"{web.url}/text.pt"),)),
        IndexEntry("unet", "UNet", "glid3", "OpenRAIL", (IndexFile(("unet.pt",), url=f"{web.url}/unet.pt"),)),
    ]
    monkeypatch.setattr(index_module, "_parsed", lambda: {entry.name: entry for entry in entries})
    text = "executors:\n  a: {uses: clip, weights: {clip: clip}}\n  b: {uses: clip, weights: {clip: unet/unet.pt}}\n"
    (tmp_path / "mine.yml").write_text(text)
    return "mine.yml"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A person at a terminal who types this."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda text: monkeypatch.setattr("sys.stdin", Terminal(text))


def fetched(tmp_path: Path) -> list[str]:
    home = tmp_path / "home"
    return sorted(path.name for path in home.iterdir() if not path.name.startswith(".")) if home.exists() else []


def test_shows_what_is_needed_and_fetches_when_told_to(cli: Cli, flow: str, tmp_path: Path) -> None:
    said = cli("weights", "fetch", "--flow", flow, "--yes")
    assert (said.code, said.err) == (0, "")
    rows = [" ".join(line.split()) for line in said.out.splitlines()]
    assert rows == [
        "weights size licence source",
        "clip to fetch 3 MB MIT (code) hub some/clip",
        "words to fetch 400,000 B BSD-3-Clause 127.0.0.1; not pinned",
        "unet to fetch 2 MB OpenRAIL 127.0.0.1; not pinned",
        "to fetch: 3 of 3, 5 MB",
        "not pinned: nobody has told a hash yet; the first fetch notes the one it gets, later ones must match it",
        *(f"{name}: {tmp_path / 'home' / name}" for name in ("clip", "words", "unet")),
    ]
    assert fetched(tmp_path) == ["clip", "unet", "words"]


def test_does_not_ask_when_all_is_there(cli: Cli, flow: str, web: Any, hub: Any) -> None:
    cli("weights", "fetch", "--flow", flow, "--yes")
    web.requests.clear()
    hub.requests.clear()
    said = cli("weights", "fetch", "--flow", flow)
    assert said.code == 0
    assert "to fetch: 0 of 3, 0 B" in said.out
    assert said.out.count("is here") == 3
    assert (web.requests, hub.requests) == ([], [])
    assert cli("weights", "verify").out.count("as they should be") == 3


@pytest.mark.parametrize(("text", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("maybe\nyes\n", 0)])
def test_asks(
    cli: Cli, flow: str, web: Any, tmp_path: Path, answer: Callable[[str], None], text: str, code: int
) -> None:
    answer(text)
    said = cli("weights", "fetch", "--flow", flow)
    assert said.code == code
    assert "fetch them? [y/N]" in said.out
    assert fetched(tmp_path) == ([] if code else ["clip", "unet", "words"])
    assert ("nothing was fetched" in said.out) == bool(code)
    assert bool(web.asked) == (not code)


def test_refuses_where_nobody_can_be_asked(cli: Cli, flow: str, web: Any, tmp_path: Path) -> None:
    said = cli("weights", "fetch", "--flow", flow)
    assert said.code == 2
    assert "no terminal; add --yes" in said.err
    assert "to fetch: 3 of 3" in said.out
    assert web.asked == []
    assert fetched(tmp_path) == []


def test_a_failure_says_what_is_left_and_the_next_run_goes_on(cli: Cli, flow: str, web: Any, tmp_path: Path) -> None:
    web.cuts = [len(TEXT), 500_000, 0, 0, 0]
    said = cli("weights", "fetch", "--flow", flow, "--yes")
    assert said.code == 1
    assert "/unet.pt: the download ended early" in said.err
    assert said.err.endswith("not fetched yet: unet; the same command goes on there\n")
    assert fetched(tmp_path) == ["clip", "words"]
    web.requests.clear()
    said = cli("weights", "fetch", "--flow", flow, "--yes")
    assert said.code == 0
    assert "to fetch: 1 of 3" in said.out
    assert web.asked == ["/unet.pt bytes=500000-"]
    assert (tmp_path / "home" / "unet" / "unet.pt").read_bytes() == UNET


def test_a_source_that_does_not_answer_is_said_before_anything_is_fetched(
    cli: Cli, flow: str, web: Any, tmp_path: Path
) -> None:
    web.status["/unet.pt"] = 503
    said = cli("weights", "fetch", "--flow", flow, "--yes")
    assert said.code == 1
    assert "to fetch: 3 of 3, at least 3 MB" in said.out
    assert "unknown" in said.out
    assert "size not known: http://127.0.0.1" in said.out
    assert "not fetched yet: unet;" in said.err
    assert fetched(tmp_path) == ["clip", "words"]


def test_what_is_damaged_is_mended(cli: Cli, flow: str, tmp_path: Path) -> None:
    cli("weights", "fetch", "--flow", flow, "--yes")
    (tmp_path / "home" / "unet" / "unet.pt").unlink()
    said = cli("weights", "fetch", "--flow", flow, "--yes")
    assert (said.code, "to mend" in said.out) == (0, True)
    assert (tmp_path / "home" / "unet" / "unet.pt").read_bytes() == UNET


def test_again_fetches_what_is_there(cli: Cli, flow: str, web: Any) -> None:
    cli("weights", "fetch", "--flow", flow, "--yes")
    web.requests.clear()
    said = cli("weights", "fetch", "--flow", flow, "--yes", "--again")
    assert "to fetch: 3 of 3" in said.out
    assert [path.split()[0] for path in web.asked] == ["/text.pt", "/unet.pt"]


def test_offline(cli: Cli, flow: str, web: Any, hub: Any) -> None:
    said = cli("weights", "fetch", "--flow", flow, "--yes", "--offline")
    assert said.code == 1
    assert "the network is off" in said.err
    assert (web.requests, hub.requests) == ([], [])


def test_a_flow_of_paths_needs_nothing(cli: Cli, noise_flow: Path) -> None:
    said = cli("weights", "fetch", "--flow", str(noise_flow))
    assert (said.code, said.out) == (0, "nothing to fetch: this flow names no published weights\n")
    assert cli("weights", "fetch", "--flow", "embedded").out == said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flow", "mine.yml", "clip"], "--flow takes no names"),
        (["--flow", "mine.yml", "--folder", "x"], "--flow takes no names, no --folder"),
        (["--flow", "mine.yml", "--from", "x"], "--flow takes no names"),
        (["--flow", "nope"], "no flow named 'nope'. Known: classic, embedded, modern."),
        (["--flow", "none.yml"], "none.yml: No such file"),
        ([], "Missing argument"),
    ],
)
def test_refusals(cli: Cli, flow: str, arguments: list[str], message: str) -> None:
    said = cli("weights", "fetch", *arguments)
    assert said.code == 2
    assert message in said.err


def test_a_flow_can_be_looked_at_before_it_was_fetched(cli: Cli, flow: str, tmp_path: Path) -> None:
    said = cli("executors", "--flow", flow)
    assert (said.code, said.err) == (0, "")
    assert f"weights clip: {tmp_path / 'home' / 'unet' / 'unet.pt'}" in said.out


def test_the_command_for_a_flow_is_in_the_message(cli: Cli, flow: str, tmp_path: Path) -> None:
    text = "executors:\n  noise: {uses: noise}\n  rank: {uses: clip, weights: {clip: clip}}\n"
    (tmp_path / "other.yml").write_text(text)
    said = cli("generate", "a cat", "-n", "1", "--flow", "other.yml")
    assert said.code == 1
    assert "rank: the weights clip are not on this machine" in said.err
    assert "'dalle-flow weights fetch --flow other.yml' gets all that this flow needs" in said.err
    said = cli("generate", "a cat", "-n", "1", "--flow", "other.yml", "--weights", "clip=unet")
    assert "rank: the weights unet are not on this machine" in said.err
    assert "'dalle-flow weights fetch unet' gets them" in said.err
