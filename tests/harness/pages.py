"""A site of a test: a handler that logs nothing, and a server on a free port of loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PageHandler(BaseHTTPRequestHandler):
    """Answers requests by `respond`, which a subclass defines, and logs nothing."""

    def do_GET(self) -> None:
        """Answer a request of any method."""
        self.respond()

    do_POST = do_OPTIONS = do_GET  # noqa: N815  (names of http.server)

    def respond(self) -> None:
        """Answer by an error."""
        self.send_error(501)

    def answer(
        self, body: str | bytes = b"", *, status: int = 200, kind: str = "text/html", headers: dict[str, str] | None = None
    ) -> None:  # fmt: skip
        """Send a page."""
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        fields = {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class PageServer(ThreadingHTTPServer):
    """Serves each request in a thread."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore connections that a killed browser has dropped."""


@contextmanager
def serving(handler: type[PageHandler]) -> Iterator[int]:
    """Serve pages, and yield the port."""
    with PageServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
