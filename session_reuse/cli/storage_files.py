"""Sessions in files: our stored form, Playwright's storage_state, browser-use's."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

from session_reuse._browser_session import BrowserSession
from session_reuse._state.codec import Codec
from session_reuse._state.header import MAGIC
from session_reuse._state.shapes import Cookie, Document, OriginState, StorageState
from session_reuse._state.storage_state import (
    is_empty,
    is_partitioned,
    playwright_cookie,
    to_playwright,
    validate_storage_state,
)
from session_reuse._stored_form import decode_session
from session_reuse.cli.cookies_txt import cookies_from_txt, cookies_txt, has_place
from session_reuse.errors import ConfigurationError, CorruptStateError, InvalidStateError

STANDARD_STREAM: Final = Path("-")
_PARTS: Final = {
    "localStorage": "localStorage items",
    "sessionStorage": "sessionStorage items",
    "indexedDB": "databases",
    "indexedDBRich": "databases",
    "opfs": "files",
}
"""The sections of an origin, and their words for people."""

_AS_IN_PLAYWRIGHT: Final = (
    "name", "value", "domain",
    # Without its partition, a cookie would be sent to other sites.
    "partitionKey", "partitionKeyOpaque", "_crHasCrossSiteAncestor",
)  # fmt: skip
_SAME_SITE: Final = {"strict": "Strict", "lax": "Lax", "none": "None", "no_restriction": "None"}


class FileFormat(StrEnum):
    """How a session stands in a file."""

    SESSION_REUSE = "session-reuse"
    """As in the store: sealed, with the agent's data and everything we keep beside the storage state."""
    PLAYWRIGHT = "playwright"
    """JSON for `new_context(storage_state=...)`."""
    BROWSER_USE = "browser-use"
    """JSON for `BrowserProfile(storage_state=...)`; it knows sessionStorage and no IndexedDB."""
    NETSCAPE = "netscape"
    """A cookies.txt, as curl, wget and yt-dlp read it: cookies alone."""


_SECTIONS: Final = {
    FileFormat.PLAYWRIGHT: ("localStorage", "indexedDB", "opfs"),
    FileFormat.BROWSER_USE: ("localStorage", "sessionStorage"),
    FileFormat.NETSCAPE: (),
}
"""The sections of an origin that a format has a place for."""


def as_json_file(state: StorageState, file_format: FileFormat) -> bytes:
    """Return a storage state as Playwright or browser-use reads it."""
    if file_format is FileFormat.NETSCAPE:
        return cookies_txt(state["cookies"])
    if file_format is FileFormat.PLAYWRIGHT:
        return _json(to_playwright(state))
    cookies = [playwright_cookie(cookie) for cookie in state["cookies"] if _has_place(cookie, file_format)]
    origins = [_for_browser_use(entry) for entry in state["origins"]]
    return _json({"cookies": cookies, "origins": origins})


def _json(value: object) -> bytes:
    """Return JSON in ASCII: orjson refuses the lone surrogates that localStorage may hold."""
    return json.dumps(value, indent=2).encode()


def _for_browser_use(entry: OriginState) -> dict[str, object]:
    kept = _SECTIONS[FileFormat.BROWSER_USE]
    return {"origin": entry["origin"]} | {name: items for name, items in entry.items() if name in kept and items}


def _has_place(cookie: Cookie, file_format: FileFormat) -> bool:
    if file_format is FileFormat.NETSCAPE:
        return has_place(cookie)
    return not (cookie.get("partitionKeyOpaque") if file_format is FileFormat.PLAYWRIGHT else is_partitioned(cookie))


def parts_left_out(document: Document, file_format: FileFormat) -> dict[str, int]:
    """Return what a session has and a file in this format has not: a word for people, and how many."""
    state = document["storage_state"]
    found = Counter({"the agent's data": len(document["data"])})
    missing = [section for section in _PARTS if section not in _SECTIONS[file_format]]
    for entry in cast("list[dict[str, list[object]]]", state["origins"]):
        for section in missing:
            found[_PARTS[section]] += len(entry.get(section) or ())
    if file_format is not FileFormat.PLAYWRIGHT:
        found["credentials"] = len(state.get("credentials") or ())
    for cookie in state["cookies"]:
        if not _has_place(cookie, file_format):
            found["partitioned cookies" if is_partitioned(cookie) else "other cookies"] += 1
    return {name: count for name, count in found.items() if count}


