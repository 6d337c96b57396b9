"""A cookies.txt in the form of Netscape, as curl, wget and yt-dlp read and write it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from session_reuse._state.shapes import Cookie
from session_reuse._state.storage_state import is_partitioned, playwright_cookie
from session_reuse.errors import CorruptStateError

_HTTP_ONLY: Final = "#HttpOnly_"
_HEADER: Final = "# Netscape HTTP Cookie File\n# Written by session-reuse. It holds live logins: keep it private.\n\n"
_FIELDS: Final = 7
_UNSAFE: Final = frozenset("\t\n\r\x00")


def cookies_from_txt(data: bytes) -> list[Cookie]:
    """Return the cookies in a cookies.txt.

    Raises:
        CorruptStateError: a line is no cookie. The message has the number of the line and no value.
    """
    try:
        text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode("utf-8-sig")
    except UnicodeDecodeError as error:  # a value with a replaced character would be no login
        raise _refusal(error.object.count(b"\n", 0, error.start) + 1, "is not UTF-8") from None
    lines = text.split("\n")  # `splitlines` also cuts at form feeds and the like, which a value may hold
    return [
        _cookie(number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and (line.startswith(_HTTP_ONLY) or not line.startswith("#"))
    ]


def _cookie(number: int, line: str) -> Cookie:
    fields = line.removeprefix(_HTTP_ONLY).split("\t")
    if len(fields) == _FIELDS - 1:
        fields.append("")  # some tools leave out an empty value
    try:
        domain, subdomains, path, secure, expires, name, value = fields
        seconds = float(expires)
    except ValueError:
        raise _refusal(number, f"does not have {_FIELDS} fields") from None
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


def _refusal(number: int, reason: str) -> CorruptStateError:
    what = "the file is neither a stored session, nor JSON, nor a cookies.txt"
    return CorruptStateError(f"{what}: line {number} {reason}")


def cookies_txt(cookies: Iterable[Cookie]) -> bytes:
    """Return a cookies.txt of the cookies that have a place in it."""
    return (_HEADER + "".join(_line(cookie) for cookie in cookies if has_place(cookie))).encode()


def has_place(cookie: Cookie) -> bool:
    """Return whether a cookies.txt can hold a cookie: no partition, no tabs and line ends, no lone surrogate."""
    text = "".join((cookie["name"], cookie["value"], cookie["domain"], playwright_cookie(cookie)["path"]))
    is_unicode = text.encode(errors="replace").decode() == text
    return is_unicode and not is_partitioned(cookie) and _UNSAFE.isdisjoint(text)


def _line(cookie: Cookie) -> str:
    domain, plain = cookie["domain"], playwright_cookie(cookie)
    fields = (
        domain,
        "TRUE" if domain.startswith(".") else "FALSE",
        plain["path"],
        "TRUE" if cookie.get("secure") else "FALSE",
        str(max(0, int(plain["expires"]))),
        cookie["name"],
        cookie["value"],
    )
    return f"{_HTTP_ONLY if cookie.get('httpOnly') else ''}{chr(9).join(fields)}\n"
