"""Compare the index of deadlines with the sessions, and remove the traces of expired sessions.

The cost follows the sessions that are due, not those that are stored. The worker that takes an entry out of the index
finishes that session. All others find the entry gone, so any number of workers may run at once.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from session_reuse._cancellation import ends_us
from session_reuse._resilience.failure import AttemptFailed
from session_reuse._store.redis.deadlines import Deadlines, IndexEntry
from session_reuse._telemetry import Event, Telemetry, log
from session_reuse.config import Config

_PER_BUCKET: Final = 100
_TIMEOUT: Final = 2.0
_CALLBACK_TIMEOUT: Final = 30.0
_CALLBACKS_AT_ONCE: Final = 16
_FINISH_TIMEOUT: Final = 5.0
"""Seconds in which a cancelled worker finishes the sessions that it has removed from the index."""
_GONE: Final = -2


def changes_for(
    entries: Sequence[IndexEntry], lefts: Sequence[int | None], ttl: float, *, due: bool
) -> list[tuple[IndexEntry, int | None]]:
    """Return the entries to change: with None those of expired sessions, else with the milliseconds until the next check.

    Args:
        entries: of the index.
        lefts: milliseconds to live of each session, -1 without an end, -2 for no session, None if it is not known.
        ttl: seconds until a session without an end is checked again.
        due: whether the deadlines of the entries have passed.
    """
    changes: list[tuple[IndexEntry, int | None]] = []
    for entry, left in zip(entries, lefts, strict=True):
        if left == _GONE:
            changes.append((entry, None))
        elif left is not None and due:
            changes.append((entry, left if left >= 0 else round(ttl * 1000)))
    return changes


@dataclass(slots=True)
class CleanupReport:
    """Result of one pass of the clean-up.

    Attributes:
        expired: expired sessions whose traces were removed.
        prolonged: sessions that live longer than their entry said.
        overdue: seconds since the oldest deadline.
    """

    expired: int = 0
    prolonged: int = 0
    overdue: float = 0.0


class Reconciler:
    """The passes of one worker over the index."""

    def __init__(self, deadlines: Deadlines, config: Config, telemetry: Telemetry) -> None:
        self._deadlines = deadlines
        self._config = config
        self._telemetry = telemetry

    async def run(self) -> CleanupReport:
        """Settle all entries that are due.

        Raises:
            AttemptFailed: the store, or a part of it, does not answer. The rest is done.
        """
        report = CleanupReport()
        while True:
            due = await self._deadlines.due(_PER_BUCKET, timeout=_TIMEOUT)
            self._telemetry.reconcile_lag(due.overdue)
            report.overdue = max(report.overdue, due.overdue)
            settled = await self._settle(due.entries, report, due=True)
            if due.failure is not None:  # after the entries of the servers that answered
                raise due.failure
            if not (due.more and settled):
                return report

    async def check(self, fingerprints: Iterable[str]) -> None:
        """Settle the entries of sessions that may be gone before their deadline.

        Raises:
            AttemptFailed: the store does not answer.
        """
        entries = await self._deadlines.entries(fingerprints, timeout=_TIMEOUT)
        await self._settle([entry for entry in entries.values() if entry is not None], CleanupReport(), due=False)

    async def _settle(self, entries: Sequence[IndexEntry], report: CleanupReport, *, due: bool) -> int:
        if not entries:
            return 0
        lefts = await self._deadlines.times_to_live([entry.fingerprint for entry in entries], timeout=_TIMEOUT)
        changes = changes_for(entries, lefts, self._config.ttl, due=due)
        gone = {entry for entry, left in changes if left is None}
        settled = await self._deadlines.settle(changes, timeout=_TIMEOUT) if changes else []
        expired = [entry.fingerprint for entry in settled if entry in gone]
        report.expired += len(expired)
        report.prolonged += len(settled) - len(expired)
        if expired:
            await self._finish_expired(expired)
        return len(settled)

    async def _finish_expired(self, expired: list[str]) -> None:
        """Finish sessions that this worker has removed from the index, also if it is cancelled."""
        # No other worker finds these sessions any more: their entries are gone.
        task = asyncio.ensure_future(self._clean_up(expired))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=_FINISH_TIMEOUT)
            raise
        finally:
            task.cancel()

    async def _clean_up(self, expired: list[str]) -> None:
        # An affinity entry that stays costs a miss at the next enter and nothing else, so `on_expired` is still called.
        try:
            await self._deadlines.forget_agents(expired, timeout=_TIMEOUT)
        except AttemptFailed as failure:
            log.warning(Event.CLEANUP_FAILED, step="affinity", error=failure.code)
        for fingerprint in expired:
            self._telemetry.expired(fingerprint)
        callback = self._config.on_expired
        if callback is not None:
            at_once = asyncio.Semaphore(_CALLBACKS_AT_ONCE)
            await asyncio.gather(*(_notify(callback, fingerprint, at_once) for fingerprint in expired))


async def _notify(callback: Callable[[str], object], fingerprint: str, at_once: asyncio.Semaphore) -> None:
    try:
        async with at_once, asyncio.timeout(_CALLBACK_TIMEOUT):
            result = callback(fingerprint)
            if inspect.isawaitable(result):
                await result
    except BaseException as error:
        if ends_us(error):  # a CancelledError of the callback alone would end the pass, and with it all later ones
            raise
        log.warning(Event.CALLBACK_FAILED, callback="on_expired", fingerprint=fingerprint, error=type(error).__name__)
