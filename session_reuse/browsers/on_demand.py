"""Which origins are filled when a page first asks for them, and who has to wait. Must never do I/O, nor fill one twice.

An origin is *pending* until a document of it is asked for. Then it is *filling*, on a hidden page, while the request
goes out and its answer waits; or, in a tab that was given the origin's script beforehand, it is *starting*: the answer
has come, and the document fills its storage itself. After that it is nobody's concern any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

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
        frame: the tab whose document fills it; empty for the hidden page.
        since: monotonic seconds.
        held: the answers that wait for it.
    """

    payload: Payload
    frame: str
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
        self._armed: dict[str, dict[str, Any]] = {}

    @property
    def open(self) -> list[str]:
        """Origins whose documents have to be held."""
        return [*self._pending, *self._busy]

    def pending(self, origin: str | None) -> Payload | None:
        """Return what an origin gets that nobody has asked for yet."""
        return self._pending.get(origin or "")

    def arm(self, origin: str, frame: str, registration: Any) -> None:
        """Note that a tab has the script of an origin.

        Args:
            origin: still pending.
            frame: the tab's main frame.
            registration: what takes the script out of the tab again.
        """
        self._armed.setdefault(origin, {})[frame] = registration

    def disarm(self, origin: str, frame: str = "") -> list[Any]:
        """Return what takes the script of an origin out of one tab, or out of all."""
        armed = self._armed.get(origin, {})
        return [armed.pop(each) for each in ([frame] if frame else list(armed)) if each in armed]

    def verdict(self, origin: str, frame: str, *, is_answer: bool) -> Verdict:
        """Decide about a request for a document.

        Args:
            origin: of its URL.
            frame: that it is for.
            is_answer: the answer has come; otherwise the request has not gone out yet.
        """
        busy = self._busy.get(origin)
        if busy is not None:
            if busy.frame == frame:
                return Verdict.PASS
            return Verdict.HOLD if is_answer else Verdict.WATCH
        payload = self._pending.get(origin)
        if payload is None:
            return Verdict.PASS
        if frame not in self._armed.get(origin, {}):
            return Verdict.FILL
        if is_answer:
            self._begin(payload, frame)
        return Verdict.PASS if is_answer else Verdict.WATCH

    def is_overdue(self, origin: str) -> bool:
        """Return whether nothing was heard of the hidden page for too long."""
        return self.filling(origin) is not None and self._clock() - self._busy[origin].since > FILL_LIMIT

    def begin(self, origin: str) -> Payload | None:
        """Take an origin to fill it on a hidden page; None when somebody else was faster."""
        payload = self._pending.get(origin)
        if payload is not None:
            self._begin(payload, "")
        return payload

    def _begin(self, payload: Payload, frame: str) -> None:
        del self._pending[payload.origin]
        self._busy[payload.origin] = _Busy(payload, frame, self._clock())

    def filling(self, origin: str) -> Payload | None:
        """Return what an origin gets that is being filled on a hidden page."""
        busy = self._busy.get(origin)
        return busy.payload if busy and not busy.frame else None

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

    def committed(self, origin: str) -> tuple[bool, list[str]]:
        """Note a document that shares the origin's storage.

        Returns:
            Whether it came without having been asked about, and so without its storage; and the requests that waited.
        """
        if self._pending.pop(origin, None):
            return not self._armed.get(origin), []
        busy = self._busy.get(origin)
        return False, self.filled(origin) if busy and busy.frame else []

    def abandoned(self, origin: str, frame: str) -> list[str]:
        """Note that a tab with the script did not get to the origin; return the requests that waited for it."""
        busy = self._busy.get(origin)
        if busy is None or busy.frame != frame:
            return []
        self._pending[origin] = busy.payload
        return self.filled(origin)
