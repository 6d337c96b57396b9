"""Sessions in files: our stored form, Playwright's storage_state, browser-use's."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from session_reuse._browser_session import BrowserSession
from session_reuse._state.codec import Codec
from session_reuse._state.header import MAGIC
from session_reuse._state.shapes import Document, OriginState, StorageState
from session_reuse._state.storage_state import (
    is_empty,
    playwright_cookie,
    to_playwright,
    validate_storage_state,
)
from session_reuse._stored_form import decode_session
from session_reuse.cli.cookies_txt import cookies_from_txt, cookies_txt, has_place
from session_reuse.errors import ConfigurationError, CorruptStateError, InvalidStateError

STANDARD_STREAM: Final = Path("-")
_BROWSER_USE_SECTIONS: Final = ("localStorage", "sessionStorage")


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


def as_json_file(state: StorageState, file_format: FileFormat) -> bytes:
    """Return a storage state as Playwright or browser-use reads it."""
    if file_format is FileFormat.NETSCAPE:
        return cookies_txt(state["cookies"])
    if file_format is FileFormat.PLAYWRIGHT:
        return _json(to_playwright(state))
    cookies = [playwright_cookie(cookie) for cookie in state["cookies"] if not cookie.get("partitionKey")]
    origins = [_for_browser_use(entry) for entry in state["origins"]]
    return _json({"cookies": cookies, "origins": origins})


def _json(value: object) -> bytes:
    """Return JSON in ASCII: orjson refuses the lone surrogates that localStorage may hold."""
    return json.dumps(value, indent=2).encode()


def _for_browser_use(entry: OriginState) -> dict[str, object]:
    filled = {section: items for section, items in entry.items() if section in _BROWSER_USE_SECTIONS and items}
    return {"origin": entry["origin"]} | filled


def parts_left_out(document: Document, file_format: FileFormat) -> list[str]:
    """Return what a session has and a file in this format has not, for people."""
    state = document["storage_state"]
    found = {"the agent's data": len(document["data"])}
    if file_format is FileFormat.PLAYWRIGHT:
        found["sessionStorage items"] = sum(len(entry.get("sessionStorage") or ()) for entry in state["origins"])
    else:
        found["databases"] = sum(len(entry.get("indexedDB") or ()) for entry in state["origins"])
        partitioned = sum(bool(cookie.get("partitionKey")) for cookie in state["cookies"])
        found["partitioned cookies"] = partitioned
        if file_format is FileFormat.NETSCAPE:
            found["origins with storage"] = len(state["origins"])
            found["other cookies"] = sum(not has_place(cookie) for cookie in state["cookies"]) - partitioned
    return [f"{name} ({count})" for name, count in found.items() if count]


def read_session(data: bytes, fingerprint: str | None, codec: Codec) -> tuple[BrowserSession, FileFormat]:
    """Return the session in a file of any of the formats. Without a new name, our own form keeps the name in the file.

    Raises:
        CorruptStateError: none of the formats, damaged, or sealed with other keys.
        ConfigurationError: the file does not say whose session it is, and `fingerprint` neither.
    """
    if data.startswith(MAGIC):
        inside = decode_session(data, codec)
        name = inside.fingerprint if fingerprint is None else fingerprint
        return BrowserSession(name, storage_state=inside.storage_state, data=inside.data), FileFormat.SESSION_REUSE
    try:
        value: object = json.loads(data)  # also UTF-16, a byte order mark, and lone surrogates: orjson refuses them
    except (ValueError, RecursionError):
        state, file_format = StorageState(cookies=cookies_from_txt(data), origins=[]), FileFormat.NETSCAPE
    else:
        state = _state_from_json(value)
        has_tab_storage = any("sessionStorage" in entry for entry in state["origins"])
        file_format = FileFormat.BROWSER_USE if has_tab_storage else FileFormat.PLAYWRIGHT
    if is_empty(state):
        raise CorruptStateError("the file holds no cookie and nothing of a storage")
    if not all(cookie["domain"].strip(".") for cookie in state["cookies"]):
        raise CorruptStateError("a cookie in the file has no domain")
    if fingerprint is None:
        raise ConfigurationError("the file does not say whose session it is: give a FINGERPRINT")
    return BrowserSession(fingerprint, storage_state=state), file_format


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
    same_site = _SAME_SITE.get(str(cookie.get("sameSite", "")).lower())
    flags = {name: bool(cookie.get(name, False)) for name in ("httpOnly", "secure")}
    kept = {name: cookie[name] for name in ("name", "value", "domain") if name in cookie}
    if cookie.get("partitionKey"):  # without it, the cookie would be sent to other sites
        kept["partitionKey"] = cookie["partitionKey"]
    if isinstance(cookie.get("hostOnly"), bool) and isinstance(kept.get("domain"), str):
        kept["domain"] = ("" if cookie["hostOnly"] else ".") + kept["domain"].lstrip(".")
    found = kept | flags | {"path": cookie.get("path") or "/", "expires": expires}
    return found if same_site is None else found | {"sameSite": same_site}


def read_file(path: Path) -> bytes:
    """Return what stands in a file, or on standard input."""
    return sys.stdin.buffer.read() if path == STANDARD_STREAM else path.read_bytes()


def write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file that only its owner may read, in one step.

    Raises:
        ConfigurationError: the file exists, and `replace` is false. Or it is a folder or a device.
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"{path} is a folder or a device: name a file")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".session-reuse.")  # mode 0600
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # not the name of the temporary file
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        if not replace:  # fails if the file exists, in one step. Many file systems of networks and sticks have no links
            path.touch(mode=0o600, exist_ok=False)
        try:
            Path(temporary).replace(path)
        except OSError:
            if not replace:
                path.unlink()  # it is ours, and empty
            raise
    except FileExistsError:
        raise ConfigurationError(f"{path} exists: name another file, or replace it with --force") from None
    finally:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
