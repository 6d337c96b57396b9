"""The three-way merge of two saves of one session, and when two are the same. Never does I/O, never mutates.

A document is `{"storage_state": StorageState, "data": dict}`. `base` is what `mine` started from, `theirs` is what
another holder saved meanwhile. Each item that `mine` changed, added or deleted against `base` is taken from `mine`, every
other one from `theirs`: nobody's update is lost, deletions stick, and where both changed one item, `mine`, the later
save, wins. Order: as in `theirs`, then what is new in `mine`. Of duplicates the last wins. A record that no browser could
take back (no name, no value) is dropped. Results share no dict and no list with the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from session_reuse._state.storage_state import StorageState, cookie_identity, playwright_cookie

__all__ = ["merge_data", "merge_documents", "merge_storage_states", "same_document"]

_ABSENT: Any = object()
_Keyed: TypeAlias = dict[Any, Any]
_Same: TypeAlias = Callable[[Any, Any], bool]

_DATABASES = ("indexedDB", "indexedDBRich")
_NAMED_SECTIONS = ("localStorage", "sessionStorage", *_DATABASES)
"""The sections of an origin that are lists of named items."""

_CAPTURE_NOTES = ("captured_at", "source")
"""What our block says about a capture, not about the state captured."""

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
"""Fields that one tool reports and the next drops, for the same cookie: a difference in them is no change."""


class _Index(NamedTuple):
    cookies: _Keyed
    """(name, domain, path, top-level site, ancestor bit) -> cookie."""
    origins: dict[str, dict[str, Any]]
    """Origin -> section -> name -> item; a section that is not a list of named items is a unit."""
    rest: _Keyed
    """The other keys of the top level."""


def merge_documents(base: Any, mine: Any, theirs: Any) -> dict[str, Any]:
    """Return a new document with the changes of both; see the module for the rules."""
    sides = [_dict(side) for side in (base, mine, theirs)]
    merged = {
        **_merge_keyed([_without(side, "storage_state", "data") for side in sides]),
        "storage_state": _merge_states([side.get("storage_state") for side in sides]),
        "data": _merge_keyed([_dict(side.get("data")) for side in sides]),
    }
    return _copied(merged)


def merge_data(base: Any, mine: Any, theirs: Any) -> dict[str, Any]:
    """Return new notes with the changes of both, by key."""
    return _copied(_merge_keyed([_dict(base), _dict(mine), _dict(theirs)]))


def merge_storage_states(base: Any, mine: Any, theirs: Any) -> StorageState:
    """Return a new storage state with the changes of both; see the module for the rules."""
    return _copied(_merge_states([base, mine, theirs]))


def same_document(left: Any, right: Any) -> bool:
    """Return whether two documents say the same, whatever the order and the capture notes of their states."""
    left, right = _dict(left), _dict(right)
    if not _same_json(_without_state(left), _without_state(right)):
        return False
    one, two = _index(left.get("storage_state")), _index(right.get("storage_state"))
    return (
        one.cookies.keys() == two.cookies.keys()
        and all(_same_cookie(cookie, two.cookies[key]) for key, cookie in one.cookies.items())
        and _same_json(one.origins, two.origins)
        and _same_json(_without_capture_notes(one.rest), _without_capture_notes(two.rest))
    )


def _merge_states(states: list[Any]) -> StorageState:
    sides = [_index(state) for state in states]
    _, ours, other = sides
    origins = {
        origin: _merge_origin([side.origins.get(origin, {}) for side in sides])
        for origin in {**other.origins, **ours.origins}
    }
    return {
        "cookies": list(_merge_keyed([side.cookies for side in sides], _same_cookie).values()),
        "origins": [_entry(origin, sections) for origin, sections in origins.items() if sections],
        **_merge_rest([side.rest for side in sides]),
    }


def _merge_keyed(sides: list[_Keyed], same: _Same | None = None) -> _Keyed:
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


def _merge_origin(sides: list[_Keyed]) -> _Keyed:
    merged = _merge_keyed([_without(side, *_NAMED_SECTIONS) for side in sides])
    for section in _NAMED_SECTIONS:
        if any(section in side for side in sides):
            merged[section] = _merge_keyed([side.get(section, {}) for side in sides])
    return _filled(merged)


def _merge_rest(sides: list[_Keyed]) -> _Keyed:
    """Return the other top-level keys, each a unit, but our IndexedDB copies merged per origin."""
    merged = _merge_keyed(sides)
    block = merged.get("session_reuse")
    copies = _merge_keyed([_dict(_dict(side.get("session_reuse")).get("idb_rich")) for side in sides])
    if isinstance(block, dict) and (copies or "idb_rich" in block):
        merged["session_reuse"] = {**block, "idb_rich": copies}
    return merged


def _index(state: Any) -> _Index:
    state = _dict(state)
    return _Index(
        cookies={
            cookie_identity(c): c for c in _list(state.get("cookies")) if _is_record(c, "name", "value", "domain")
        },
        origins=_index_origins(_list(state.get("origins"))),
        rest=_without(state, "cookies", "origins"),
    )


def _index_origins(entries: list[Any]) -> dict[str, dict[str, Any]]:
    origins: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if not _is_record(entry, "origin"):
            continue
        sections = origins.setdefault(entry["origin"], {})
        for section, content in entry.items():
            if section in _NAMED_SECTIONS:
                fields = ("name",) if section in _DATABASES else ("name", "value")
                items = {item["name"]: item for item in _list(content) if _is_record(item, *fields)}
                sections.setdefault(section, {}).update(items)
            elif section != "origin":
                sections[section] = content
    return {origin: kept for origin, sections in origins.items() if (kept := _filled(sections))}


def _entry(origin: str, sections: _Keyed) -> dict[str, Any]:
    """Return an origin as it stands in a storage state; `localStorage` is always there, because Playwright insists."""
    lists = {section: list(sections[section].values()) for section in _NAMED_SECTIONS if section in sections}
    return {"origin": origin, "localStorage": [], **sections, **lists}


def _same_cookie(left: Any, right: Any) -> bool:
    """Return whether two cookies of one key are equal, whichever tools captured them."""
    if left is _ABSENT or right is _ABSENT:
        return left is right
    return bool(left == right) or _same_json(_comparable(left), _comparable(right))


def _comparable(cookie: dict[str, Any]) -> dict[str, Any]:
    # Without SameSite a cookie comes back from Playwright as Lax; some tools keep whole seconds of an expiry only.
    plain = {**cookie, "sameSite": "Lax", **playwright_cookie(cookie)}
    plain["expires"] = int(plain["expires"])
    return _without(plain, *_BROWSER_NOTES)


def _same_json(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal at any depth; true is not 1, as it is for `==`."""
    pending = [(left, right)]
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


def _copied(value: _Keyed) -> _Keyed:
    """Return a deep copy of JSON at any depth, twice as fast as `copy.deepcopy`; cycles stay cycles."""
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


def _without_state(document: _Keyed) -> _Keyed:
    return {**_without(document, "storage_state"), "data": _dict(document.get("data"))}


def _without_capture_notes(rest: _Keyed) -> _Keyed:
    return {**rest, "session_reuse": _without(_dict(rest.get("session_reuse")), *_CAPTURE_NOTES)}


def _without(value: _Keyed, *keys: str) -> _Keyed:
    return {key: item for key, item in value.items() if key not in keys}


def _filled(sections: _Keyed) -> _Keyed:
    """Return the sections of an origin that hold something; a false or a 0 of another tool is something."""
    return {section: content for section, content in sections.items() if content not in (None, [], {})}


def _is_record(value: Any, *fields: str) -> bool:
    if not isinstance(value, dict):
        return False
    for field in fields:  # noqa: SIM110 - all() takes twice as long here, and this runs for every item
        if not isinstance(value.get(field), str):
            return False
    return True


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
