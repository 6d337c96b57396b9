"""The shape of a storage state: validation, emptiness, cookie expiry, Playwright's view. Never does I/O, never names a value.

The shape is Playwright's `{"cookies": [...], "origins": [{"origin", "localStorage", "indexedDB"?}]}` plus our
`sessionStorage` per origin and one `session_reuse` block. Keys we do not know are kept as they are, at every level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from session_reuse.errors import InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = [
    "StorageState",
    "cookie_identity",
    "empty_storage_state",
    "is_empty",
    "live_cookies",
    "longest_cookie_life",
    "playwright_cookie",
    "to_playwright",
    "validate_storage_state",
]

StorageState: TypeAlias = dict[str, Any]

LATEST_EXPIRY = 253_402_300_799
"""The last second of the year 9999: Playwright 1.65 refuses a whole context for one cookie that expires later."""

_PLAYWRIGHT_SECTIONS = ("localStorage", "indexedDB", "opfs")
_SAME_SITE = ("Strict", "Lax", "None")
_ITEM_FIELDS = ("name", "value")
_COOKIE_FIELDS = ("name", "value", "domain")


def empty_storage_state() -> StorageState:
    """Return a new state that holds nothing."""
    return {"cookies": [], "origins": []}


def validate_storage_state(value: object) -> StorageState:
    """Check the shape of a storage state and return the same object, missing sections filled in place.

    Raises:
        InvalidStateError: the shape is wrong; the message names the path, never a value.
    """
    if not isinstance(value, dict):
        _refuse("storage_state", "dict", value)
    return value if _is_plainly_right(value) else _look_closely(value)


def _is_plainly_right(state: StorageState) -> bool:
    """Return whether a state is complete and made of plain types; at every save, so in half the time of a closer look."""
    try:
        cookies, origins = state["cookies"], state["origins"]
        for cookie in cookies:
            if type(cookie["domain"]) is not str:
                return False
        for entry in origins:
            if type(entry) is not dict or type(entry["origin"]) is not str or "indexedDB" in entry:
                return False
            if not _are_plain_items(entry["localStorage"]) or not _are_plain_items(entry.get("sessionStorage", [])):
                return False
        return _are_plain_items(cookies) and type(origins) is list and type(state.get("session_reuse", {})) is dict
    except (TypeError, LookupError, AttributeError):
        return False


def _are_plain_items(items: Any) -> bool:
    for item in items:
        if type(item) is not dict or type(item["name"]) is not str or type(item["value"]) is not str:
            return False
    return type(items) is list


def _look_closely(value: StorageState) -> StorageState:
    cookies = value.setdefault("cookies", [])
    origins = value.setdefault("origins", [])
    _require_list("storage_state.cookies", cookies)
    for index, cookie in enumerate(cookies):
        if not (
            isinstance(cookie, dict)
            and isinstance(cookie.get("name"), str)
            and isinstance(cookie.get("value"), str)
            and isinstance(cookie.get("domain"), str)
        ):
            _refuse_record(f"storage_state.cookies[{index}]", cookie, _COOKIE_FIELDS)
    _require_list("storage_state.origins", origins)
    for index, entry in enumerate(origins):
        _validate_origin(index, entry)
    if not isinstance(value.get("session_reuse", {}), dict):
        _refuse("storage_state.session_reuse", "dict", value["session_reuse"])
    return value


def _validate_origin(index: int, entry: Any) -> None:
    path = f"storage_state.origins[{index}]"
    if not (isinstance(entry, dict) and isinstance(entry.get("origin"), str)):
        _refuse_record(path, entry, ("origin",))
    _validate_items(path, "localStorage", entry.setdefault("localStorage", []))
    if "sessionStorage" in entry:
        _validate_items(path, "sessionStorage", entry["sessionStorage"])
    if "indexedDB" in entry:
        _require_list(f"{path}.indexedDB", entry["indexedDB"])
        for position, database in enumerate(entry["indexedDB"]):
            if not (isinstance(database, dict) and isinstance(database.get("name"), str)):
                _refuse_record(f"{path}.indexedDB[{position}]", database, ("name",))


def _validate_items(path: str, section: str, items: Any) -> None:
    if not isinstance(items, list):
        _refuse(f"{path}.{section}", "list", items)
    for index, item in enumerate(items):
        if not (isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("value"), str)):
            _refuse_record(f"{path}.{section}[{index}]", item, _ITEM_FIELDS)


def _require_list(path: str, value: Any) -> None:
    if not isinstance(value, list):
        _refuse(path, "list", value)


def _refuse_record(path: str, record: Any, fields: Iterable[str]) -> NoReturn:
    if not isinstance(record, dict):
        _refuse(path, "dict", record)
    wrong = next(field for field in fields if not isinstance(record.get(field), str))
    if wrong not in record:
        raise InvalidStateError(f"{path}.{wrong} must be a string, and is missing")
    _refuse(f"{path}.{wrong}", "string", record[wrong])


def _refuse(path: str, wanted: str, value: Any) -> NoReturn:
    raise InvalidStateError(f"{path} must be a {wanted}, not {type(value).__name__}")


def is_empty(state: StorageState) -> bool:
    """Return whether a valid state holds no cookie, nothing in any origin, and no IndexedDB copy of ours."""
    if state["cookies"] or state.get("credentials") or state.get("session_reuse", {}).get("idb_rich"):
        return False
    return not any(value for entry in state["origins"] for key, value in entry.items() if key != "origin")


def live_cookies(cookies: Iterable[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    """Return the cookies that have not expired at `now` (unix seconds); session cookies never expire."""
    return [cookie for cookie in cookies if not 0 < _expiry(cookie) <= now]


def longest_cookie_life(state: StorageState, now: float, names: Collection[str] | None = None) -> float | None:
    """Return the seconds until the last persistent login cookie dies, 0.0 when all are dead, None when there is none.

    Args:
        state: a valid state.
        now: unix seconds.
        names: the cookies that carry the login; without it, every httpOnly cookie counts.
    """
    expiries = [
        _expiry(cookie)
        for cookie in state["cookies"]
        if (cookie.get("httpOnly") if names is None else cookie["name"] in names)
    ]
    last = max(expiries, default=-1.0)
    return max(0.0, last - now) if last > 0 else None


def _expiry(cookie: dict[str, Any]) -> float:
    """Return when a cookie dies in unix seconds, -1 for a session cookie (missing, 0, negative or no number)."""
    expires = cookie.get("expires")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not expires > 0:
        return -1
    return min(expires, LATEST_EXPIRY)


def to_playwright(state: StorageState) -> dict[str, Any]:
    """Return a new state with only what `new_context(storage_state=...)` of Playwright accepts.

    Origins that hold nothing for Playwright are left out, because it visits each one (0.1 to 0.2 s, measured
    2026-11-22). IndexedDB and OPFS entries are shared with `state`, not copied. A cookie of an opaque partition is
    left out too: no browser takes it back, and without its partition it would be sent to other sites.
    """
    cookies = [playwright_cookie(cookie) for cookie in state["cookies"] if not cookie.get("partitionKeyOpaque")]
    filled = [entry for entry in state["origins"] if any(entry.get(section) for section in _PLAYWRIGHT_SECTIONS)]
    stripped = {"cookies": cookies, "origins": [_playwright_origin(entry) for entry in filled]}
    if state.get("credentials"):
        stripped["credentials"] = state["credentials"]
    return stripped


def playwright_cookie(cookie: dict[str, Any]) -> dict[str, Any]:
    """Return a new cookie with Playwright's fields only, whichever tool it came from."""
    plain = {
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
        if partition[1] is not None:
            plain["_crHasCrossSiteAncestor"] = partition[1]
    return plain


def cookie_identity(cookie: dict[str, Any]) -> tuple[str, str, str, str, bool]:
    """Return what makes two cookies the same one: name, domain, path, top-level site and cross-site ancestor bit."""
    site, ancestor = _partition(cookie) or ("opaque" if cookie.get("partitionKeyOpaque") else "", None)
    # A partitioned cookie without the bit is restored with it set (Playwright 1.65, toChromiumCookie).
    return cookie["name"], cookie["domain"], _path(cookie), site, ancestor is not False


def _path(cookie: dict[str, Any]) -> str:
    path = cookie.get("path")
    return path if isinstance(path, str) and path else "/"


def _partition(cookie: dict[str, Any]) -> tuple[str, bool | None] | None:
    """Return the top-level site and the ancestor bit of a partitioned cookie, from Playwright's form or from CDP's."""
    key = cookie.get("partitionKey")
    if not key:
        return None
    site, ancestor = key, cookie.get("_crHasCrossSiteAncestor")
    if isinstance(key, dict):
        site, ancestor = key.get("topLevelSite"), key.get("hasCrossSiteAncestor")
    return (site, ancestor if isinstance(ancestor, bool) else None) if isinstance(site, str) and site else None


def _playwright_origin(entry: dict[str, Any]) -> dict[str, Any]:
    items = [{"name": item["name"], "value": item["value"]} for item in entry.get("localStorage", ())]
    filled = {section: entry[section] for section in _PLAYWRIGHT_SECTIONS if entry.get(section)}
    return {"origin": entry["origin"], **filled, "localStorage": items}
