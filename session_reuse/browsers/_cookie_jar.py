"""Cookies between a storage state and an `http.cookiejar`: conversion, matching, changes.

A jar knows neither partitions nor host-only cookies as browsers do: Python's default policy sends a cookie of
`example.com` to every subdomain (http.cookiejar, `DomainLiberal`), and httpx and requests copy a jar without its policy
for each request. So `BoundJar.header` decides what goes out, by RFC 6265 section 5.4.
"""

from __future__ import annotations

import re
from http.cookiejar import Cookie as JarCookie
from http.cookiejar import CookieJar
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from session_reuse._browser.cookies import described
from session_reuse._browser.drivers.call_hooks import before, run_all
from session_reuse._problem import ProblemKind
from session_reuse._state.domains import is_public_suffix, is_under
from session_reuse._state.merge import merge_storage_states
from session_reuse._state.shapes import Cookie, StorageState
from session_reuse._state.storage_state import CLOCK_DOUBT, is_partitioned, live_cookies, playwright_cookie

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

_DOTLESS_SUFFIX: Final = ".local"
"""What `http.cookiejar` appends to a host without a dot, such as `localhost`."""
_PARTITIONED: Final = "partitioned, which a jar cannot hold"
_SENDABLE: Final = re.compile(r"[\t\x20-\x7e]*")
_SAME_SITE: Final = {"strict": "Strict", "lax": "Lax", "none": "None"}
_SECURE_SCHEMES: Final = frozenset({"https", "wss"})

_Key = tuple[str, str, str]


class _Filled(NamedTuple):
    """A cookie as it was in the jar at the last capture, or was put into it, and the state's record of it."""

    seen: tuple[Any, ...]
    record: Cookie


