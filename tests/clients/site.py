"""A site with accounts on any `*.localhost` host, for logging in with real clients.

Form login, httpOnly session cookie, token in localStorage, note in sessionStorage, record in IndexedDB, logout, and a
refresh token that works once. Each page says in `document.title` what it found: the words of `Site.EVERYWHERE`.
"""

from __future__ import annotations

import json
import secrets
import threading
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

_APP = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>loading</title><body>
<h1>%(heading)s</h1>
<form method="post" action="/login"><input name="user" id="user"><button id="submit">Sign in</button></form>
<a href="/logout" id="logout">Sign out</a>
<script>
const words = [%(server)s];
if (localStorage.getItem('token')) words.push('local');
if (sessionStorage.getItem('note')) words.push('session');
const request = indexedDB.open('app', 1);
request.onupgradeneeded = () => request.result.createObjectStore('records', {keyPath: 'id'});
request.onsuccess = () => {
  const get = request.result.transaction('records').objectStore('records').get('login');
  get.onsuccess = () => {
    if (get.result && get.result.made instanceof Date) words.push('database');
    request.result.close();
    document.title = ['done', ...words].join(' ');
  };
};
</script>"""

_WELCOME = """<!doctype html><link rel="icon" href="data:,"><title>loading</title><script>
localStorage.setItem('token', 'local-%(user)s');
sessionStorage.setItem('note', 'session-%(user)s');
const request = indexedDB.open('app', 1);
request.onupgradeneeded = () => request.result.createObjectStore('records', {keyPath: 'id'});
request.onsuccess = () => {
  const transaction = request.result.transaction('records', 'readwrite');
  transaction.objectStore('records').put({id: 'login', user: '%(user)s', made: new Date()});
  transaction.oncomplete = () => { request.result.close(); document.title = 'done welcome'; };
};
</script><h1>Welcome</h1>"""

_GOODBYE = """<!doctype html><link rel="icon" href="data:,"><title>loading</title><script>
localStorage.clear(); sessionStorage.clear();
const request = indexedDB.deleteDatabase('app');
request.onsuccess = request.onerror = () => { document.title = 'done goodbye'; };
</script>"""

_ROTATE = """<!doctype html><link rel="icon" href="data:,"><title>loading</title><script>
fetch('/refresh?token=' + (localStorage.getItem('refresh') || 'first')).then(async (answer) => {
  if (answer.ok) localStorage.setItem('refresh', await answer.text());
  document.title = answer.ok ? 'done fresh' : 'done refused';
});
</script>"""

_LAST = """<!doctype html><link rel="icon" href="data:,"><title>done</title><script>
localStorage.setItem('token', 'early');
addEventListener('pagehide', () => localStorage.setItem('token', 'last'));
</script>"""

_BRIEF = """<!doctype html><title>brief</title><script>
setTimeout(() => { localStorage.setItem('token', 'brief'); window.close(); }, 100);
</script>"""


class Site:
    """The server, its accounts and what it saw."""

    EVERYWHERE = "done cookie local session database"
    WITHOUT_TAB = "done cookie local database"
    """What a page finds that was opened in a new tab: sessionStorage belongs to one tab."""
    LOGGED_OUT = "done"

    def __init__(self) -> None:
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def reset(self) -> None:
        """Forget all accounts that are signed in, and what was seen."""
        self.sessions: dict[str, str] = {}
        self.refresh_token = "first"
        self.logins = 0
        self.seen_cookies: list[tuple[str, str]] = []

    def url(self, path: str = "/", host: str = "shop") -> str:
        """Return a URL on one of the site's hosts."""
        return f"{self.origin(host)}{path}"

    def origin(self, host: str = "shop") -> str:
        """Return the origin of one of the site's hosts."""
        return f"http://{host}.localhost:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.answer(self, "")

            def do_POST(self) -> None:
                site.answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler, body: str) -> None:
        """Answer one request by its path."""
        parts = urlsplit(request.path)
        if parts.path == "/dropped":
            request.close_connection = True
            request.connection.close()
            return
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        header = request.headers.get("Cookie", "")
        self.seen_cookies.append((request.headers.get("Host", "").split(".")[0], header))
        page = {
            "/login": self._login,
            "/logout": self._logout,
            "/welcome": lambda cookies, _: _reply(_WELCOME % {"user": self._user(cookies) or "nobody"}),
            "/brief": lambda *_: _reply(_BRIEF),
            "/last": lambda *_: _reply(_LAST),
            "/sandboxed": lambda *_: _reply("<!doctype html><title>blank</title>", policy="sandbox allow-scripts"),
            "/rotate": lambda *_: _reply(_ROTATE),
            "/refresh": lambda _, query: self._refresh(query["token"]),
            "/blank": lambda *_: _reply("<!doctype html><link rel=icon href='data:,'><title>blank</title>"),
            "/me": lambda cookies, _: _reply(json.dumps({"user": self._user(cookies)})),
            "/to-other": lambda *_: (303, [("Location", self.url("/blank", host="other"))], b""),
            "/set": lambda _, query: _reply("set", cookie=query["cookie"]),
            "/set-and-go": lambda _, query: (303, [("Set-Cookie", query["cookie"]), ("Location", query["to"])], b""),
        }.get(parts.path, self._app)
        status, headers, content = page(SimpleCookie(header), {**query, "body": body})
        _write(request, status, headers, content)

    def _user(self, cookies: SimpleCookie) -> str | None:
        return self.sessions.get(cookies["sid"].value) if "sid" in cookies else None

    def _app(self, cookies: SimpleCookie, _: dict[str, str]) -> Any:
        user = self._user(cookies)
        heading = f"Signed in as {user}" if user else "Please sign in"
        return _reply(_APP % {"heading": heading, "server": "'cookie'" if user else ""})

    def _login(self, _: SimpleCookie, query: dict[str, str]) -> Any:
        user = parse_qs(query["body"]).get("user", [query.get("user", "alice")])[0]
        sid = secrets.token_hex(8)
        self.sessions[sid] = user
        self.logins += 1
        return 303, [("Set-Cookie", f"sid={sid}; Path=/; HttpOnly; SameSite=Lax"), ("Location", "/welcome")], b""

    def _logout(self, cookies: SimpleCookie, _: dict[str, str]) -> Any:
        if "sid" in cookies:
            self.sessions.pop(cookies["sid"].value, None)
        return _reply(_GOODBYE, cookie="sid=; Path=/; Max-Age=0")

    def _refresh(self, token: str) -> Any:
        if token != self.refresh_token:
            return 401, [], b"used"
        self.refresh_token = secrets.token_hex(8)
        return _reply(self.refresh_token)


def _reply(text: str, cookie: str = "", policy: str = "") -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")]
    headers += [("Content-Security-Policy", policy)] if policy else []
    return 200, headers + ([("Set-Cookie", cookie)] if cookie else []), text.encode()


def _write(request: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
    request.send_response(status)
    for name, value in headers:
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)
