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
from session_reuse._browser.origins import databases_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from session_reuse._browser.origins import OriginEntry

DATABASE_LIMIT: Final = 1024 * 1024
"""Largest copy of the databases of one origin, in characters of JSON."""
_LONGEST_WHERE: Final = 200


class Loss(NamedTuple):
    """Something that a page keeps and that could not be copied; JSON in `session_reuse.lost`, as a dict."""

    origin: str
    where: str
    """Database, and store if it is known. Cut, because a site may choose long names."""
    reason: str
    number: int

    def __str__(self) -> str:
        """Return a line for a report."""
        return f"{self.origin} IndexedDB {self.where}: {self.number} of {self.reason}"


class Dump(NamedTuple):
    """The databases of one origin.

    Attributes:
        databases: their copies, in either form.
        lost: what could not be copied.
        names: all databases that the origin has.
    """

    databases: list[dict[str, Any]]
    lost: list[Loss]
    names: frozenset[str] = frozenset()

    def over(self, before: Dump | None, stored: OriginEntry) -> Dump:
        """Return this copy, completed by an older one, or by the stored entry: what was not copied keeps its last copy."""
        missing = self.names - {each["name"] for each in self.databases}
        old = before or Dump(databases_of(stored), [])
        kept = [each for each in old.databases if each.get("name") in missing]
        cut = {name[:_LONGEST_WHERE] for name in missing}
        lost_before = [loss for loss in old.lost if loss.where.partition("/")[0] in cut]
        lost = [*self.lost, *(loss for loss in lost_before if loss not in self.lost)]
        # Sorted, so that the order of copies is no change of the state.
        return Dump(sorted([*kept, *self.databases], key=lambda each: str(each["name"])), lost, self.names)


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
    counts = Counter((where[:_LONGEST_WHERE], reason) for where, reason in content["lost"])
    lost = [Loss(origin, where, reason, count) for (where, reason), count in counts.items()]
    return Dump(content["databases"], lost, frozenset(content["names"]))
