"""Which stored cookies a browser will take, and in which form.

A browser refuses all cookies for one it does not like, which `Restorer.add_cookies` finds. Some it drops, or takes and never
sends, without a word (Chromium 156, 2026-11-26). Those are found here. All that cannot come back are reported.
"""

from __future__ import annotations

import re
from typing import Any, Final

from session_reuse._problem import Problem, ProblemKind
from session_reuse._state.shapes import Cookie as Cookie  # noqa: PLC0414  (the drivers import it from here)
from session_reuse._state.storage_state import playwright_cookie

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_HOST: Final = re.compile(r"\.?[^\s/:;,@?#\x00-\x20]+$|\[[0-9a-fA-F:.]+\]$")


def clean_cookies(cookies: list[Cookie], now: float) -> tuple[list[Cookie], list[Problem]]:
    """Return the cookies, of whichever tool, that a browser can take at a time in unix seconds, and the problems with the others.

    They are in Playwright's form.
    """
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
    return kept, problems


def described(cookie: Cookie) -> str:
    """Return name and domain of a cookie, for people."""
    return f"{str(cookie.get('name'))[:80]!r} of {str(cookie.get('domain'))[:80]}"


def _reason_to_reject(cookie: Cookie, plain: Cookie, now: float) -> str | None:
    if 0 < plain["expires"] <= now:
        return "expired"
    if cookie.get("partitionKeyOpaque"):  # no browser takes it back, and elsewhere it would be sent to other sites
        return "its partition is opaque"
    if _SURROGATE.search(plain["name"] + plain["value"]):
        return "a character that cookies cannot hold"
    return None if _HOST.match(plain["domain"]) else "a malformed domain"


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