class BoundJar:
    """A jar that holds a session's cookies, and remembers which, so that a deletion differs from a stranger.

    Args:
        current: returns the client's own jar. Cookies in it are kept unless the state has the same one.
        report: gets what a jar cannot hold: kind and place, never a value.
    """

    def __init__(self, current: Callable[[], CookieJar], report: Callable[[ProblemKind, str], None]) -> None:
        self._current = current
        self._report = report
        self._filled: dict[_Key, _Filled] = {}
        self._before: dict[_Key, JarCookie] = {}
        self._put: set[_Key] = set()
        self._dotless: set[str] = {"localhost"}
        self._watched: CookieJar | None = None
        self._refused: set[str] = set()
        self._undo: list[Callable[[], None]] = []

    @property
    def _jar(self) -> CookieJar:
        jar = self._current()
        if jar is not self._watched:
            run_all(self._undo)
            self._watched = jar
            self._undo.append(before(jar, "extract_cookies", self._check))
        return jar

    @property
    def _lock(self) -> Any:
        """The lock under which the jar changes: clients are used by several threads."""
        return self._jar._cookies_lock  # type: ignore[attr-defined]  # noqa: SLF001 - that of http.cookiejar itself

    def _check(self, _: object, request: Any) -> Generator[None, object]:
        """Take out again what browsers refuse of the cookies of a response: a hook around the method that takes them in."""
        with self._lock:
            self._file_again()
            held, url = {_key(cookie): cookie for cookie in self._jar}, request.get_full_url()
            yield
            self._file_again()
            now = {_key(cookie): cookie for cookie in self._jar}
            self._refused.clear()
            for key in [each for each in held | now if now.get(each) is not held.get(each)]:
                cookie = now.get(key) or held[key]
                if reason := _why_refused(cookie, url, held):
                    record = state_cookie(cookie, None, self._dotless)
                    self._report(ProblemKind.COOKIE_NOT_CAPTURED, f"{described(record)}: {reason}")
                    self._refused.add(_pair(cookie))
                    if key in now:
                        self._jar.clear(*key)
                    if key in held:
                        self._jar.set_cookie(held[key])

    def fill(self, state: StorageState, now: float) -> None:
        """Put the live cookies of `state` into the jar, and report those it cannot hold."""
        with self._lock:
            self._before = {_key(cookie): cookie for cookie in self._jar}
            for record in live_cookies(state["cookies"], now):
                if refusal := _refusal(record):
                    self._report(ProblemKind.COOKIE_SKIPPED, f"{described(record)}: {refusal}")
                    continue
                cookie = jar_cookie(record)
                if "." not in record["domain"]:
                    self._dotless.add(record["domain"])
                self._jar.set_cookie(cookie)
                self._put.add(_key(cookie))
                self._filled[_key(cookie)] = _Filled(_seen(cookie), record)

    def empty(self) -> None:
        """Take the session's cookies out of the jar, and give back those that `fill` has replaced."""
        with self._lock:
            for cookie in list(self._jar):
                if _key(cookie) not in self._before or _key(cookie) in self._put:
                    self._jar.clear(*_key(cookie))
            for key in self._put & self._before.keys():
                self._jar.set_cookie(self._before[key])
            run_all(self._undo)

    def capture(self, state: StorageState, now: float) -> StorageState:
        """Return `state` with what changed in the jar since the last capture, or `fill`: new and changed cookies, and deletions."""
        with self._lock:
            self._file_again()
            # An expiry is no deletion: another client may have a newer cookie.
            alive = [each for each in self._filled.values() if each.seen[1] is None or each.seen[1] > int(now)]
            # The next capture begins here: a cookie that is deleted then is in `state`, and was not in the jar at `fill`.
            self._filled = {
                _key(cookie): _Filled(_seen(cookie), record)
                for cookie in self._jar
                if (record := self._record(cookie, now)) is not None
            }
            mine = [filled.record for filled in self._filled.values()]
            merged = merge_storage_states({"cookies": [each.record for each in alive]}, {"cookies": mine}, state)
            return {**merged, "cookies": live_cookies(merged["cookies"], now - CLOCK_DOUBT)}

    def others(self, present: str | None) -> list[str]:
        """Return the cookies of a Cookie header that the jar has not."""
        with self._lock:
            self._file_again()
            # What is refused is in the header of a redirect of requests, which keeps cookies of its own.
            pairs = {_pair(cookie) for cookie in self._jar if cookie.domain} | self._refused
            return [pair for pair in (present or "").split("; ") if pair and pair not in pairs]

    def header(self, url: str, others: list[str], now: float) -> str | None:
        """Return the Cookie header for a request: of the jar what a browser would send, but for the names of others, and these."""
        with self._lock:
            self._file_again()
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
            if "." not in host:
                self._dotless.add(_bracketed(host))
            effective, path = _effective(host), parts.path or "/"
            names = {pair.partition("=")[0] for pair in others}
            cookies = [cookie for cookie in self._jar if cookie.domain and cookie.name not in names]
            ours = [cookie for cookie in cookies if _goes_to(cookie, parts.scheme, effective, path, now)]
            ours.sort(key=lambda cookie: len(cookie.path), reverse=True)
            return "; ".join([*map(_pair, ours), *others]) or None

    def _file_again(self) -> None:
        """File cookies under their host alone: `http.cookiejar` takes user and password of a URL for a part of it."""
        for cookie in [cookie for cookie in self._jar if "@" in cookie.domain]:
            self._jar.clear(*_key(cookie))
            cookie.domain = cookie.domain.rpartition("@")[2]
            self._jar.set_cookie(cookie)

    def _record(self, cookie: JarCookie, now: float) -> Cookie | None:
        """Return the state's record of a cookie in the jar: the same object when nothing changed."""
        if cookie.is_expired(int(now)):
            return None
        filled = self._filled.get(_key(cookie))
        if filled is not None and filled.seen == _seen(cookie):
            return filled.record
        record = state_cookie(cookie, filled.record if filled else None, self._dotless)
        if not cookie.domain:
            self._report(ProblemKind.COOKIE_NOT_CAPTURED, f"{described(record)}: set without a domain")
            return None
        if _rest(cookie, "partitioned") is not None:
            self._report(ProblemKind.COOKIE_NOT_CAPTURED, f"{described(record)}: {_PARTITIONED}")
            return None
        return record


def jar_cookie(record: Cookie) -> JarCookie:
    """Return a jar's cookie for a cookie of a storage state. `httpOnly` and `sameSite` are kept in its rest."""
    plain = playwright_cookie(record)
    rest = {"HttpOnly": ""} if plain["httpOnly"] else {}
    if "sameSite" in plain:
        rest["SameSite"] = plain["sameSite"]
    expires = int(plain["expires"]) if plain["expires"] > 0 else None
    is_domain = plain["domain"].startswith(".")
    return JarCookie(
        version=0, name=plain["name"], value=plain["value"], port=None, port_specified=False,
        domain=_effective(plain["domain"]), domain_specified=is_domain, domain_initial_dot=is_domain,
        path=plain["path"], path_specified=True, secure=plain["secure"], expires=expires, discard=expires is None,
        comment=None, comment_url=None, rest=rest, rfc2109=False,
    )  # fmt: skip


