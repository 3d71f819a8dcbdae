"""One file from a web server, for weights that are not on the Hugging Face Hub: resumed, and never half there.

What came lies in `.downloads` of the weights home until it is whole, so an interrupted download goes on where it
stopped, today or tomorrow; the server is asked to go on only if the file is still the same one.

Only https is spoken (http with this machine alone), redirects are few and checked like the first address, and nothing
secret is ever sent: no token, no cookie, no password. Proxies are those of the environment (HTTPS_PROXY).
"""

import fcntl
import hashlib
import http.client
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from ..errors import FetchError, WeightsError
from ..settings import home
from .disk import read_json, storage_error, sync, write_json

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 60  # without a single byte
MOST_REDIRECTS = 5
MOST_BYTES = 64 << 30  # no file of weights is larger; a server that never ends must not fill the disk
TRIES_WITHOUT_A_BYTE = 3  # then the person is asked to try again
LOOPBACK = ("127.0.0.1", "::1", "localhost")
RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
ENDED_EARLY = (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True)
class WebFile:
    """A file that a web server has, or that has been fetched from it already."""

    url: str
    size: int | None  # None: the server does not say
    is_cached: bool


def find_on_web(url: str, *, offline: bool = False) -> WebFile | None:
    """What the server says about a file without sending it; None where it has no such file.

    Raises:
        FetchError: the server cannot be asked, or says no.
    """
    whole, _, _ = _places(url)
    if whole.is_file():
        return WebFile(url, whole.stat().st_size, True)
    if offline:
        return None
    try:  # the first byte: some servers answer HEAD differently, or not at all
        with _open(url, {"Range": "bytes=0-0"}) as answer:
            return WebFile(url, _size_in(answer), False)
    except HTTPError as error:
        error.close()
        if error.code in (404, 410):
            return None
        raise _refused(url, error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, error) from error


def get_from_web(url: str, told: Callable[[int], None], *, again: bool = False, pinned: bool = False) -> Path:
    """The path of the whole file, downloaded if it is not there; `told` gets the bytes as they come.

    Args:
        again: download even if it is there.
        pinned: its hash is known and will be checked, so that what is there of it may be completed in any case.

    Raises:
        FetchError: the server cannot be reached or says no, or the download ended early (it goes on there next time).
    """
    whole, part, note = _places(url)
    if again:
        forget_download(url)
    if whole.is_file():
        return whole
    with _alone(whole.parent):
        known = _size_of(part)
        told(known)
        tries = 0
        while True:
            try:
                _go_on(url, part, note, told, pinned)
                break
            except HTTPError as error:
                error.close()
                raise _refused(url, error) from None
            except ENDED_EARLY as error:
                here = _size_of(part)
                tries, known = (0 if here > known else tries + 1), here
                if tries >= TRIES_WITHOUT_A_BYTE:
                    raise _ended_early(url, here, error) from None
            except URLError as error:
                raise _unreachable(url, error) from error
            except OSError as error:
                raise FetchError(f"{url}: {storage_error('keep it', part, error).message}") from error
        part.replace(whole)
        note.unlink(missing_ok=True)
    return whole


def forget_download(url: str) -> None:
    """Remove what is here of a file, whole or not."""
    for path in _places(url):
        path.unlink(missing_ok=True)


def _places(url: str) -> tuple[Path, Path, Path]:
    """Where the whole file, the part that has come, and the note about it are kept."""
    key = hashlib.sha256(url.encode()).hexdigest()[:32]
    folder = home() / ".downloads"
    return folder / key, folder / f"{key}.part", folder / f"{key}.json"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes that append to one file would spoil it, so only one downloads at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchError(f"{folder}: another process is downloading weights; wait until it is done.") from None
        yield


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _go_on(url: str, part: Path, note: Path, told: Callable[[int], None], pinned: bool) -> None:
    """Ask for what is missing and append it; returns when the file is whole."""
    have = _size_of(part)
    mark = _noted(note)
    wanted = {}
    if have and (mark or pinned):
        wanted["Range"] = f"bytes={have}-"
        if mark:  # anything else than the same file is sent from its beginning
            wanted["If-Range"] = mark
    try:
        answer = _open(url, wanted)
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()  # there is nothing behind what we have: it is of another file, or was not noticed to be whole
        told(-have)
        part.unlink()
        have, answer = 0, _open(url, {})
    with answer:
        size = _size_in(answer)
        goes_on = answer.status == 206
        if goes_on and _first_in(answer) != have:
            raise http.client.HTTPException("another part was sent than was asked for")
        if have and not goes_on:
            told(-have)
            have = 0
        if size is None and not pinned and answer.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise FetchError(f"{url}: the server does not say how long the file is, so whether it is whole is unknown.")
        write_json(note, {"url": url, "mark": _mark_of(answer)})
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(BLOCK_BYTES):
                if file.tell() + len(block) > MOST_BYTES:
                    raise FetchError(f"{url}: is longer than {MOST_BYTES >> 30} GB, which no weights are.")
                file.write(block)
                told(len(block))
            sync(file)
            have = file.tell()
    if size is not None and have != size:
        if have > size:
            told(-have)
            part.unlink()
        raise http.client.IncompleteRead(b"", None)


