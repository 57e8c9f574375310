"""The page of runs that go on: served to this machine alone, made anew when a file of theirs has changed.

Two addresses are known, and both answer from memory: no path of a request reaches the file system.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from se_framework.comparison.report.content import Content
from se_framework.comparison.report.page import page, update
from se_framework.errors import ConfigError, RunDirectoryError, SEError, printable

LOOPBACK = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
"""Names of this machine by which a browser may have asked; another one is somebody's page that reaches for ours."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MOST_FILES = 50_000


class Live:
    """A page that is made anew when a file of its runs has changed, by one request at a time.

    Args:
        made: makes its content.
        watched: directories whose files it depends on.
    """

    def __init__(self, made: Callable[[], Content], watched: Iterable[Path]) -> None:
        self._made, self._watched = made, list(watched)
        self._lock = threading.Lock()
        self._seen: str | None = None
        self._content: Content | None = None

    def now(self) -> tuple[str, Content]:
        """Return the stamp of the files and the content made of them.

        What cannot be read in the midst of a write is made again at the next request; the last content stands.

        Raises:
            RunDirectoryError: there has been none yet; it says why.
        """
        with self._lock:
            seen = stamp(self._watched)
            if seen != self._seen or self._content is None:
                try:
                    self._content, self._seen = self._made(), seen
                except (SEError, OSError) as error:
                    if self._content is None:
                        raise RunDirectoryError(str(error)) from error
            return self._seen or "", self._content


def stamp(directories: Iterable[Path]) -> str:
    """Return a digest of names, sizes and times of the files in some directories and two levels below them."""
    digest, count = hashlib.sha256(), 0
    for directory in directories:
        level = [directory]
        for _ in range(3):
            below: list[Path] = []
            for folder in level:
                try:
                    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
                except OSError:
                    continue
                for entry in entries:
                    count += 1
                    if entry.name.endswith((".tmp", ".lock")) or count > MOST_FILES:
                        continue
                    try:
                        found = entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            below.append(Path(entry.path))
                            continue
                    except OSError:
                        continue
                    digest.update(f"{entry.path}\0{found.st_size}\0{found.st_mtime_ns}\n".encode("utf-8", "replace"))
            level = below
    return digest.hexdigest()[:24]


class Handler(BaseHTTPRequestHandler):
    """Answers ``/``, ``/page.json`` and nothing else."""

    server: Server
    server_version, sys_version = "se-watch", ""
    timeout = 30
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page, or with what is new of it."""
        if not self._is_ours():
            return self._say(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost alone")
        path, _, query = self.path.partition("?")
        if path not in ("/", "/page.json"):
            return self._say(HTTPStatus.NOT_FOUND, "there is nothing here but the page itself")
        try:
            seen, content = self.server.live.now()
            if path == "/":
                return self._send(HTTPStatus.OK, "text/html; charset=utf-8", page(content, True, seen).encode())
            if query == f"have={seen}":
                return self._send(HTTPStatus.NO_CONTENT, "application/json", b"")
            return self._send(HTTPStatus.OK, "application/json", update(content, seen).encode())
        except SEError as error:
            return self._say(HTTPStatus.SERVICE_UNAVAILABLE, printable(str(error)))

    do_HEAD = do_GET

    def _is_ours(self) -> bool:
        """Whether the request names this machine: a page of elsewhere whose name was rebound to it does not."""
        port = self.server.server_address[1]
        hosts = self.headers.get_all("Host") or []
        known = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        return len(hosts) == 1 and hosts[0].lower() in known

    def _say(self, status: HTTPStatus, sentence: str) -> None:
        self._send(status, "text/plain; charset=utf-8", (sentence + "\n").encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal is the user's."""


class Server(ThreadingHTTPServer):
    """A server of one live page on the loopback address.

    Args:
        live: the page.
        port: 0 for any that is free.

    Raises:
        ConfigError: the port is taken, or may not be had.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, live: Live, port: int = 0) -> None:
        self.live = live
        try:
            super().__init__((LOOPBACK, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"port={port} cannot be had ({reason}): choose another, or port=0 for a free one"
            ) from error

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of readers that went away."""
