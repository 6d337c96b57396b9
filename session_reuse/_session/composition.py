"""The composition root: how the parts of one manager are put together."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias, TypeGuard
from weakref import WeakKeyDictionary

from session_reuse._browser_session import BrowserSession
from session_reuse._resilience.breaker import BreakerState
from session_reuse._resilience.failure import AttemptFailed
from session_reuse._session.clock import Clock, elapsed
from session_reuse._session.guarded_store import Access, GuardedStore, Listener
from session_reuse._session.options import ResolvedOptions
from session_reuse._session.replica import Invalidated, Replicas
from session_reuse._session.scope import SessionScope
from session_reuse._session.snapshots import Snapshots
from session_reuse._session.tasks import Spawn, Tasks, in_own_thread
from session_reuse._session.writer import Writer
from session_reuse._state.codec import Codec
from session_reuse._store.keys import Keys
from session_reuse._store.redis.connect import Connection, StoreOrClient, connect
from session_reuse._store.redis.store import RedisStore
from session_reuse._stored_form import codec_for
from session_reuse._telemetry import Event, StoreHealth, Telemetry, health_of, log
from session_reuse.config import Config, redacted_url
from session_reuse.errors import ConfigurationError, SessionReuseError
from session_reuse.outcome import Outcome

_KEYS_LIMIT: Final = 10.0
"""Seconds that a service for keys may take. Without keys no session can be read or kept, so an enter cannot go on."""
_EMBEDDED_START: Final = 10.0
"""How long the very first enter may wait for a private server to start. It goes on starting after that."""
_Places: TypeAlias = dict[tuple[str, str], dict[str, Invalidated]]
_by_url: Final[_Places] = {}
"""URL and key prefix -> fingerprint -> what a manager of this process has invalidated there."""
_by_client: Final[WeakKeyDictionary[StoreOrClient, _Places]] = WeakKeyDictionary()


@dataclass(slots=True, kw_only=True)
class Runtime:
    """The parts of one manager, in one event loop.

    Attributes:
        connection: the client, if this manager has made it.
        tasks: background work. Ends with the manager.
    """

    config: Config
    keys: Keys
    store: RedisStore
    codec: Codec
    telemetry: Telemetry
    guarded: GuardedStore
    snapshots: Snapshots
    writer: Writer
    clock: Clock
    tasks: Tasks
    connection: Connection | None = None

    def scope(self, session: BrowserSession, options: ResolvedOptions, spent: float = 0.0) -> SessionScope:
        """Return the life of one `with`. So many seconds of its budget to enter are spent."""
        return SessionScope(
            session, options, config=self.config, store=self.guarded, snapshots=self.snapshots, writer=self.writer,
            telemetry=self.telemetry, clock=self.clock, spawn=self.spawn, spent=spent,
        )  # fmt: skip

    @property
    def spawn(self) -> Spawn:
        """Run work in a separate task that lives until it is done or the manager is closed."""
        return self.tasks.spawn

    async def finish(self) -> None:
        """Wait for what is under way, within its limits: probes, exits, saves that wait, releases of leases."""
        for keeper in self.tasks.named("keep_alive"):
            keeper.cancel()
        for name in "keep_alive", "leave":  # probes leave sessions at their end
            await self.tasks.wait_for(name, self.config.save_timeout)
        until = self.clock.elapsed() + self.config.close_timeout
        await self.writer.finish(self.config.close_timeout)
        # Releases go on meanwhile, and repeat as long as the store is away.
        await self.tasks.wait_for("release", until - self.clock.elapsed())

    async def last_fingerprint(self, agent_id: str, budget: float) -> str | None:
        """Return the fingerprint that an agent used last; None when none is stored.

        Raises:
            AttemptFailed: the store is away.
        """
        entry = await self.guarded.run_on(
            Access.READ, self.keys.affinity(agent_id), budget,
            lambda store, timeout: store.affinity(agent_id, timeout=timeout),
        )  # fmt: skip
        return self.snapshots.affinity_of(agent_id, entry)


def is_store(given: object) -> TypeGuard[RedisStore]:
    """Return whether this is a store with our interface, rather than a client."""
    return hasattr(given, "enter")


async def compose(config: Config, given: StoreOrClient | None, known: Replicas | None = None) -> Runtime:
    """Build the parts of a manager. Connects to nothing, except that a private server is started.

    Args:
        config: the settings.
        given: a client or a store that is the caller's to close; None to connect to `config.url`.
        known: what an earlier event loop of this process has left.

    Raises:
        ConfigurationError: a setting is wrong, or something it needs is missing.
    """
    codec = await _codec(config)
    keys = Keys(config.key_prefix)
    connection = None
    if is_store(given):
        store = given
    else:
        connection = await _connection(config, given)
        store = RedisStore(
            connection.client, keys, lanes=config.lanes, wait=(config.wait_replicas, config.save_timeout / 20),
            own_client=given is None, connect_timeout=config.connect_timeout,
        )  # fmt: skip
    telemetry = Telemetry(config.registry, _health(config, given))
    guarded = GuardedStore(store, keys, attempt_timeout=config.attempt_timeout)
    snapshots = Snapshots(codec, keys)
    clock = Clock(time.time, elapsed, random.Random())
    tasks, replicas = Tasks(), known or _replicas(config, given)
    runtime = Runtime(
        config=config, keys=keys, store=store, codec=codec, telemetry=telemetry, guarded=guarded,
        snapshots=snapshots, clock=clock, tasks=tasks, connection=connection,
        writer=Writer(config, guarded, snapshots, telemetry, clock, tasks.spawn, replicas),
    )  # fmt: skip
    if connection is not None and connection.revive is not None:
        guarded.on_failure = _Reviver(runtime.spawn, connection.revive)
    if config.spool_dir is not None:
        from session_reuse._session.spool.disk_replicas import disk_replicas

        runtime.writer.disk = disk_replicas(config, codec, runtime.writer, clock, runtime.spawn)
    guarded.on_change = _follow(guarded, telemetry, runtime.writer)
    return runtime


async def _codec(config: Config) -> Codec:
    if not callable(config.encryption_keys):
        return codec_for(config)
    try:
        async with asyncio.timeout(_KEYS_LIMIT):
            return await in_own_thread(partial(codec_for, config))
    except TimeoutError:
        raise ConfigurationError(f"encryption_keys: the callable has not answered for {_KEYS_LIMIT:g} s") from None


async def _connection(config: Config, given: StoreOrClient | None) -> Connection:
    if given is not None:
        return Connection(given)
    connection = connect(config)
    if connection.revive is not None and connection.release is not None:
        try:
            await _start_private_server(connection.revive)
        except BaseException:  # a cancelled enter: the server goes on starting, and would live as long as this process
            asyncio.get_running_loop().run_in_executor(None, connection.release)  # it waits for the end of the start
            raise
    return connection


def _replicas(config: Config, given: StoreOrClient | None) -> Replicas:
    """Return empty replicas. Managers of one place in one process know of each other's invalidations."""
    places = _by_url if given is None else _by_client.setdefault(given, {})
    place = (redacted_url(config.url) if given is None else "", config.key_prefix)
    return Replicas(config.recent_bytes, config.pending_max, config.pending_max_bytes, places.setdefault(place, {}))


