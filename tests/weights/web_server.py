"""A server on loopback that sends files as web servers do, with ranges and redirects, and misbehaves on demand."""

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """Files in memory: web.files["/a.pt"] = bytes."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # path -> Location
    headers: dict[str, str] = field(default_factory=dict)  # more of them, in every answer
    cuts: list[int] = field(default_factory=list)  # the next answers end after so many bytes
    ranges: bool = True
    tags: bool = True  # ETag and Last-Modified
    lengths: bool = True  # Content-Length; else chunked, or closed at the end
    chunked: bool = True
    shift: int = 0  # a wrong part is sent
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        """Path and range of each request that was more than a look."""
        found = [(path, h.get("Range", "all")) for path, h in self.requests if h.get("Range") != "bytes=0-0"]
        return [f"{path} {part}" for path, part in found]


def tag_of(data: bytes) -> str:
    return f'"{len(data)}-{sum(data[:4096]) % 9973}"'


@contextmanager
def serving(certificate: ssl.SSLContext | None = None) -> Iterator[Web]:
    """With a certificate it speaks https."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            web.requests.append((self.path, dict(self.headers.items())))
            if self.path in web.moved:
                self.send_response(302)
                self.send_header("Location", web.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status = web.status.get(self.path, 200 if self.path in web.files else 404)
            if status != 200:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_file(web.files[self.path])

        def send_file(self, data: bytes) -> None:
            start, stop, status = 0, len(data), 200
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", tag_of(data)) == tag_of(data)
            if asked and web.ranges and same:
                start, status = int(asked[1]), 206
                stop = min(stop, int(asked[2]) + 1) if asked[2] else stop
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start + web.shift}-{stop - 1}/{len(data)}")
            if web.tags:
                self.send_header("ETag", tag_of(data))
            for name, value in web.headers.items():
                self.send_header(name, value)
            body = data[start:stop]
            if web.lengths:
                self.send_header("Content-Length", str(len(body)))
            elif web.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            looked = self.headers.get("Range") == "bytes=0-0"
            cut = None if looked or not web.cuts else web.cuts.pop(0)
            self.send_body(body[:cut], whole=cut is None)

        def send_body(self, body: bytes, whole: bool) -> None:
            if web.lengths or not web.chunked:
                self.wfile.write(body)
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if body else b"")
            self.wfile.write(b"0\r\n\r\n" if whole else b"")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # who hangs up is no news
    if certificate:
        server.socket = certificate.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    web.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
