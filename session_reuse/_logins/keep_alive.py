"""The job that keeps logins alive: it probes stored sessions, each in one of any number of processes at a time."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, NoReturn

from session_reuse._browser_session import BrowserSession
from session_reuse._cancellation import SwallowedCancellation, ends_us
from session_reuse._resilience.failure import AttemptFailed
from session_reuse._session.composition import Runtime
from session_reuse._session.guarded_store import Access
from session_reuse._session.options import ResolvedOptions
from session_reuse._session.scope import SessionScope
from session_reuse._session.tasks import in_own_thread
from session_reuse._state.header import Header
from session_reuse._state.storage_state import longest_cookie_life
from session_reuse._store.interface import SessionEntry
from session_reuse._summaries import SessionSummary, summary_of
from session_reuse._telemetry import Event, Operation, log
from session_reuse.errors import AdapterError, ConfigurationError, InvalidStateError, StoreError
from session_reuse.outcome import Liveness

Probe = Callable[[BrowserSession], "bool | Awaitable[bool]"]
OnChange = Callable[[str, Liveness, Liveness], object]

_LISTING_TIMEOUT: Final = 5.0
_NOTE_TTL: Final = 30 * 86400.0
"""Seconds for which a verdict is kept. The session that it is about may live longer, and is unknown then."""
_ROUNDS: Final = 10
"""Rounds in the time after which a login is probed again, so that none is late by more than a tenth of it."""


@dataclass(slots=True, kw_only=True, eq=False)
class KeepAlive:
    """One worker that probes stored sessions, with the arguments of `SessionManager.keep_alive`. Durations are in seconds.

    Attributes:
        session_class: of the sessions that plain probes get.
        counts: how many sessions got which verdict in this round.
    """

    runtime: Runtime
    session_class: type[BrowserSession]
    probe: Probe
    pattern: str
    every: float
    before_expiry: float | None
    concurrency: int
    probe_timeout: float
    relogin: Probe | None
    on_change: OnChange | None
    counts: Counter[Liveness] = field(default_factory=Counter)
    _is_blocking: bool = False

    def __post_init__(self) -> None:
        """Check what a type checker cannot."""
        if not callable(self.probe) or not (self.relogin is None or callable(self.relogin)):
            raise ConfigurationError("probe and relogin must be functions of the session")
        if not isinstance(self.pattern, str):
            raise ConfigurationError(f"pattern must be a shell pattern of fingerprints, not {self.pattern!r}")
        self._is_blocking = self.session_class is not BrowserSession
        if self._is_blocking and self.relogin is not None and _is_async(self.probe) != _is_async(self.relogin):
            raise ConfigurationError(
                "probe and relogin get one session: make both plain functions, or both `async def`"
            )
        if _is_async(self.probe):
            self.session_class = BrowserSession
        # A probe alone does not keep a session in the store. Else a dead login would be probed for ever.
        self.runtime = replace(self.runtime, config=replace(self.runtime.config, sliding=False))

    async def run(self) -> NoReturn:
        """Probe until cancelled. What ends a round is logged, and the next round tries again."""
        cancellation = SwallowedCancellation()
        while True:
            try:
                await self.run_once()
            except StoreError as error:
                self.runtime.telemetry.degraded(Operation.KEEP, error, code=type(error).__name__, fingerprint="")
            except Exception as error:  # noqa: BLE001  (the job has to outlive any error of one round)
                first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                self.runtime.telemetry.cleanup_failed("keep_alive", type(first).__name__)
            cancellation.raise_again()
            # Within `before_expiry` too, or a login could end between two rounds.
            pause = min(self.every, self.before_expiry or self.every) / _ROUNDS
            await asyncio.sleep(pause * self.runtime.clock.chance.uniform(0.8, 1.2))

    async def run_once(self) -> Counter[Liveness]:
        """Probe the sessions that are due, and return how many got which verdict.

        Raises:
            StoreError: the store is away.
        """
        self.counts = Counter()
        gate = asyncio.Semaphore(self.concurrency)
        failed: AttemptFailed | None = None
        async with asyncio.TaskGroup() as group:
            try:
                async for entry in self.runtime.store.sessions(timeout=_LISTING_TIMEOUT):
                    if not fnmatchcase(entry.fingerprint, self.pattern):
                        continue
                    if entry.failure is not None:
                        self._not_probed(entry.failure, entry.fingerprint)
                    elif await self._is_due(entry):
                        await gate.acquire()  # before the task, so that a large store does not become as many tasks
                        task = group.create_task(self._check(entry.fingerprint), name="session_reuse:probe")
                        task.add_done_callback(lambda _: gate.release())
            except AttemptFailed as failure:
                failed = failure
        if failed is not None:
            raise self.runtime.telemetry.named(failed.error) from None
        if not self.counts:
            self.runtime.telemetry.read()
        return self.counts

    async def _is_due(self, entry: SessionEntry) -> bool:
        """Return whether a session is to be probed now, by the clock of its server."""
        summary = self._summary(entry)
        if summary.version is None or summary.retired or summary.holder:
            return False
        now = entry.now / 1_000_000
        since = now - (summary.checked_at or 0.0)
        if not 0 <= since < self.every:  # below 0, the clock of the server was set back, or a fail-over changed it
            return True
        soon = self.before_expiry
        if soon is None or since < min(self.every, soon / _ROUNDS):
            return False
        if summary.ttl is not None and summary.ttl <= soon:
            return True
        try:
            reply = await self.runtime.guarded.run(
                Access.READ, entry.fingerprint, self.runtime.config.save_timeout,
                lambda store, timeout: store.read(entry.fingerprint, timeout=timeout),
            )  # fmt: skip
        except AttemptFailed as failure:  # trouble of one session does not end the round of the others
            self._degraded(failure, entry.fingerprint)
            return False
        _, found, _ = await self.runtime.snapshots.decode(entry.fingerprint, reply.value, 0.0)
        life = longest_cookie_life(found["storage_state"], now) if found is not None else None
        return life is not None and life <= soon

    def _summary(self, entry: SessionEntry) -> SessionSummary:
        return summary_of(entry, self.runtime.config, entry.now / 1_000_000)

    async def _check(self, fingerprint: str) -> None:
        """Probe one session under its lease, unless another process has just done so, or an agent uses it."""
        session = self.session_class(fingerprint)
        scope = self.runtime.scope(session, ResolvedOptions(exclusive=True, used_by="keep_alive", counted_later=True))
        is_live = False
        await scope.enter()
        try:
            entry = await self.runtime.guarded.run(
                Access.READ, fingerprint, self.runtime.config.save_timeout,
                lambda store, timeout: store.facts(fingerprint, timeout=timeout),
            )  # fmt: skip
            if session.degraded:  # the store has refused the lease, and has been logged
                self.counts[Liveness.UNKNOWN] += 1
                scope.count()
            else:  # it counts as a probe: a login that an agent uses meanwhile is no miss
                self.runtime.telemetry.read()
            if entry is not None and session.reused and await self._is_due(replace(entry, holder="")):
                verdict = await self._judge(session)
                is_live = verdict is Liveness.LIVE  # from here on, also where the rest is cancelled
                await self._keep(verdict, entry)
        except AttemptFailed as failure:
            self._not_probed(failure, fingerprint)
        finally:
            if not is_live:  # what a logged-out probe has seen replaces nothing
                session.discard()
            await self._leave(scope, session)

    async def _leave(self, scope: SessionScope, session: BrowserSession) -> None:
        try:
            await scope.leave(failed=False)
        except (InvalidStateError, StoreError) as error:
            log.warning(Event.CALLBACK_FAILED, callback="probe", fingerprint=session.fingerprint, error=str(error))

    async def _judge(self, session: BrowserSession) -> Liveness:
        """Probe an entered session, and log in again where that is asked for."""
        verdict = await self._verdict(session, "probe", self.probe)
        relogin = self.relogin
        if verdict is not Liveness.DEAD or relogin is None:
            return verdict
        if await self._verdict(session, "relogin", relogin) is Liveness.LIVE:
            verdict = await self._verdict(session, "probe", self.probe)
        return verdict

    async def _keep(self, verdict: Liveness, entry: SessionEntry) -> None:
        """Count and store a verdict, and report a new one."""
        before, name = self._summary(entry).liveness, entry.fingerprint
        self.counts[verdict] += 1
        self.runtime.telemetry.probed(name, verdict)
        created_at = Header.decode(entry.head).created_at
        try:
            await self.runtime.guarded.run(
                Access.WRITE, name, self.runtime.config.save_timeout,
                lambda store, timeout: store.note_liveness(name, verdict.value, created_at, _NOTE_TTL, timeout=timeout),
            )  # fmt: skip
        except AttemptFailed as failure:  # what a good probe has renewed is saved all the same
            self._degraded(failure, name)
        on_change = self.on_change
        if verdict is not before and on_change is not None:
            call = lambda: on_change(name, before, verdict)  # noqa: E731
            # One of a blocking manager may use it, and may take its time.
            is_slow = self._is_blocking and not _is_async(on_change)
            await self._call("on_change", name, (lambda: in_own_thread(call)) if is_slow else call)

    def _not_probed(self, failure: AttemptFailed, fingerprint: str) -> None:
        self.counts[Liveness.UNKNOWN] += 1
        self._degraded(failure, fingerprint)

    def _degraded(self, failure: AttemptFailed, fingerprint: str) -> None:
        self.runtime.telemetry.degraded(Operation.KEEP, failure.error, code=failure.code, fingerprint=fingerprint)

    async def _verdict(self, session: BrowserSession, name: str, probe: Probe) -> Liveness:
        """Return the result of a probe. One that raises, hangs, or returns no bool has found out nothing."""
        call = (lambda: probe(session)) if _is_async(probe) else (lambda: in_own_thread(lambda: probe(session)))
        found = await self._call(name, session.fingerprint, call)
        if not isinstance(found, bool):
            return Liveness.UNKNOWN
        return Liveness.LIVE if found else Liveness.DEAD

    async def _call(self, name: str, fingerprint: str, callback: Callable[[], object]) -> object:
        """Return the answer of the application's function. None when it raises, whatever it raises, or hangs."""
        try:
            async with asyncio.timeout(self.probe_timeout):
                answer = callback()
                while inspect.isawaitable(answer):  # a plain probe in a thread may return a coroutine
                    answer = await answer
                return answer
        except BaseException as error:
            if ends_us(error):
                raise
            why = str(error) if isinstance(error, AdapterError) else type(error).__name__  # its text is no foreign one
            log.warning(Event.CALLBACK_FAILED, callback=name, fingerprint=fingerprint, error=why)
            return None


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
