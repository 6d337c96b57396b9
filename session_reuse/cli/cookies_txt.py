"""A cookies.txt in the form of Netscape, as curl, wget and yt-dlp read and write it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from session_reuse._state.shapes import Cookie
from session_reuse.errors import CorruptStateError

_HTTP_ONLY: Final = "#HttpOnly_"
_HEADER: Final = "# Netscape HTTP Cookie File\n# Written by session-reuse. It holds live logins: keep it private.\n\n"
_FIELDS: Final = 7
_UNSAFE: Final = frozenset("\t\n\r\x00")


def looks_like_cookies_txt(data: bytes) -> bool:
    """Return whether a file is a cookies.txt: by its first line, or by a line of seven fields."""
    text = data.decode("utf-8-sig", "replace").lstrip()
    first = text.partition("\n")[0].lower()
    if first.startswith("#") and "http cookie file" in first:
        return True
    return any(line.count("\t") == _FIELDS - 1 for line in _cookie_lines(text)) and not text.startswith(("{", "["))


def cookies_from_txt(data: bytes) -> list[Cookie]:
    """Return the cookies in a cookies.txt.

    Raises:
        CorruptStateError: a line is no cookie. The message has its number and no value.
    """
    text = data.decode("utf-8-sig", "replace")
    lines = enumerate(text.splitlines(), start=1)
    return [_cookie(number, line) for number, line in lines if _is_cookie(line)]


def _cookie_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if _is_cookie(line)]


def _is_cookie(line: str) -> bool:
    return bool(line.strip()) and (not line.startswith("#") or line.startswith(_HTTP_ONLY))


def _cookie(number: int, line: str) -> Cookie:
    fields = line.removeprefix(_HTTP_ONLY).split("\t")
    if len(fields) == _FIELDS - 1:
        fields.append("")  # some tools leave out an empty value
    try:
        domain, subdomains, path, secure, expires, name, value = fields
        seconds = float(expires)
    except ValueError:
        raise CorruptStateError(f"line {number} of the cookies.txt is no cookie of {_FIELDS} fields") from None
    host = domain.lstrip(".")
    return {
        "name": name,
        "value": value,
        "domain": f".{host}" if subdomains.upper() == "TRUE" else host,
        "path": path or "/",
        "expires": seconds if 0 < seconds < math.inf else -1,
        "httpOnly": line.startswith(_HTTP_ONLY),
        "secure": secure.upper() == "TRUE",
    }


def cookies_txt(cookies: Iterable[Cookie]) -> bytes:
    """Return a cookies.txt of the cookies that have a place in it."""
    return (_HEADER + "".join(_line(cookie) for cookie in cookies if has_place(cookie))).encode()


def has_place(cookie: Cookie) -> bool:
    """Return whether a cookies.txt can hold a cookie: no partition, no tabs and line ends."""
    texts = (cookie["name"], cookie["value"], cookie["domain"], cookie.get("path", "/"))
    return not cookie.get("partitionKey") and _UNSAFE.isdisjoint("".join(texts))


def _line(cookie: Cookie) -> str:
    domain, expires = cookie["domain"], cookie.get("expires", -1)
    fields = (
        domain,
        "TRUE" if domain.startswith(".") else "FALSE",
        cookie.get("path") or "/",
        "TRUE" if cookie.get("secure") else "FALSE",
        str(int(expires) if expires and expires > 0 else 0),
        cookie["name"],
        cookie["value"],
    )
    return f"{_HTTP_ONLY if cookie.get('httpOnly') else ''}{chr(9).join(fields)}\n"