def _open(url: str, headers: dict[str, str]) -> Any:
    _check_address(url, url)
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        HTTPHandler(),
        HTTPSHandler(context=ssl.create_default_context()),
        HTTPDefaultErrorHandler(),
        _Redirects(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    # `identity`: a compressed answer could not be resumed, nor its size be known
    ours = {"User-Agent": "dalle-flow", "Accept-Encoding": "identity", **headers}
    answer = opener.open(Request(url, headers=ours), timeout=TIMEOUT_S)
    if (encoding := answer.headers.get("Content-Encoding", "identity")) != "identity":
        answer.close()
        raise FetchError(f"{url}: the server sends it encoded ({encoding!r:.20}), which was not asked for.")
    return answer


class _Redirects(HTTPRedirectHandler):
    """Follows a few redirects, to https only."""

    max_redirections = MOST_REDIRECTS

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request:
        _check_address(newurl, req.full_url)
        return Request(newurl, headers=dict(req.headers), method=req.get_method())  # ours: no Host of the last one


def _check_address(url: str, asked: str) -> None:
    """Refuse all but https; http is for this machine alone, and no server may send us from elsewhere to it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise FetchError(f"{asked}: leads to {url!r:.80}, which is no address.") from None
    local = parts.scheme == "http" and parts.hostname in LOOPBACK and urlsplit(asked).hostname in LOOPBACK
    if not local and parts.scheme != "https":
        raise FetchError(f"{asked}: leads to {parts.scheme}://{parts.hostname}; only https addresses are fetched.")
    if parts.username or parts.password:
        raise FetchError(f"{asked}: leads to an address with a password in it; none is ever sent.")


def _size_in(answer: Any) -> int | None:
    """Of the whole file."""
    if answer.status == 206:
        found = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        return int(found[3]) if found else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def _first_in(answer: Any) -> int | None:
    found = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _mark_of(answer: Any) -> str | None:
    """What tells this file from a later one at the same address, for If-Range; a weak tag may not stand there."""
    tag = str(answer.headers.get("ETag", ""))
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag):
        return tag
    date = str(answer.headers.get("Last-Modified", ""))
    return date if re.fullmatch(r"[A-Za-z0-9,: ]{1,40}", date) else None


def _noted(note: Path) -> str | None:
    with suppress(WeightsError):
        mark = read_json(note).get("mark") if note.is_file() else None
        return mark if isinstance(mark, str) else None
    return None


def _refused(url: str, error: HTTPError) -> FetchError:
    cures = {
        401: "it is not for everybody; get the file yourself and give its folder with --from",
        403: "it is not for everybody; get the file yourself and give its folder with --from",
        404: "the server has no such file any more; update dalle-flow, or give a folder that has it with --from",
        410: "the server has no such file any more; update dalle-flow, or give a folder that has it with --from",
        429: "the server asks us to wait; try again later",
    }
    moved = "it sends us on too often, or to no https address; update dalle-flow" if error.code < 400 else None
    return FetchError(f"{url}: the server answered {error.code}: {moved or cures.get(error.code, 'try again later')}.")


def _unreachable(url: str, error: Exception) -> FetchError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        why = "cannot prove who it is (its certificate is not valid); it is not trusted"
    else:
        brief = f"{type(reason).__name__}: {str(reason)[:100]}"
        why = f"cannot be reached ({brief}); check the network, or give a folder that has the file with --from"
    return FetchError(f"{url}: {urlsplit(url).hostname} {why}.")


def _ended_early(url: str, here: int, error: Exception) -> FetchError:
    why = f"{type(error).__name__}, {here / 1e6:,.1f} MB came"
    return FetchError(f"{url}: the download ended early ({why}); try again, it goes on from there.")
