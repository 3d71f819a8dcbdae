"""A server on loopback that answers as the Hugging Face Hub does when files are fetched, and misbehaves on demand."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LARGE = 1000  # bytes from which a file is stored under its sha256, as the hub's large files are


class Hub:
    """Repositories in memory: hub.repos["owner/name"]["file"] = bytes."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.commit = "a" * 40
        self.status: dict[str, tuple[int, str]] = {}  # file -> HTTP status, X-Error-Code
        self.damaged: set[str] = set()  # files whose content is not what the headers promise
        self.cut: set[str] = set()  # files of which only half is sent
        self.requests: list[str] = []
        self.url = ""

    def find(self, path: str) -> tuple[str, bytes] | tuple[None, tuple[int, str]]:
        """/owner/name/resolve/revision/file -> its name and content, or an error."""
        parts = path.strip("/").split("/")
        if len(parts) < 5 or parts[2] != "resolve":
            return None, (404, "")
        repo, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        if name in self.status:
            return None, self.status[name]
        if repo not in self.repos:
            return None, (404, "RepoNotFound")
        if revision not in ("main", self.commit) and len(revision) != 40:
            return None, (404, "RevisionNotFound")
        if name not in self.repos[repo]:
            return None, (404, "EntryNotFound")
        return name, self.repos[repo][name]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            name, found = hub.find(self.path)
            if name is None:
                status, code = found
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            digest = hashlib.sha256(found).hexdigest()
            self.send_response(200)
            revision = self.path.split("/")[4]
            self.send_header("X-Repo-Commit", revision if len(revision) == 40 else hub.commit)
            self.send_header("ETag", f'"{digest if len(found) >= LARGE else digest[:40]}"')
            self.send_header("Content-Length", str(len(found)))
            self.end_headers()
            if with_body:
                body = b"?" * len(found) if name in hub.damaged else found
                if name in hub.cut:
                    self.close_connection = True
                    body = body[: len(body) // 2]
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def folder_as_repo(hub: Hub, repo: str, folder: Path) -> None:
    hub.repos[repo] = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
