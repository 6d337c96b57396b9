"""The three-way merge of two saves of one session, and whether two documents say the same. Pure.

`base` is what `mine` started from, `theirs` is what another holder has saved meanwhile. Each item that `mine` changed,
added or deleted against `base` is taken from `mine`, every other item from `theirs`. So no update is lost and deletions
stay. If both changed one item, `mine` wins, because it is the later save. The order is that of `theirs`, then the new
items of `mine`. Of duplicates the last one wins. Results share no dict and no list with the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeGuard, TypeVar, cast

from session_reuse._state.shapes import Cookie, Document, Json, JsonObject, OriginState, StorageState
from session_reuse._state.storage_state import cookie_identity, live_cookies, playwright_cookie

K = TypeVar("K")
V = TypeVar("V")
_CookieKey: TypeAlias = tuple[str, str, str, str, bool]

_ABSENT: Any = object()

_DATABASES = ("indexedDB", "indexedDBRich")
"""Two forms of databases. One value may move a database from one to the other, so both are indexed as one section."""
_WEB_STORAGES = ("localStorage", "sessionStorage")
_NAMED_SECTIONS = (*_WEB_STORAGES, _DATABASES[0])
"""The sections of an origin that are lists of named items."""

_CAPTURE_NOTES = ("captured_at", "source")
"""The keys of the `session_reuse` block that describe the capture and not the captured state."""

_BROWSER_NOTES = (
    "partitionKey",  # part of a cookie's identity, see cookie_identity
    "_crHasCrossSiteAncestor",
    "partitionKeyOpaque",
    "priority",
    "sameParty",
    "session",
    "size",
    "sourcePort",
    "sourceScheme",
)
"""Fields of a cookie that some tools report and others drop. A difference in them is no change."""


class _Index(NamedTuple):
    cookies: dict[_CookieKey, Cookie]
    origins: dict[str, JsonObject]
    """Origin -> section -> name -> item, of a database {form: item}. A section that is not a list of named items is one unit."""
    rest: JsonObject
    """The other keys of the top level."""


def merge_documents(base: object, mine: object, theirs: object) -> Document:
    """Return a new document with the changes of both."""
    sides = [_dict(side) for side in (base, mine, theirs)]
    merged = {
        **_merge_keyed([_without(side, "storage_state", "data") for side in sides]),
        "storage_state": _merge_states([side.get("storage_state") for side in sides]),
        "data": _merge_keyed([_dict(side.get("data")) for side in sides]),
    }
    return cast("Document", _copied(merged))


def without_expired(base: Document, mine: Document, theirs: Document, now: float) -> Document:
    """Return the base without the expired cookies that one side has dropped and the other has renewed: that deletes none."""
    cookies = base["storage_state"].get("cookies", [])
    live = live_cookies(cookies, now)
    if len(live) == len(cookies):
        return base
    sides = [_index(side["storage_state"]).cookies for side in (mine, theirs)]

    def is_renewed(cookie: Cookie) -> bool:
        """Return whether one side has another cookie of this name, and the other side has none."""
        found = [side[key] for side in sides if (key := cookie_identity(cookie)) in side]
        return len(found) == 1 and not _same_cookie(found[0], cookie)

    left = [each for each in cookies if each in live or not is_renewed(each)]
    return {**base, "storage_state": {**base["storage_state"], "cookies": left}}


def common_notes(before: JsonObject, mine: JsonObject, theirs: JsonObject) -> JsonObject:
    """Return what `merge_data` may take for the base of two logins, of which theirs does not come from `before`."""
    # A note that they have with another value is not the one that was deleted here. One that they lack was not deleted there.
    return {
        key: note
        for key, note in before.items()
        if (key in theirs and (key in mine or theirs[key] == note))
        or (key not in theirs and mine.get(key, note) == note)
    }


def merge_data(base: object, mine: object, theirs: object) -> JsonObject:
    """Return new notes with the changes of both, by key."""
    return _copied(_merge_keyed([_dict(base), _dict(mine), _dict(theirs)]))


def merge_storage_states(base: object, mine: object, theirs: object) -> StorageState:
    """Return a new storage state with the changes of both."""
    return cast("StorageState", _copied(_merge_states([base, mine, theirs])))


def same_document(one: object, other: object) -> bool:
    """Return whether two documents are equal but for the order and the capture notes of their states."""
    left, right = _dict(one), _dict(other)
    if not _same_json(_without_state(left), _without_state(right)):
        return False
    first, second = _index(left.get("storage_state")), _index(right.get("storage_state"))
    return (
        first.cookies.keys() == second.cookies.keys()
        and all(_same_cookie(cookie, second.cookies[key]) for key, cookie in first.cookies.items())
        and _same_json(first.origins, second.origins)
        and _same_json(_without_capture_notes(first.rest), _without_capture_notes(second.rest))
    )


def _merge_states(states: list[object]) -> dict[str, object]:
    sides = [_index(state) for state in states]
    _, mine, theirs = sides
    origins = {
        origin: _merge_origin([side.origins.get(origin, {}) for side in sides])
        for origin in {**theirs.origins, **mine.origins}
    }
    merged: dict[str, object] = {
        "cookies": list(_merge_keyed([side.cookies for side in sides], _same_cookie).values()),
        "origins": [_entry(origin, sections) for origin, sections in origins.items() if sections],
    }
    return merged | _merge_keyed([side.rest for side in sides])


def _merge_keyed(sides: list[dict[K, V]], same: Callable[[V, V], bool] | None = None) -> dict[K, V]:
    """Return the items of `theirs` with the changes from `base` to `mine` applied."""
    base, mine, theirs = sides
    same = same or _same_json
    merged = {}
    for key in {**theirs, **mine}:
        item = mine.get(key, _ABSENT)
        if same(item, base.get(key, _ABSENT)):
            item = theirs.get(key, _ABSENT)
        if item is not _ABSENT:
            merged[key] = item
    return merged


def _merge_origin(sides: list[JsonObject]) -> JsonObject:
    merged = _merge_keyed([_without(side, *_NAMED_SECTIONS) for side in sides])
    for section in _NAMED_SECTIONS:
        if any(section in side for side in sides):
            merged[section] = _merge_keyed([_dict(side.get(section)) for side in sides])
    return _filled(merged)


def _index(value: object) -> _Index:
    state = _dict(value)
    cookies = [
        cast("Cookie", each) for each in _list(state.get("cookies")) if _is_record(each, "name", "value", "domain")
    ]
    return _Index(
        cookies={cookie_identity(cookie): cookie for cookie in cookies},
        origins=_index_origins(_list(state.get("origins"))),
        rest=_without(state, "cookies", "origins"),
    )


def _index_origins(entries: list[Json]) -> dict[str, JsonObject]:
    origins: dict[str, JsonObject] = {}
    for entry in entries:
        if not _is_record(entry, "origin"):
            continue
        sections = origins.setdefault(cast("str", entry["origin"]), {})
        for section, content in entry.items():
            # No browser takes back an item without a name or a value, so such an item is dropped.
            if section in _DATABASES:
                forms = {item["name"]: {section: item} for item in _list(content) if _is_record(item, "name")}
                cast("dict[Json, Any]", sections.setdefault(_DATABASES[0], {})).update(forms)
            elif section in _WEB_STORAGES:
                items = {item["name"]: item for item in _list(content) if _is_record(item, "name", "value")}
                cast("dict[Json, Json]", sections.setdefault(section, {})).update(items)
            elif section != "origin":
                sections[section] = content
    return {origin: kept for origin, sections in origins.items() if (kept := _filled(sections))}


def _entry(origin: str, sections: JsonObject) -> OriginState:
    """Return an origin in the form of a storage state."""
    lists: JsonObject = {section: list(_dict(sections.get(section)).values()) for section in _WEB_STORAGES}
    databases = [_dict(each) for each in _dict(sections.get(_DATABASES[0])).values()]
    lists |= {form: [each[form] for each in databases if form in each] for form in _DATABASES}
    # Playwright refuses an origin without `localStorage`.
    return cast("OriginState", {"origin": origin, "localStorage": [], **_without(sections, *lists), **_filled(lists)})


def _same_cookie(left: Cookie, right: Cookie) -> bool:
    """Return whether two cookies of one identity are equal, even if two tools have captured them."""
    if left is _ABSENT or right is _ABSENT:
        return left is right
    return bool(left == right) or _same_json(_comparable(left), _comparable(right))


def _comparable(cookie: Cookie) -> dict[str, object]:
    # Without SameSite a cookie comes back from Playwright as Lax. Some tools keep only whole seconds of an expiry.
    plain = playwright_cookie(cookie)
    return _without({**cookie, "sameSite": "Lax", **plain, "expires": int(plain["expires"])}, *_BROWSER_NOTES)


def _same_json(left: object, right: object) -> bool:
    """Return whether two JSON values are equal at any depth. `True` differs from 1 here, unlike for `==`."""
    # Without recursion, as in `_copied`: JSON may be nested more deeply than Python calls.
    pending: list[tuple[object, object]] = [(left, right)]
    while pending:
        one, two = pending.pop()
        if isinstance(one, dict) and isinstance(two, dict):
            pairs = [(item, two.get(key, _ABSENT)) for key, item in one.items()]
        elif isinstance(one, list | tuple) and isinstance(two, list | tuple):
            pairs = list(zip(one, two, strict=False))
        elif one is two or (one == two and isinstance(one, bool) is isinstance(two, bool)):
            continue
        else:
            return False
        if len(one) != len(two):
            return False
        pending += [(a, b) for a, b in pairs if not (a is b or (isinstance(a, str) and a == b))]
    return True


def _copied(value: dict[K, V]) -> dict[K, V]:
    """Return a deep copy of JSON, also of JSON that contains itself."""
    # Twice as fast as `copy.deepcopy`, and without its limit of depth (2026-11).
    copied = value.copy()
    copies: dict[int, Any] = {id(value): copied}
    pending: list[Any] = [copied]
    while pending:
        container = pending.pop()
        for key, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(item, dict | list):
                if id(item) not in copies:
                    copies[id(item)] = item.copy()
                    pending.append(copies[id(item)])
                container[key] = copies[id(item)]
    return copied


def _without_state(document: JsonObject) -> JsonObject:
    return {**_without(document, "storage_state"), "data": _dict(document.get("data"))}


def _without_capture_notes(rest: JsonObject) -> JsonObject:
    return {**rest, "session_reuse": _without(_dict(rest.get("session_reuse")), *_CAPTURE_NOTES)}


def _without(value: Mapping[str, V], *keys: str) -> dict[str, V]:
    return {key: item for key, item in value.items() if key not in keys}


def _filled(sections: JsonObject) -> JsonObject:
    """Return the sections of an origin that are not empty. A false or a 0 of another tool is not empty."""
    return {section: content for section, content in sections.items() if content not in (None, [], {})}


def _is_record(value: object, *fields: str) -> TypeGuard[JsonObject]:
    if not isinstance(value, dict):
        return False
    for field in fields:  # noqa: SIM110 - all() takes twice as long here, and this runs for every item
        if not isinstance(value.get(field), str):
            return False
    return True


def _dict(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Json]:
    return value if isinstance(value, list) else []
