"""Saves that wait for the store: the newest state of each fingerprint, within bounds. Must never grow without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What may wait."""

    @property
    def fingerprint(self) -> str:
        """Whose state it is."""

    @property
    def size(self) -> int:
        """Bytes it takes."""


S = TypeVar("S", bound=Sized)


class PendingSaves(Generic[S]):
    """A bounded map from fingerprint to the one save that waits for it, oldest first.

    Args:
        max_entries: how many may wait.
        max_bytes: how many bytes they may take together.

    Attributes:
        mirror: told of each change: the fingerprint, and the save that waits for it from now on, or None.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.mirror: Callable[[str, S | None], None] = lambda _fingerprint, _save: None
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: dict[str, S] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._entries.values()))

    def get(self, fingerprint: str) -> S | None:
        """Return the save that waits for this fingerprint."""
        return self._entries.get(fingerprint)

    def has_room(self, size: int) -> bool:
        """Return whether one more save of this size would make none give way."""
        return len(self._entries) < self._max_entries and self.bytes + size <= self._max_bytes

    def put(self, save: S) -> list[S]:
        """Keep a save in place of an earlier one of its fingerprint, and return what had to give way.

        The oldest give way first; a save larger than the whole room comes back itself.
        """
        self.remove(save.fingerprint)
        if save.size > self._max_bytes or self._max_entries < 1:
            return [save]
        self._entries[save.fingerprint] = save
        self.bytes += save.size
        self.mirror(save.fingerprint, save)
        dropped = []
        while len(self._entries) > self._max_entries or self.bytes > self._max_bytes:
            oldest = next(iter(self._entries))
            dropped.append(self._entries[oldest])
            self.remove(oldest)
        return dropped

    def remove(self, fingerprint: str, save: S | None = None) -> S | None:
        """Take out what waits for this fingerprint; with `save` only if it is that very one."""
        found = self._entries.get(fingerprint)
        if found is None or (save is not None and found is not save):
            return None
        del self._entries[fingerprint]
        self.bytes -= found.size
        self.mirror(fingerprint, None)
        return found
