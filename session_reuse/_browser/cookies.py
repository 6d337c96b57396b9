"""Which stored cookies a browser will take, and in which form.

A browser refuses all cookies for one it does not like (Playwright's `new_context`, `Storage.setCookies`), and drops
some without a word. So each is looked at before, and those that cannot come back are reported.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from session_reuse._problem import Problem, ProblemKind
from session_reuse._state.shapes import Cookie as Cookie  # noqa: PLC0414  (the drivers import it from here)
from session_reuse._state.storage_state import playwright_cookie

_MAX_PAIR: Final = 4096
"""Bytes that name and value may take together (RFC 6265bis, Chromium 156)."""
_MAX_ATTRIBUTE: Final = 1024
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_HOST: Final = re.compile(r"\.?[^\s/:;,@?#\x00-\x20]+$|\[[0-9a-fA-F:.]+\]$")


class CleanCookies(NamedTuple):
    """Cookies that a browser can take, in Playwright's form, and the problems with the others."""

    cookies: list[Cookie]
    problems: list[Problem]


def clean_cookies(cookies: list[Cookie], now: float) -> CleanCookies:
    """Return the cookies, of whichever tool, that can be restored at a time in unix seconds."""
    kept: list[Cookie] = []
    problems: list[Problem] = []
    for cookie in cookies:
        plain = playwright_cookie(cookie)
        reason = _reason_to_reject(cookie, plain, now)
        if reason:
            kind = ProblemKind.COOKIE_EXPIRED if reason == "expired" else ProblemKind.COOKIE_REJECTED
            problems.append(Problem(kind, described(cookie), reason))
            continue
        # Chromium drops such a cookie without an error (156, 2026-11-22).
        if plain.get("sameSite") == "None" and not plain["secure"]:
            del plain["sameSite"]
            problems.append(Problem(ProblemKind.COOKIE_ADJUSTED, described(cookie), "SameSite=None without Secure"))
        kept.append(plain)
    return CleanCookies(kept, problems)


def described(cookie: Cookie) -> str:
    """Return name and domain of a cookie, for people."""
    return f"{str(cookie.get('name'))[:80]!r} of {str(cookie.get('domain'))[:80]}"


def _reason_to_reject(cookie: Cookie, plain: Cookie, now: float) -> str | None:
    if 0 < plain["expires"] <= now:
        return "expired"
    if cookie.get("partitionKeyOpaque"):  # no browser takes it back, and elsewhere it would be sent to other sites
        return "its partition is opaque"
    return _malformed(plain) or _broken_prefix(plain)


def _malformed(plain: Cookie) -> str | None:
    name, value, path = plain["name"], plain["value"], plain["path"]
    if not name and not value:
        return "name and value are empty"
    if _CONTROL.search(name) or _CONTROL.search(value) or ";" in name + value or "=" in name:
        return "a character that cookies cannot hold"
    if _length(name) + _length(value) > _MAX_PAIR or _length(path) > _MAX_ATTRIBUTE:
        return "too long"
    if not path.startswith("/") or _CONTROL.search(path) or ";" in path:
        return "a malformed path"
    return None if _HOST.match(plain["domain"]) else "a malformed domain"


def _broken_prefix(plain: Cookie) -> str | None:
    name = plain["name"].lower()
    if name.startswith(("__secure-", "__host-")) and not plain["secure"]:
        return "its prefix demands Secure"
    if name.startswith("__host-") and (plain["path"] != "/" or plain["domain"].startswith(".")):
        return "its prefix demands one host and path /"
    return None


def _length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def to_cdp(cookie: Cookie) -> dict[str, Any]:
    """Return a clean cookie as `Network.CookieParam`, for `Storage.setCookies` and `Network.setCookies`."""
    # Without `sourceScheme` and `sourcePort`: Chromium refuses what it exported itself when a Secure cookie was set over
    # plain http on loopback (156, 2026-11-22).
    fields = ("name", "value", "domain", "path", "httpOnly", "secure", "sameSite")
    param: dict[str, Any] = {field: value for field, value in cookie.items() if field in fields}
    if cookie.get("expires", -1) > 0:
        param["expires"] = cookie["expires"]
    if cookie.get("partitionKey"):
        param["partitionKey"] = {
            "topLevelSite": cookie["partitionKey"],
            # As Playwright restores a cookie without the bit (1.65, toChromiumCookie).
            "hasCrossSiteAncestor": cookie.get("_crHasCrossSiteAncestor", True),
        }
    return param


def from_cdp(cookie: Cookie) -> Cookie:
    """Return a `Network.Cookie` of `Storage.getCookies` as it stands in a storage state."""
    plain = playwright_cookie(cookie)
    # Playwright reports a cookie without SameSite as Lax (1.65), and both must compare as equal.
    plain.setdefault("sameSite", "Lax")
    if cookie.get("partitionKeyOpaque"):
        plain["partitionKeyOpaque"] = True
    return plain
