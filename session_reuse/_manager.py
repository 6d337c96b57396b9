"""`SessionManager`: what lives as long as the process or its event loop."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Final, Self, Unpack
from weakref import finalize, ref

from session_reuse._browser_session import BrowserSession, backend_of, is_inherited
from session_reuse._logins.listing import summaries, uses
from session_reuse._logins.pool import Pool, Turn
from session_reuse._misuse import AsyncOnly
from session_reuse._orphans import managers, report_lost, until_loop_ends
from session_reuse._resilience.failure import AttemptFailed, store_errors
from session_reuse._session.composition import Runtime, compose, is_store
from session_reuse._session.guarded_store import Access
from session_reuse._session.options import ResolvedOptions, SessionOptions
from session_reuse._session.replica import Replicas
from session_reuse._session.scope import SessionScope
from session_reuse._session.tasks import until_closed
from session_reuse._settings.values import Seconds, seconds, whole
from session_reuse._store.interface import SessionUse
from session_reuse._store.keys import checked
from session_reuse._store.redis.connect import StoreOrClient, check_client
from session_reuse._store.redis.redis_py import close_sockets, forget_connections
from session_reuse._summaries import ManagerStats, SessionSummary
from session_reuse._telemetry import Event, Operation, log
from session_reuse.config import Config, ConfigOptions, redacted_url
from session_reuse.errors import ConfigurationError, LifecycleError, ManagerClosedError
from session_reuse.outcome import Liveness, SaveOutcome

if TYPE_CHECKING:
    from session_reuse._cleanup.reconcile import CleanupReport
    from session_reuse._logins.keep_alive import OnChange, Probe

_CLOSED: Final = "this SessionManager is closed: make a new one"


def runtime_of(manager: SessionManager) -> Coroutine[None, None, Runtime]:
    """Return the parts of a manager, put together the first time: for this package, and for tests.

    Raises:
        ManagerClosedError: the manager was closed.
        LifecycleError: it belongs to another event loop, which is not closed.
    """
    return manager._services()  # noqa: SLF001  (the one way to it)


class SessionManager(AsyncOnly):
    """Connections, breakers, waiting saves and background work for one store, within one event loop.

    Args:
        store: a URL (see `Config.url`), an asyncio redis-py client without `decode_responses`, or a store of
            `session_reuse.testing`. A client or a store stays yours to close. None: the URL of the configuration.
        config: fields of `Config`. They win over the environment.

    Raises:
        ConfigurationError: a setting is wrong. The message names it.

    Attributes:
        session_class: of its sessions.
    """

    def __init__(self, store: StoreOrClient | str | None = None, **config: Unpack[ConfigOptions]) -> None:
        self._given: StoreOrClient | None = None
        if store is not None and "url" in config:
            raise ConfigurationError("give a store or url=, not both")
        if isinstance(store, str):
            config["url"] = store
        elif store is not None:
            check_client(store)
            self._given = store
        self.config = Config.from_env(**config)
        self.session_class: type[BrowserSession] = BrowserSession
        self._options = ResolvedOptions.build(self.config)
        self._known: Replicas | None = None
        self._start_anew()
        managers.add(self)

    def _start_anew(self) -> None:
        """Drop all that belongs to an event loop or to a process that has ended. The next use builds it again."""
        self._runtime: Runtime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._report_lost: finalize[..., SessionManager] | None = None
        self._loop_watch: AsyncGenerator[None] | None = None  # without a reference it would be closed at once
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `aclose` has been called."""
        return self._closed

    async def __aenter__(self) -> Self:
        """Make ready. Connects to nothing yet, except that `embedded://` starts its server."""
        await self._services()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.aclose()

    async def _services(self) -> Runtime:
        if self._closed:
            raise ManagerClosedError(_CLOSED)
        if self._runtime is not None and self._loop is asyncio.get_running_loop():
            return self._runtime
        return await self._start()

    async def _start(self) -> Runtime:
        loop = asyncio.get_running_loop()
        self._leave_ended_loop()
        if self._starting is None:
            self._loop, self._starting = loop, asyncio.Lock()
        async with self._starting:
            if self._runtime is None and not self._closed:
                runtime = await compose(self.config, self._given, self._known)
                if self._closed:  # by `aclose` meanwhile, which has found nothing to close
                    await self._close(runtime)
                else:
                    self._runtime, self._known = runtime, None
                    runtime.writer.owner = self
                    self._watch(runtime)
                    self._loop_watch = until_loop_ends(ref(self))
                    await anext(self._loop_watch)
            if self._runtime is None or self._closed:
                raise ManagerClosedError(_CLOSED)
            return self._runtime

    def _watch(self, runtime: Runtime) -> None:
        writer = runtime.writer
        on_disk = writer.disk.on_disk if writer.disk is not None else {}
        self._report_lost = finalize(self, report_lost, writer.replicas, runtime.telemetry, os.getpid(), on_disk)
        self._report_lost.atexit = False  # it would run before the hooks that may still flush

    async def _loop_ends(self) -> None:
        """End the work that agents have begun while `asyncio.run` was cancelling them and all that it knew of."""
        if self._runtime is not None:
            await self._runtime.tasks.cancel(self.config.close_timeout)

    def _report_lost_saves(self) -> None:
        """Report the saves that still wait as lost."""
        detached = self._report_lost.detach() if self._report_lost is not None else None
        if detached is not None:
            _, report, arguments, _ = detached
            report(*arguments, on_lost=self.config.on_lost)

    def _leave_known(self) -> Replicas | None:
        """Return what this manager knows, for the next event loop."""
        if self._runtime is None:
            return self._known
        writer = self._runtime.writer
        if writer.disk is not None:
            writer.disk.close()  # so that the next loop, or another process, delivers
        return writer.replicas.successor(has_disk=writer.disk is not None)

    def _abandon(self) -> None:
        """Close after the end of the event loop: report what waits as lost, and close the sockets."""
        self._leave_loop()
        self._closed = True

    def _leave_ended_loop(self) -> None:
        """Begin anew if the event loop is another one: a manager of a module, used by one `asyncio.run` after another."""
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            if not self._loop.is_closed():
                raise LifecycleError("this SessionManager belongs to another event loop: make one for each loop")
            self._leave_loop()

    def _leave_loop(self) -> None:
        self._report_lost_saves()
        self._known = self._leave_known()
        connection = self._runtime.connection if self._runtime is not None else None
        if self._given is not None:  # what its pool holds belongs to the loop that has ended
            close_sockets(self._given)
            forget_connections(self._given)
        elif connection is not None:
            close_sockets(connection.client)
            if connection.release is not None:
                connection.release()
        self._start_anew()

    async def aclose(self) -> None:
        """Write pending saves within `close_timeout`, report the lost ones, and close our connections.

        Raises:
            LifecycleError: it belongs to another event loop, which is not closed.
        """
        if not self._closed:
            self._leave_ended_loop()
        runtime, was_closed, self._closed = self._runtime, self._closed, True
        if not was_closed and runtime is not None:
            await self._close(runtime)

    async def _close(self, runtime: Runtime) -> None:
        try:
            await runtime.finish()
        finally:  # also when the close is cancelled
            runtime.writer.close()
            if self._report_lost is not None:
                self._report_lost.detach()
            await self._end(runtime)
            # Else the garbage collector would have a task do it, whenever it comes. It runs when it is the loop that ends.
            if self._loop_watch is not None and not self._loop_watch.ag_running:  # type: ignore[attr-defined]
                await self._loop_watch.aclose()

    async def _end(self, runtime: Runtime) -> None:
        await runtime.tasks.cancel(self.config.close_timeout)
        runtime.telemetry.close()
        if not is_store(self._given):
            try:
                async with asyncio.timeout(self.config.connect_timeout):
                    await runtime.store.aclose()
            except (TimeoutError, OSError):
                log.debug(Event.DEGRADED, operation="close")
        if runtime.connection is not None and runtime.connection.release is not None:
            release = asyncio.get_running_loop().run_in_executor(None, runtime.connection.release)
            await asyncio.wait({release}, timeout=self.config.close_timeout)  # a server may just be starting

    def _resolved(self, options: SessionOptions) -> ResolvedOptions:
        return ResolvedOptions.build(self.config, options) if options else self._options

    async def _open(
        self, fingerprint: str | None, agent_id: str | None, options: ResolvedOptions
    ) -> tuple[BrowserSession, SessionScope]:  # fmt: skip
        """Return a session and its scope. It is not entered yet, unless it is a member of a pool."""
        runtime, spent = await self._services(), 0.0
        if agent_id is not None:
            checked(agent_id, "agent_id")
        if options.pool is not None:
            if fingerprint is not None:
                raise ConfigurationError("give a fingerprint or a pool, not both")
            return await Turn(runtime, options.pool, agent_id, options, self.session_class).enter()
        if fingerprint is None:
            began = runtime.guarded.time()
            fingerprint = await self._last_fingerprint(runtime, agent_id)
            spent = runtime.guarded.time() - began
        session = self.session_class(checked(fingerprint, "fingerprint"), agent_id)
        if agent_id is not None:
            runtime.writer.replicas.remember_fingerprint(agent_id, fingerprint)
        return session, runtime.scope(session, options, spent=spent)

    async def _last_fingerprint(self, runtime: Runtime, agent_id: str | None) -> str:
        if agent_id is None:
            raise ConfigurationError("give a fingerprint, an agent_id or a pool")
        try:
            last = await runtime.last_fingerprint(agent_id, self.config.restore_timeout / 2)
        except AttemptFailed as failure:
            name = f"agent/{agent_id}"
            runtime.telemetry.store_failed(Operation.RESTORE, failure.error, code=failure.code, fingerprint=name)
            return runtime.writer.replicas.last_fingerprints.get(agent_id) or name
        return last or f"agent/{agent_id}"

    async def restore(self, fingerprint: str, agent_id: str | None = None) -> BrowserSession | None:
        """Return the stored session, or None: nothing there, nothing usable, or the store is away.

        The session knows what it was restored from: change it and give it to `save`.
        """
        session, scope = await self._open(fingerprint, agent_id, self._options)
        await scope.enter()
        scope.note_use()
        return session if session.reused else None

    async def save(self, session: BrowserSession) -> SaveOutcome:
        """Save a session, one from `restore` or one made by hand.

        A session from `restore` is merged with what others have saved since. One made by hand replaces the stored one.
        Trouble of the store is an outcome: PENDING, or SKIPPED where a good state is found that was not seen before.

        Raises:
            InvalidStateError: the session holds something that cannot be stored.
            LifecycleError: it was restored in another event loop or process. What others have saved since is not known here.
        """
        runtime, scope = await self._services(), backend_of(session)
        if scope is not None and (is_inherited(scope) or scope.loop is not asyncio.get_running_loop()):
            raise LifecycleError(f"{session.fingerprint!r} belongs to another event loop or process: restore it here")
        if not (isinstance(scope, SessionScope) and scope.writer is runtime.writer):
            checked(session.fingerprint, "fingerprint")
            if session.agent_id is not None:
                checked(session.agent_id, "agent_id")
            scope = runtime.scope(session, self._options)
            await scope.load_revision()
        outcome = await scope.checkpoint(session)
        scope.note_use()
        return outcome

    async def evict(self, fingerprint: str, reason: str = "") -> bool:
        """Delete a stored session for everyone, refuse late saves of all who hold it now. Return whether there was one.

        Raises:
            StoreError: the store did not do it. The session may still be there.
        """
        runtime = await self._services()
        return await runtime.writer.invalidate(checked(fingerprint, "fingerprint"), reason)

    def pool(self, name: str) -> Pool:
        """Return a pool of identities, to add, remove and list members. Agents enter it by `reusable_session(pool=name)`."""
        return Pool(name, self._services)

    async def affinity(self, agent_id: str) -> str | None:
        """Return the fingerprint that this agent used last; None when there is none or the store is away."""
        runtime, name = await self._services(), checked(agent_id, "agent_id")
        try:
            return await runtime.last_fingerprint(name, self.config.restore_timeout)
        except AttemptFailed as failure:
            runtime.telemetry.degraded(Operation.RESTORE, failure.error, code=failure.code, fingerprint=f"agent/{name}")
            return None

    async def sessions(self, pattern: str = "*", *, cookies: bool = False) -> AsyncIterator[SessionSummary]:
        """Yield a summary of each stored session, by cursor.

        Args:
            pattern: shell pattern of their fingerprints.
            cookies: whether to open each one, to learn whether it is readable and when its login cookies expire.

        Raises:
            StoreError: the store is away.
        """
        runtime = await self._services()
        with store_errors(runtime.telemetry.named):
            async for summary in summaries(runtime, pattern, cookies=cookies):
                yield summary

    async def history(self, fingerprint: str | None = None) -> AsyncIterator[SessionUse]:
        """Yield the uses that the audit holds, the latest first. Without a fingerprint those of all sessions.

        Raises:
            StoreError: the store is away.
        """
        runtime = await self._services()
        wanted = None if fingerprint is None else checked(fingerprint, "fingerprint")
        with store_errors(runtime.telemetry.named):
            async for use in uses(runtime, wanted):
                yield use

    async def keep_alive(
        self,
        probe: Probe,
        pattern: str = "*",
        *,
        every: Seconds = 3600.0,
        before_expiry: Seconds | None = None,
        concurrency: int = 4,
        probe_timeout: Seconds = 60.0,
        relogin: Probe | None = None,
        on_change: OnChange | None = None,
        once: bool = False,
    ) -> Counter[Liveness]:
        """Probe the stored sessions from time to time, until cancelled or until the manager is closed, so that logins live.

        Each session is probed under its lease, in one of any number of processes. It is saved after a good verdict only.

        Args:
            probe: function of the session, async or plain: opens the site, and returns whether it is logged in. Plain ones
                run in a thread. One that raises, hangs, or returns no bool leaves the login unknown.
            pattern: shell pattern of fingerprints.
            every: time between two probes of a session, in seconds or as a timedelta.
            before_expiry: probe sooner when the session, or its last login cookie, ends in less time than this.
            concurrency: how many probes run at once in this process.
            probe_timeout: time for one probe.
            relogin: function of a session that is logged out, async or plain: logs in again, and returns whether it did.
                The probe decides whether the new login is saved. See `BrowserSession.one_time_code`.
            on_change: called with fingerprint, old and new verdict.
            once: probe those that are due, and return how many got which verdict. A session that the store refuses is unknown.

        Raises:
            ConfigurationError: an argument is wrong.
            StoreError: with `once`, the store is away.
        """
        from session_reuse._logins.keep_alive import KeepAlive

        runtime = await self._services()
        job = KeepAlive(
            runtime=runtime, session_class=self.session_class, probe=probe, pattern=pattern,
            every=seconds("every", every), before_expiry=None if before_expiry is None else seconds("before_expiry", before_expiry),
            concurrency=whole("concurrency", concurrency), probe_timeout=seconds("probe_timeout", probe_timeout),
            relogin=relogin, on_change=on_change,
        )  # fmt: skip
        await until_closed(runtime.spawn(job.run_once() if once else job.run(), "keep_alive"))
        return job.counts

    async def set_totp_secret(self, fingerprint: str, secret: str | None) -> bool:
        """Store the secret of a session's time-based one-time codes, sealed. None removes it.

        Args:
            fingerprint: name of the session. It need not be stored.
            secret: base32 text, or an `otpauth://totp/` address as in the QR code of a site.

        Returns:
            Whether a secret was stored or removed.

        Raises:
            ConfigurationError: it is neither, or there are no `encryption_keys`.
            MissingExtraError: the extra `totp` is not installed.
            StoreError: the store did not do it.
        """
        from session_reuse._session.one_time_codes import OneTimeCodes

        runtime, name = await self._services(), checked(fingerprint, "fingerprint")
        return await OneTimeCodes(runtime.guarded, runtime.codec, self.config).set_secret(name, secret)

    async def cleanup(self) -> None:
        """Remove what expired sessions leave behind, until cancelled or until the manager is closed.

        Calls `on_expired` once for each of them. Several of these may run at once, in any number of processes.

        Raises:
            ConfigurationError: the store is not a Redis.
        """
        from session_reuse._cleanup.job import CleanupJob

        runtime = await self._services()
        await until_closed(runtime.spawn(CleanupJob(runtime.store, self.config, runtime.telemetry).run(), "cleanup"))

    async def cleanup_once(self) -> CleanupReport:
        """Do one pass of the clean-up, and say what it did.

        Raises:
            ConfigurationError: the store is not a Redis.
            StoreError: the store, or a part of it, could not be asked. What could be was done.
        """
        from session_reuse._cleanup.job import CleanupJob

        runtime = await self._services()
        with store_errors(runtime.telemetry.named):
            return await CleanupJob(runtime.store, self.config, runtime.telemetry).run_once()

    def stats(self) -> ManagerStats:
        """Return what this process has done so far."""
        runtime = self._runtime
        if runtime is None:
            return ManagerStats({}, {}, 0, 0, 0, {})
        counts, guard = runtime.telemetry.counts, runtime.guarded
        return ManagerStats(
            entered={outcome.value: count for outcome, count in counts.entered.items()},
            saved={outcome.value: count for outcome, count in counts.saved.items()},
            pending=runtime.writer.replicas.pending,
            flushed=counts.flushed,
            lost=counts.lost,
            breakers={access.value: guard.state(access).value for access in Access},
        )

    def __repr__(self) -> str:
        """Show where it points and whether it is open."""
        where = redacted_url(self.config.url) if self._given is None else type(self._given).__name__
        return f"<SessionManager {where} {'closed' if self._closed else 'open'}>"
