"""What a site stores costs no other site its save: beyond a limit the largest values are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from session_reuse._browser.javascript import json_text

if TYPE_CHECKING:
    from session_reuse._browser.origins import OriginEntry
    from session_reuse._state.shapes import StorageState

_SECTIONS: Final = ("localStorage", "sessionStorage", "indexedDB", "indexedDBRich")


def trim(state: StorageState, stored: StorageState, limit: int) -> list[str]:
    """Remove the largest values of a state until its origins fit into so many bytes of JSON. Return where they were.

    A value that is left out keeps what is stored of it, if that is smaller. The state is changed, so its entries must be its own.
    """
    # One encoding, 0.2 ms for each MB: this runs at each save, and most states are far below.
    if _size(state["origins"]) <= limit:
        return []
    entries = cast("list[OriginEntry]", state["origins"])
    for entry in entries:
        entry.update({section: list(entry[section]) for section in _SECTIONS if section in entry})
    values = [
        (_size(item), entry["origin"], section, items, item)
        for entry in entries
        for section in _SECTIONS
        for items in [entry.get(section, [])]
        for item in items
    ]
    excess = sum(size for size, *_ in values) - limit
    before: dict[str, OriginEntry] = {entry["origin"]: cast("OriginEntry", entry) for entry in stored["origins"]}
    left_out = []
    for size, origin, section, items, item in sorted(values, key=lambda each: each[0], reverse=True):
        if excess <= 0:
            break
        old = [each for each in before.get(origin, {}).get(section) or () if each.get("name") == item["name"]]
        kept = [each for each in old if _size(each) < size]
        index = next(number for number, each in enumerate(items) if each is item)
        items[index : index + 1] = kept
        excess -= size - sum(map(_size, kept))
        left_out.append(f"{section} of {origin}")
    return left_out


def _size(value: object) -> int:
    return len(json_text(value).encode("utf-8", "surrogatepass"))
