"""A small site with a login form on loopback, for the browser examples. It is not a secure one.

It has an httpOnly cookie, a token in localStorage, and a server that needs some time.
"""

from __future__ import annotations

import hashlib
import threading
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs

_PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>{title}</title>{body}"""
_FORM = '<form method="post" action="/login"><input id="user" name="user"><button id="submit">Sign in</button></form>'
_HOME = "<h1>Hello {user}</h1><script>localStorage.setItem('token', 'of-{user}')</script>"
_THINK_TIME = 0.3
"""Seconds that a login takes on the server."""


def _cookie_for(user: str) -> str:
    """Return a cookie that still works after a restart of the site."""
    return f"{user}.{hashlib.sha256(user.encode()).hexdigest()[:16]}"


class LoginSite:
    """The site, for `with`. `logins` counts how often the form was filled in."""

    def __init__(self) -> None:
        self.logins = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                user = _user(self.headers.get("Cookie", ""))
                body, title = (_HOME.format(user=user), f"Hello {user}") if user else (_FORM, "Please sign in")
                self.reply(200, _PAGE.format(title=title, body=body))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                site.logins += 1
                time.sleep(_THINK_TIME)
                cookie = f"sid={_cookie_for(form['user'][0])}; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600"
                self.reply(303, "", {"Location": "/", "Set-Cookie": cookie})

            def reply(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                content = text.encode()
                fields = {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(content))}
                for name, value in {**fields, **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """The page that greets users who are logged in, and shows the form to others."""
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        """Start the server."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


def _user(header: str) -> str | None:
    cookies = SimpleCookie(header)
    value = cookies["sid"].value if "sid" in cookies else ""
    user = value.partition(".")[0]
    return user if user and value == _cookie_for(user) else None
