"""Copies of IndexedDB databases as they stand in a storage state. Must never drop a value without a `Loss`.

A database whose values are all plain JSON is kept in Playwright's form, in `origins[].indexedDB`. Any other is kept in
`origins[].indexedDBRich` as `{"name", "version", "keys", "dump"}`: `dump` is JSON text in the encoding of
`js/indexeddb_dump.js`, opaque to everything else; `keys` are its CryptoKeys.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from session_reuse.browsers import javascript

CAP_BYTES: Final = 1024 * 1024
"""Largest copy of the databases of one origin."""


class Loss(NamedTuple):
    """Something that a page keeps and that could not be copied; JSON in `session_reuse.lost`, as a dict."""

    origin: str
    where: str
    """Database, and store if it is known."""
    reason: str
    number: int

    def __str__(self) -> str:
        """Say it to people."""
        return f"{self.origin} IndexedDB {self.where}: {self.number} of {self.reason}"


class Dump(NamedTuple):
    """The databases of one origin."""

    plain: list[dict[str, Any]]
    rich: list[dict[str, Any]]
    lost: list[Loss]


def is_used(usage: dict[str, Any]) -> bool:
    """Return whether an origin takes space for databases; asking costs nothing, visiting it 0.1 s.

    Args:
        usage: the answer to `Storage.getUsageAndQuota`.
    """
    return any(part["storageType"] == "indexeddb" and part["usage"] for part in usage["usageBreakdown"])


def dump_script(cap: int = CAP_BYTES) -> str:
    """Return an expression that copies the databases of a page's origin into JSON text for `read_dump`."""
    return javascript.call("indexeddb_dump", javascript.literal(cap))


def read_dump(origin: str, text: str) -> Dump:
    """Return the dump that `dump_script` has made.

    Raises:
        ValueError: not one.
    """
    content = json.loads(text)
    dump = Dump([], [], _counted(origin, content["lost"]))
    for database in content["databases"]:
        if "dump" in database:
            dump.rich.append(database)
        else:
            dump.plain.append({field: database[field] for field in ("name", "version", "stores")})
    return dump


def _counted(origin: str, lost: list[list[str]]) -> list[Loss]:
    counts: dict[tuple[str, str], int] = {}
    for where, reason in lost:
        counts[where, reason] = counts.get((where, reason), 0) + 1
    return [Loss(origin, where, reason, count) for (where, reason), count in counts.items()]
