"""Copies of IndexedDB databases as they stand in a storage state.

A database whose values are all plain JSON is kept in Playwright's form, in `origins[].indexedDB`. Any other is kept in
`origins[].indexedDBRich` as `{"name", "version", "keys", "dump"}`: `dump` is JSON text in the encoding of
`js/indexeddb_dump.js`, opaque to everything else. `keys` are its CryptoKeys. A value that cannot be copied is a `Loss`.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from session_reuse._browser import javascript

if TYPE_CHECKING:
    from collections.abc import Collection

    from session_reuse._browser.origins import OriginEntry

DATABASE_LIMIT: Final = 1024 * 1024
"""Largest copy of the databases of one origin, in characters of JSON."""


class Loss(NamedTuple):
    """Something that a page keeps and that could not be copied; JSON in `session_reuse.lost`, as a dict."""

    origin: str
    where: str
    """Database, and store if it is known."""
    reason: str
    number: int

    def __str__(self) -> str:
        """Return a line for a report."""
        return f"{self.origin} IndexedDB {self.where}: {self.number} of {self.reason}"


class Dump(NamedTuple):
    """The databases of one origin.

    Attributes:
        plain: in Playwright's form.
        rich: in ours.
        lost: what could not be copied.
        names: all databases that the origin has.
    """

    plain: list[dict[str, Any]]
    rich: list[dict[str, Any]]
    lost: list[Loss]
    names: frozenset[str] = frozenset()

    def over(self, before: Dump | None, stored: OriginEntry) -> Dump:
        """Return this copy, completed by an older one, or by the stored entry: what was not copied keeps its last copy."""
        copied = {each["name"] for each in (*self.plain, *self.rich)}
        old = before or Dump(list(stored.get("indexedDB") or ()), list(stored.get("indexedDBRich") or ()), [])

        def kept(databases: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [each for each in databases if each.get("name") in self.names - copied]

        lost_before = [loss for loss in old.lost if loss.where.partition("/")[0] in self.names - copied]
        lost = [*self.lost, *(loss for loss in lost_before if loss not in self.lost)]
        # Sorted, so that the order of copies is no change of the state.
        plain = sorted([*kept(old.plain), *self.plain], key=lambda each: str(each["name"]))
        rich = sorted([*kept(old.rich), *self.rich], key=lambda each: str(each["name"]))
        return Dump(plain, rich, lost, self.names)


def is_used(usage: dict[str, Any]) -> bool:
    """Return whether an origin takes space for databases, as `Storage.getUsageAndQuota` answers."""
    # Asked before a visit, because a visit takes 0.1 s.
    return any(part["storageType"] == "indexeddb" and part["usage"] for part in usage["usageBreakdown"])


def dump_script(cap: int = DATABASE_LIMIT, names: Collection[str] | None = None) -> str:
    """Return an expression that copies the databases of a page's origin, or those named, into JSON text for `read_dump`."""
    only = javascript.literal(None if names is None else sorted(names))
    return javascript.call("indexeddb_dump", javascript.literal(cap), only)


def read_dump(origin: str, text: str) -> Dump:
    """Return the dump that `dump_script` has made.

    Raises:
        ValueError: not one.
    """
    content = json.loads(text)
    dump = Dump([], [], _counted(origin, content["lost"]), frozenset(content["names"]))
    for database in content["databases"]:
        if "dump" in database:
            dump.rich.append(database)
        else:
            dump.plain.append({field: database[field] for field in ("name", "version", "stores")})
    return dump


def _counted(origin: str, lost: list[list[str]]) -> list[Loss]:
    counts = Counter((where, reason) for where, reason in lost)
    return [Loss(origin, where, reason, count) for (where, reason), count in counts.items()]
