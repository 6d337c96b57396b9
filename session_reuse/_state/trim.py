"""What a site stores costs no other site its save: beyond a limit the largest values are left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from session_reuse._state.document import PLAIN_JSON, dump
from session_reuse._state.storage_state import cookie_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from session_reuse._state.shapes import StorageState

_NAMES: Final = ("name", "path", "id", "origin", "where", "reason")
"""What tells apart the items of one list: web storage, databases, files, credentials, notes on what was lost."""


def trim(state: StorageState, stored: StorageState, limit: int) -> list[str]:
    """Remove the largest values of a state until it fits into so many bytes of JSON. Return where they were.

    A value that is left out keeps what is stored of it, if that is smaller. The state is changed, so its entries must be its own.
    """
    # One encoding, 0.2 ms for each MB: this runs at each save, and most states are far below.
    whole = dump(state)
    excess = len(whole.data) - limit
    if excess <= 0:
        return []

    def size_of(value: Any) -> int:
        if whole.json_encoding == PLAIN_JSON:
            return len(dump(value).data)
        return len(json.dumps(value, separators=(",", ":")))  # one lone surrogate has all of it escaped

    before = {(where, _identity(item)): item for where, holder, name in _lists(stored) for item in holder[name]}
    places = list(_lists(state))
    values = [
        (size_of(item), where, index, item) for where, holder, name in places for index, item in enumerate(holder[name])
    ]
    kept: dict[tuple[str, int], list[Any]] = {}
    for size, where, index, item in sorted(values, key=lambda each: each[0], reverse=True):
        if excess <= 0:
            break
        old = [before[key]] if (key := (where, _identity(item))) in before and size_of(before[key]) < size else []
        kept[where, index] = old
        excess -= size - sum(map(size_of, old))
    for where, holder, name in places:
        holder[name] = [each for index, item in enumerate(holder[name]) for each in kept.get((where, index), [item])]
    return list(dict.fromkeys(where for where, _ in kept))


def _lists(state: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the lists of values of a state: where they are, for people, the dict that holds one, and its key."""
    entries = [(f" of {entry['origin']}", entry) for entry in state["origins"]]
    for where, holder in [("", state), ("", state.get("session_reuse", {})), *entries]:
        for name, value in holder.items():
            if isinstance(value, list) and name != "origins":
                yield f"{name}{where}", holder, name


def _identity(item: Any) -> Any:
    if not isinstance(item, dict):
        return None
    return cookie_identity(item) if "domain" in item else tuple(str(item.get(name)) for name in _NAMES)  # type: ignore[arg-type]
