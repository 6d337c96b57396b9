"""Validation of a storage state, its emptiness, cookie expiry and the view for Playwright. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING, NoReturn, cast

from session_reuse._state.document import check_json
from session_reuse._state.shapes import Cookie, OriginState, StorageItem
from session_reuse._state.shapes import StorageState as StorageState  # noqa: PLC0414  (many import it from here)
from session_reuse.errors import InvalidStateError

if TYPE_CHECKING:
    from playwright.async_api import StorageState as PlaywrightState

LATEST_EXPIRY = 253_402_300_799
"""The last second of the year 9999: Playwright 1.65 refuses a whole context for one cookie that expires later."""

CLOCK_DOUBT = 86_400.0
"""Seconds that the clock of a host may be ahead. Cookies that have expired longer ago are dropped."""

_PLAYWRIGHT_SECTIONS = ("localStorage", "indexedDB", "opfs")
_SAME_SITE = ("Strict", "Lax", "None")
_SECTIONS = frozenset({"cookies", "origins"})
_ITEM_SECTIONS = frozenset({"origin", "localStorage", "sessionStorage"})
_ANY_DEPTH = -60  # a database may be nested as deeply as orjson takes it


def empty_storage_state() -> StorageState:
    """Return a new state that holds nothing."""
    return {"cookies": [], "origins": []}


def validate_storage_state(value: object) -> StorageState:
    """Check the shape of a storage state and return the same object, missing sections filled in place.

    Raises:
        InvalidStateError: the shape is wrong. The message names the path and no value.
    """
    if not isinstance(value, dict):
        is_file = isinstance(value, str | PathLike)
        remedy = ": store a file with session-reuse import FILE FINGERPRINT" if is_file else ""
        remedy = ': write {"cookies": [...], "origins": []}' if isinstance(value, list) else remedy
        raise InvalidStateError(f"storage_state must be a dict, not {type(value).__name__}{remedy}")
    if not _is_plainly_right(cast("StorageState", value)):
        _check_each_part(value)
    return cast("StorageState", value)


def _is_plainly_right(state: StorageState) -> bool:
    """Return whether a state is complete and made of plain types."""
    # Runs at every save, in half the time of `_check_each_part`, which finds the path for the message.
    try:
        cookies, origins = state["cookies"], state["origins"]
        for entry in origins:
            if type(entry) is not dict or type(entry["origin"]) is not str or "indexedDB" in entry:
                return False
            if not _are_plain_items(entry["localStorage"]) or not _are_plain_items(entry.get("sessionStorage", [])):
                return False
        return _are_plain_cookies(cookies) and type(origins) is list and type(state.get("session_reuse", {})) is dict
    except (TypeError, LookupError, AttributeError):
        return False


def _are_plain_cookies(cookies: Iterable[Cookie]) -> bool:
    for cookie in cookies:
        if (
            type(cookie) is not dict
            or type(cookie["name"]) is not str
            or type(cookie["value"]) is not str
            or type(cookie["domain"]) is not str
        ):
            return False
    return type(cookies) is list


def _are_plain_items(items: Iterable[StorageItem]) -> bool:
    for item in items:
        if type(item) is not dict or type(item["name"]) is not str or type(item["value"]) is not str:
            return False
    return type(items) is list


def _check_each_part(value: dict[str, object]) -> None:
    _check_records("storage_state.cookies", value.setdefault("cookies", []), "name", "value", "domain")
    origins = _check_records("storage_state.origins", value.setdefault("origins", []), "origin")
    for index, entry in enumerate(origins):
        path = f"storage_state.origins[{index}]"
        _check_records(f"{path}.localStorage", entry.setdefault("localStorage", []), "name", "value")
        _check_records(f"{path}.sessionStorage", entry.get("sessionStorage", []), "name", "value")
        _check_records(f"{path}.indexedDB", entry.get("indexedDB", []), "name")
    if not isinstance(value.get("session_reuse", {}), dict):
        _refuse("storage_state.session_reuse", "dict", value["session_reuse"])


def _check_records(path: str, records: object, *fields: str) -> list[dict[str, object]]:
    """Return a list of records, each of which has these fields, and text in them."""
    if not isinstance(records, list):
        _refuse(path, "list", records)
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            _refuse(f"{path}[{index}]", "dict", record)
        for field in fields:
            if field not in record:
                raise InvalidStateError(f"{path}[{index}].{field} must be a string, and is missing")
            if not isinstance(record[field], str):
                _refuse(f"{path}[{index}].{field}", "string", record[field])
    return records


def check_values(state: StorageState) -> None:
    """Raise InvalidStateError, naming the place, for what JSON would change in a valid state: NaN, an Enum.

    Of cookies the expiry alone is looked at. To look at each field takes 2.5 % of a cycle of 20 KB (2026-11).
    """
    if not _are_finite(state["cookies"]):
        check_json(state["cookies"], "storage_state.cookies")
    for key, value in state.items():
        if key not in _SECTIONS:
            check_json(value, f"storage_state.{key}", _ANY_DEPTH)
    for index, entry in enumerate(state["origins"]):
        for key, value in entry.items():
            if key not in _ITEM_SECTIONS:
                check_json(value, f"storage_state.origins[{index}].{key}", _ANY_DEPTH)


def _are_finite(cookies: Iterable[Cookie]) -> bool:
    try:
        return math.isfinite(sum([cookie.get("expires", 0) for cookie in cookies]))
    except (TypeError, OverflowError):  # such as a text
        return False


def _refuse(path: str, wanted: str, value: object) -> NoReturn:
    raise InvalidStateError(f"{path} must be a {wanted}, not {type(value).__name__}")


def is_empty(state: StorageState) -> bool:
    """Return whether a valid state holds no cookie and nothing in any origin."""
    if state["cookies"] or state.get("credentials"):
        return False
    return not any(value for entry in state["origins"] for key, value in entry.items() if key != "origin")


def live_cookies(cookies: Iterable[Cookie], now: float) -> list[Cookie]:
    """Return the cookies that have not expired at `now` (unix seconds). Session cookies do not expire."""
    return [cookie for cookie in cookies if not 0 < _expiry(cookie) <= now]


def longest_cookie_life(state: StorageState, now: float) -> float | None:
    """Return the seconds until the last persistent login cookie expires, 0.0 if all have, None if there is none.

    Args:
        state: a valid state.
        now: unix seconds.
    """
    # Sites keep a login in cookies that scripts cannot read.
    expiries = [_expiry(cookie) for cookie in state["cookies"] if cookie.get("httpOnly")]
    last = max(expiries, default=-1.0)
    return max(0.0, last - now) if last > 0 else None


def _expiry(cookie: Cookie) -> float:
    """Return when a cookie expires in unix seconds, or -1 for a session cookie (missing, 0, negative or no number)."""
    expires: object = cookie.get("expires")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not expires > 0:
        return -1
    return min(expires, LATEST_EXPIRY)


def to_playwright(state: StorageState) -> PlaywrightState:
    """Return a new state with only what `new_context(storage_state=...)` of Playwright accepts.

    IndexedDB and OPFS entries are shared with `state`, not copied.
    """
    # No browser takes back a cookie of an opaque partition. Without its partition it would be sent to other sites.
    cookies = [playwright_cookie(cookie) for cookie in state["cookies"] if not cookie.get("partitionKeyOpaque")]
    # Playwright visits each origin, which takes 0.1 to 0.2 s (2026-11). So empty origins are left out.
    filled = [entry for entry in state["origins"] if any(entry.get(section) for section in _PLAYWRIGHT_SECTIONS)]
    stripped: StorageState = {"cookies": cookies, "origins": [_playwright_origin(entry) for entry in filled]}
    if state.get("credentials"):
        stripped["credentials"] = state["credentials"]
    return cast("PlaywrightState", stripped)


def playwright_cookie(cookie: Cookie) -> Cookie:
    """Return a new cookie with the fields of Playwright only."""
    plain: Cookie = {
        "name": cookie["name"],
        "value": cookie["value"],
        "domain": cookie["domain"],
        "path": _path(cookie),
        "expires": _expiry(cookie),
        "httpOnly": bool(cookie.get("httpOnly")),
        "secure": bool(cookie.get("secure")),
    }
    if cookie.get("sameSite") in _SAME_SITE:
        plain["sameSite"] = cookie["sameSite"]
    if partition := _partition(cookie):
        plain["partitionKey"] = partition[0]
        if partition[1] is not None:  # Playwright needs the bit to restore the cookie into the same partition
            plain["_crHasCrossSiteAncestor"] = partition[1]
    return plain


def is_partitioned(cookie: Cookie) -> bool:
    """Return whether a cookie is for one top-level site, or for an opaque partition: elsewhere it must not be sent."""
    return bool(cookie.get("partitionKey") or cookie.get("partitionKeyOpaque"))


def cookie_identity(cookie: Cookie) -> tuple[str, str, str, str, bool]:
    """Return the identity of a cookie: name, domain, path, top-level site and cross-site ancestor bit."""
    site, ancestor = _partition(cookie) or ("opaque" if cookie.get("partitionKeyOpaque") else "", None)
    # A partitioned cookie without the bit is restored with it set (Playwright 1.65, toChromiumCookie).
    return cookie["name"], cookie["domain"], _path(cookie), site, ancestor is not False


def _path(cookie: Cookie) -> str:
    path: object = cookie.get("path")
    return path if isinstance(path, str) and path else "/"


def _partition(cookie: Cookie) -> tuple[str, bool | None] | None:
    """Return the top-level site and the ancestor bit of a partitioned cookie, from Playwright's form or from CDP's."""
    key = cookie.get("partitionKey")
    if not key:
        return None
    site: object = key
    ancestor: object = cookie.get("_crHasCrossSiteAncestor")
    if isinstance(key, dict):
        site, ancestor = key.get("topLevelSite"), key.get("hasCrossSiteAncestor")
    return (site, ancestor if isinstance(ancestor, bool) else None) if isinstance(site, str) and site else None


def _playwright_origin(entry: OriginState) -> OriginState:
    items: list[StorageItem] = [{"name": item["name"], "value": item["value"]} for item in entry["localStorage"]]
    plain: OriginState = {"origin": entry["origin"], "localStorage": items}
    if entry.get("indexedDB"):
        plain["indexedDB"] = entry["indexedDB"]
    if entry.get("opfs"):
        plain["opfs"] = entry["opfs"]
    return plain
