"""Which origins are filled when a page first asks for them, and who has to wait. Must never do I/O, nor fill one twice.

An origin is *pending* until a document of it is asked for. Then it is *filling*, on a hidden page, while the request
goes out and its answer waits. After that it is nobody's concern any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse.browsers.lazy_restore import Payload

FILL_LIMIT: Final = 15.0
"""Seconds after which an origin counts as not to be filled, and its documents go ahead."""


class Verdict(StrEnum):
    """What is done with a held request for a document."""

    PASS = "pass"  # noqa: S105 - no password
    WATCH = "watch"
    """It goes out; its answer is held and asked about again."""
    FILL = "fill"
    """The origin has to be filled; until then as HOLD or WATCH."""
    HOLD = "hold"


@dataclass
class _Busy:
    """An origin that is being filled.

    Attributes:
        payload: what it gets.
        since: monotonic seconds.
        held: the answers that wait for it.
    """

    payload: Payload
    since: float
    held: list[str] = field(default_factory=list)


class OnDemand:
    """The origins of one context that are filled on demand.

    Args:
        payloads: what they get.
        clock: monotonic seconds.
    """

    def __init__(self, payloads: list[Payload], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pending = {payload.origin: payload for payload in payloads}
        self._busy: dict[str, _Busy] = {}

    @property
    def open(self) -> list[str]:
        """Origins whose documents have to be held."""
        return [*self._pending, *self._busy]

    def pending(self, origin: str | None) -> Payload | None:
        """Return what an origin gets that nobody has asked for yet."""
        return self._pending.get(origin or "")

    def take(self, origin: str) -> Payload | None:
        """Take an origin off the list for somebody else, who restores it."""
        return self._pending.pop(origin, None)

    def verdict(self, origin: str, *, is_answer: bool) -> Verdict:
        """Decide about a request for a document.

        Args:
            origin: of its URL.
            is_answer: the answer has come; otherwise the request has not gone out yet.
        """
        if origin in self._busy:
            return Verdict.HOLD if is_answer else Verdict.WATCH
        return Verdict.FILL if origin in self._pending else Verdict.PASS

    def is_overdue(self, origin: str) -> bool:
        """Return whether nothing was heard of the hidden page for too long."""
        return self.filling(origin) is not None and self._clock() - self._busy[origin].since > FILL_LIMIT

    def begin(self, origin: str) -> Payload | None:
        """Take an origin to fill it on a hidden page; None when somebody else was faster."""
        payload = self.take(origin)
        if payload is not None:
            self._busy[origin] = _Busy(payload, self._clock())
        return payload

    def filling(self, origin: str) -> Payload | None:
        """Return what an origin gets that is being filled."""
        busy = self._busy.get(origin)
        return busy.payload if busy else None

    def hold(self, origin: str, request: str) -> bool:
        """Have a request wait; False when there is nothing to wait for any more."""
        busy = self._busy.get(origin)
        if busy is not None:
            busy.held.append(request)
        return busy is not None

    def filled(self, origin: str) -> list[str]:
        """Note that the hidden page is done; return the requests that waited."""
        busy = self._busy.pop(origin, None)
        return busy.held if busy else []
