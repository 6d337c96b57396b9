"""Documents that this process has sealed or opened lately. Must never answer for a value that differs in one byte.

A process that runs the same agents again reads back what it wrote itself. Comparing the sealed bytes takes a twentieth
of what checking the seal, inflating and looking at the shape take (0.7 of 16 µs at 20 KB, measured 2026-11).
"""

from __future__ import annotations

from typing import NamedTuple


class _Opened(NamedTuple):
    sealed: bytes
    associated: bytes
    document: bytes

    @property
    def size(self) -> int:
        return len(self.sealed) + len(self.document)


class RecentDocuments:
    """The last document of each of the latest keys, as many as fit. Not thread-safe.

    Args:
        max_bytes: of sealed bodies and documents together; 0 keeps none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._opened: dict[bytes, _Opened] = {}

    def find(self, name: bytes, sealed: bytes, associated: bytes) -> bytes | None:
        """Return the document that is sealed in these very bytes, if it is at hand."""
        known = self._opened.get(name)
        if known is None or known.sealed != sealed or known.associated != associated:
            return None
        return known.document

    def note(self, name: bytes, sealed: bytes, associated: bytes, document: bytes) -> None:
        """Remember what is sealed under a name; the oldest names give way."""
        opened = _Opened(sealed, associated, document)
        earlier = self._opened.pop(name, None)
        self._size += opened.size - (earlier.size if earlier else 0)
        self._opened[name] = opened
        while self._size > self._max_bytes:
            self._size -= self._opened.pop(next(iter(self._opened))).size