def _health(config: Config, given: StoreOrClient | None) -> StoreHealth:
    """Return the known health of the store: one object for all managers of a URL, a separate one for a given client."""
    if given is None:
        return health_of(redacted_url(config.url))
    pool = getattr(given, "connection_pool", None)
    where = getattr(pool, "connection_kwargs", None) or {}
    address = where.get("path") or f"{where.get('host', '')}:{where.get('port', '')}"
    return StoreHealth(f"{type(given).__name__} {address}".rstrip(" :"))


async def _start_private_server(start: Callable[[], None]) -> None:
    """Start the embedded server. If it takes long, enters degrade meanwhile as for any store that is away."""
    starting = asyncio.get_running_loop().run_in_executor(None, start)
    done, _ = await asyncio.wait({starting}, timeout=_EMBEDDED_START)
    error = starting.exception() if done else TimeoutError()
    if isinstance(error, ConfigurationError):
        raise error
    if error is None:
        log.info(Event.EMBEDDED_STARTED, note="no Redis configured: using a private redis-server of this user")
    else:
        log.warning(Event.DEGRADED, operation="start", error=type(error).__name__)


class _Reviver:
    """Starts a private server again when a failure says that it has died."""

    def __init__(self, spawn: Spawn, revive: Callable[[], None]) -> None:
        self._spawn = spawn
        self._revive = revive
        self._task: asyncio.Task[None] | None = None

    def __call__(self, failure: AttemptFailed) -> None:
        if failure.error.outcome is not Outcome.TIMEOUT and (self._task is None or self._task.done()):
            self._task = self._spawn(self._run(), "revive")

    async def _run(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._revive)
        except SessionReuseError as error:
            log.warning(Event.DEGRADED, operation="revive", error=type(error).__name__)


def _follow(store: GuardedStore, telemetry: Telemetry, writer: Writer) -> Listener:
    """Return what shows each change of a breaker, and delivers what waits when one has closed."""

    def changed(server: str, access: Access, old: BreakerState, new: BreakerState) -> None:
        worst = store.state(access).value
        telemetry.breaker_changed(access.value, worst, server=server, old=old.value, new=new.value)
        if new is BreakerState.CLOSED:
            if writer.replicas.pending:
                writer.wake()
            if writer.disk is not None:
                writer.disk.replay()

    return changed