def read_session(data: bytes, fingerprint: str | None, codec: Codec) -> tuple[BrowserSession, str]:
    """Return the session in a file of any of the formats, and the name of the format.

    Without a new name, our own form keeps the name in the file.

    Raises:
        CorruptStateError: none of the formats, damaged, or sealed with other keys.
        ConfigurationError: the file does not say whose session it is, and `fingerprint` neither.
    """
    if data.startswith(MAGIC):
        inside = decode_session(BrowserSession, data, codec)
        name = inside.fingerprint if fingerprint is None else fingerprint
        return BrowserSession(name, storage_state=inside.storage_state, data=inside.data), FileFormat.SESSION_REUSE
    try:
        value: object = json.loads(data)  # also UTF-16, a byte order mark, and lone surrogates: orjson refuses them
    except (ValueError, RecursionError) as error:
        if data.lstrip()[:1] in {b"{", b"["}:
            at = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
            raise CorruptStateError(f"the file is JSON that is cut off or damaged{at}") from None
        state, file_format = StorageState(cookies=cookies_from_txt(data), origins=[]), str(FileFormat.NETSCAPE)
    else:
        state, file_format = _state_from_json(value), _format_of(value)
    if is_empty(state):
        raise CorruptStateError("the file holds no cookie and nothing of a storage")
    if not all(cookie["domain"].strip(".") for cookie in state["cookies"]):
        raise CorruptStateError("a cookie in the file has no domain")
    if fingerprint is None:
        raise ConfigurationError("the file does not say whose session it is: give a FINGERPRINT")
    return BrowserSession(fingerprint, storage_state=state), file_format


def _format_of(value: object) -> str:
    """Return the name of the format of a JSON file that holds a state."""
    if not isinstance(value, dict) or "origins" not in value:
        return "cookies"
    has_tab_storage = any("sessionStorage" in entry for entry in value["origins"])
    return FileFormat.BROWSER_USE if has_tab_storage else FileFormat.PLAYWRIGHT


def _state_from_json(value: object) -> StorageState:
    if isinstance(value, dict) and "url" in value and "origins" not in value:  # an export of the cookies of one tab
        value = value.get("cookies")
    if isinstance(value, list):  # what browser extensions export, and Selenium's get_cookies()
        value = {"cookies": [_cookie_from_array(each) for each in value], "origins": []}
    if not isinstance(value, dict) or not value.keys() & {"cookies", "origins"}:
        raise CorruptStateError("the file is JSON, but no storage_state: it has neither cookies nor origins")
    try:
        return validate_storage_state(value)
    except InvalidStateError as error:
        raise CorruptStateError(f"the file is no storage_state: {error}") from None


def _cookie_from_array(cookie: object) -> object:
    """Return a cookie of an array in Playwright's words: extensions say `expirationDate` and `no_restriction`."""
    if not isinstance(cookie, dict):
        return cookie
    expires = next(
        (cookie[name] for name in ("expires", "expirationDate", "expiry") if cookie.get(name) is not None), -1
    )
    if not isinstance(expires, int | float):  # else it would be a session cookie
        raise CorruptStateError("the expiry of a cookie in the file is not a number of unix seconds")
    same_site = _SAME_SITE.get(str(cookie.get("sameSite", "")).lower())
    flags = {name: bool(cookie.get(name, False)) for name in ("httpOnly", "secure")}
    kept = {name: cookie[name] for name in _AS_IN_PLAYWRIGHT if name in cookie}
    if isinstance(cookie.get("hostOnly"), bool) and isinstance(kept.get("domain"), str):
        kept["domain"] = ("" if cookie["hostOnly"] else ".") + kept["domain"].lstrip(".")
    found = kept | flags | {"path": cookie.get("path") or "/", "expires": expires}
    return found if same_site is None else found | {"sameSite": same_site}


def write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file that only its owner may read, in one step.

    Raises:
        ConfigurationError: the file exists, and `replace` is false. Or it is a folder or a device.
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is a folder or a device: name a file")
    if os.path.lexists(path) and not replace:
        raise ConfigurationError(f"{path} exists: name another file, or replace it with --force")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".session-reuse.")  # mode 0600
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # not the name of the temporary file
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
