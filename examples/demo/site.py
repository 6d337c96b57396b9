"""A small login site on loopback that answers as slowly as real sites.

A login consists of an httpOnly cookie for the pages and a token in localStorage for the API. Both are signed with a
secret. The secret and the port stay in the demo's folder, so that the sessions of an earlier run are still valid.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import threading
import time
from contextlib import suppress
from hashlib import sha256
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import parse_qs

from examples.demo.pages import ACCOUNT, LOGIN, WELCOME

PASSWORD: Final = "correct horse battery staple"
_HOST: Final = "127.0.0.1"


class Answer(NamedTuple):
    """One answer of the site."""

    status: int
    content: str
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "text/html"


class Site:
    """The site, as a context manager.

    Args:
        think: seconds before each answer.
        memory: file with the port and the secret, kept between runs.
    """

    def __init__(self, think: float, memory: Path) -> None:
        self._think = think
        self._memory = memory
        known = self._remembered()
        self._secret = bytes.fromhex(known["secret"])
        self._server = self._bound(int(known["port"]))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """Address of the site. The next run has the same one if the port is free."""
        return f"http://{_HOST}:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Start to serve."""
        record = {"port": self._server.server_port, "secret": self._secret.hex()}
        with os.fdopen(os.open(self._memory, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(record, file)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _remembered(self) -> dict[str, Any]:
        with suppress(OSError, ValueError, TypeError):
            known = json.loads(self._memory.read_bytes())
            return {"port": int(known["port"]), "secret": bytes.fromhex(known["secret"]).hex()}
        return {"port": 0, "secret": secrets.token_hex(32)}

    def _bound(self, port: int) -> ThreadingHTTPServer:
        try:
            return _Server((_HOST, port), self._handler())
        except OSError:
            return _Server((_HOST, 0), self._handler())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                _write(self, site.answer("GET", self.path, self.headers, ""))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                _write(self, site.answer("POST", self.path, self.headers, body))

            def log_message(self, *_: Any) -> None:
                return

        return Handler

    def answer(self, method: str, path: str, headers: Any, body: str) -> Answer:
        """Answer one request."""
        time.sleep(self._think)
        user = self._user(SimpleCookie(headers.get("Cookie", "")))
        if path == "/login":
            return self._login(body, headers) if method == "POST" else Answer(200, LOGIN)
        if path == "/api/me":
            return self._api(headers)
        if user is None:
            return Answer(303, "", (("Location", "/login"),))
        return Answer(200, ACCOUNT)

    def _login(self, body: str, headers: Any) -> Answer:
        form = {name: values[0] for name, values in parse_qs(body).items()}
        user = form.get("user", "")
        if not user.isalnum() or not hmac.compare_digest(form.get("password", ""), PASSWORD):
            return Answer(403, LOGIN)
        token = self._signed("token", user)
        cookie = ("Set-Cookie", f"sid={self._signed('sid', user)}; Path=/; HttpOnly; SameSite=Lax; Max-Age=604800")
        if "json" in headers.get("Accept", ""):
            return Answer(200, json.dumps({"token": token}), (cookie,), "application/json")
        return Answer(200, WELCOME.replace("TOKEN", token), (cookie,))

    def _api(self, headers: Any) -> Answer:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        user = self._verified("token", token) if scheme == "Bearer" else None
        if user is None:
            return Answer(401, "{}", kind="application/json")
        return Answer(200, json.dumps({"user": user}), kind="application/json")

    def _user(self, cookies: SimpleCookie) -> str | None:
        return self._verified("sid", cookies["sid"].value) if "sid" in cookies else None

    def _signed(self, purpose: str, user: str) -> str:
        return f"{user}.{hmac.new(self._secret, f'{purpose}:{user}'.encode(), sha256).hexdigest()}"

    def _verified(self, purpose: str, signed: str) -> str | None:
        user = signed.partition(".")[0]
        return user if hmac.compare_digest(signed.encode(), self._signed(purpose, user).encode()) else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a browser that closes ends its requests early."""


def _write(request: BaseHTTPRequestHandler, answer: Answer) -> None:
    content = answer.content.encode()
    request.send_response(answer.status)
    for name, value in answer.headers:
        request.send_header(name, value)
    request.send_header("Content-Type", f"{answer.kind}; charset=utf-8")
    request.send_header("Cache-Control", "no-store")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    with suppress(OSError):
        request.wfile.write(content)