def state_cookie(cookie: JarCookie, known: Cookie | None, dotless: set[str]) -> Cookie:
    """Return a storage state's record of a jar's cookie.

    Args:
        cookie: from the jar.
        known: the record that the cookie replaces. Its flags stay if the jar does not have them.
        dotless: hosts without a dot, which a jar stores under `<host>.local`.
    """
    before: dict[str, Any] = {**known} if known else {}
    record = {
        **before,
        "name": cookie.name,
        "value": cookie.value or "",
        "domain": _state_domain(cookie, dotless),
        "path": cookie.path,
        "expires": -1 if cookie.expires is None else cookie.expires,
        "httpOnly": _rest(cookie, "httponly") is not None or bool(before.get("httpOnly")),
        "secure": bool(cookie.secure),
    }
    same_site = _SAME_SITE.get((_rest(cookie, "samesite") or "").lower())
    record["sameSite"] = same_site or before.get("sameSite", "Lax")
    return cast("Cookie", record)


def _refusal(record: Cookie) -> str | None:
    if is_partitioned(record):
        return _PARTITIONED
    if not _SENDABLE.fullmatch(record["name"] + record["value"]):
        return "not ASCII, or with a control character, which HTTP clients refuse to send"
    return None


def _why_refused(cookie: JarCookie, url: str, held: dict[_Key, JarCookie]) -> str | None:
    """Return why browsers refuse a cookie, or its deletion, from a URL (RFC 6265bis, section 5.7)."""
    parts, name = urlsplit(url), cookie.name.lower()
    is_safe = parts.scheme in _SECURE_SCHEMES or _is_loopback(parts.hostname or "")
    if not is_safe and (cookie.secure or any(_hides(cookie, other) for other in held.values())):
        return "set over plain http, in place of a Secure one or as one"
    if cookie.domain_specified and is_public_suffix(cookie.domain.lstrip(".")):
        return "its domain is a public suffix"
    is_bound = not cookie.domain_specified and cookie.path == "/"
    if name.startswith(("__host-", "__secure-")) and not (cookie.secure and (is_bound or name.startswith("__secure-"))):
        return "its prefix forbids it"
    return None


def _hides(cookie: JarCookie, other: JarCookie) -> bool:
    """Return whether a cookie would be sent in place of a Secure one."""
    one, two = cookie.domain.lstrip("."), other.domain.lstrip(".")
    is_near = is_under(one, two) or is_under(two, one)
    return other.secure and cookie.name == other.name and is_near and _is_below(cookie.path, other.path)


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def _goes_to(cookie: JarCookie, scheme: str, host: str, path: str, now: float) -> bool:
    if cookie.is_expired(int(now)) or (cookie.secure and not (scheme in _SECURE_SCHEMES or _is_loopback(host))):
        return False
    domain = cookie.domain.lstrip(".")
    if host != domain and not (cookie.domain_specified and is_under(host, domain)):
        return False
    return _is_below(path, cookie.path)


def _is_loopback(host: str) -> bool:
    """Return whether browsers trust the host over plain HTTP, as Chromium does since 89."""
    host = host.removesuffix(_DOTLESS_SUFFIX)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _effective(host: str) -> str:
    """Return the name under which `http.cookiejar` files a host's cookies."""
    host = _bracketed(host)
    return host if "." in host else host + _DOTLESS_SUFFIX


def _state_domain(cookie: JarCookie, dotless: set[str]) -> str:
    domain = cookie.domain
    if cookie.domain_specified:
        return "." + domain.lstrip(".")
    bare = domain.removesuffix(_DOTLESS_SUFFIX)
    return bare if bare in dotless else domain


def _key(cookie: JarCookie) -> _Key:
    return cookie.domain, cookie.path, cookie.name


def _seen(cookie: JarCookie) -> tuple[Any, ...]:
    return cookie.value, cookie.expires, bool(cookie.secure), cookie.domain_specified


def _pair(cookie: JarCookie) -> str:
    return cookie.name if cookie.value is None else f"{cookie.name}={cookie.value}"


def _rest(cookie: JarCookie, name: str) -> str | None:
    """Return a nonstandard attribute in any spelling. Empty when it stands without a value, None when it is absent."""
    rest: dict[str, Any] = vars(cookie).get("_rest", {})
    return next((str(value or "") for key, value in rest.items() if key.lower() == name), None)
