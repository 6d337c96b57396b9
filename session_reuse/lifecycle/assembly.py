"""How a manager's services are put together: store, guard, codec, metrics, flusher, spool. Must hold no state of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from session_reuse._telemetry import Event, StoreHealth, Telemetry, health_of, log
from session_reuse.config import Config, redacted_url
from session_reuse.errors import ConfigurationError, SessionReuseError
from session_reuse.lifecycle.services import Services
from session_reuse.lifecycle.waiting import Flusher
from session_reuse.outcome import Outcome
from session_reuse.resilience.breaker import BreakerState
from session_reuse.resilience.failure import Failure
from session_reuse.resilience.guard import Change, Guard, Listener
from session_reuse.resilience.pending import PendingSaves
from session_reuse.state.sealing import AesGcm
from session_reuse.store.connect import Connection, connect
from session_reuse.store.interface import Store
from session_reuse.store.keys import Keys
from session_reuse.store.redis_store import RedisStore
from session_reuse.transfer import codec_for

if TYPE_CHECKING:
    from session_reuse.lifecycle.spooling import Spooler

_EMBEDDED_START: Final = 10.0
"""How long the very first enter may wait for a private server to start; it goes on starting after that."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """What a manager keeps: the services, who flushes their waiting saves, and the connection that is ours to close."""

    services: Services
    flusher: Flusher
    connection: Connection | None


def is_store(given: Any) -> bool:
    """Return whether this is a store with our interface, rather than a client."""
    return hasattr(given, "enter")


async def assemble(config: Config, given: Any) -> Assembled:
    """Put the services together; connects to nothing, except that a private server is started.

    Args:
        config: the settings.
        given: a client or a store that is the caller's to close; None to connect to `config.url`.

    Raises:
        ConfigurationError: a setting is wrong, or something it needs is missing.
    """
    codec = await asyncio.to_thread(codec_for, config) if callable(config.encryption_keys) else codec_for(config)
    keys = Keys(config.key_prefix, config.deadline_buckets)
    connection = None if is_store(given) else await _connection(config, given)
    store = given if connection is None else _redis_store(config, keys, connection, own=given is None)
    services = Services(
        config=config,
        keys=keys,
        store=store,
        guard=Guard(attempt_timeout=config.attempt_timeout, servers=store.servers),
        codec=codec,
        telemetry=Telemetry(config.registry, _health(config, given)),
        pending=PendingSaves(config.pending_max, config.pending_max_bytes),
    )
    flusher = Flusher(services)
    services.on_pending = flusher.wake
    if connection is not None and connection.revive is not None:
        services.on_failure = _Reviver(services, connection.revive)
    services.spooler = _spooler_for(services)
    services.guard.on_change += [_teller(services), _recovery(services, flusher)]
    return Assembled(services, flusher, connection)


async def _connection(config: Config, given: Any) -> Connection:
    if given is not None:
        return Connection(given)
    connection = connect(config)
    if connection.revive is not None:
        await _start_private_server(connection.revive)
    return connection


def _health(config: Config, given: Any) -> StoreHealth:
    """Return what is known of the store: one state for all managers of a URL, one of its own for a given client."""
    if given is None:
        return health_of(redacted_url(config.url))
    pool = getattr(given, "connection_pool", None)
    where = getattr(pool, "connection_kwargs", None) or {}
    address = where.get("path") or f"{where.get('host', '')}:{where.get('port', '')}"
    return StoreHealth(f"{type(given).__name__} {address}".rstrip(" :"))


def _redis_store(config: Config, keys: Keys, connection: Connection, *, own: bool) -> Store:
    return RedisStore(
        connection.client,
        keys,
        lanes=config.lanes,
        wait=(config.wait_replicas, config.wait_timeout),
        own_client=own,
        connect_timeout=config.connect_timeout,
    )


async def _start_private_server(start: Callable[[], None]) -> None:
    """Start the embedded server; if it takes long, enters degrade meanwhile as for any store that is away."""
    starting = asyncio.create_task(asyncio.to_thread(start))
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

    def __init__(self, services: Services, revive: Callable[[], None]) -> None:
        self._services = services
        self._revive = revive
        self._task: asyncio.Task[None] | None = None

    def __call__(self, failure: Failure) -> None:
        if failure.error.outcome is not Outcome.TIMEOUT and (self._task is None or self._task.done()):
            self._task = self._services.spawn(self._run(), "revive")

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._revive)
        except SessionReuseError as error:
            log.warning(Event.DEGRADED, operation="revive", error=type(error).__name__)


def _teller(services: Services) -> Listener:
    def tell(change: Change) -> None:
        services.telemetry.breaker_changed(
            change.direction.value,
            services.guard.state(change.direction).value,
            server=change.server,
            old=change.old.value,
            new=change.new.value,
        )

    return tell


def _recovery(services: Services, flusher: Flusher) -> Listener:
    def recover(change: Change) -> None:
        if change.new is not BreakerState.CLOSED:
            return
        if services.pending:
            flusher.wake()
        if services.spooler is not None:
            services.spooler.replay()

    return recover


def _spooler_for(services: Services) -> Spooler | None:
    config = services.config
    if config.spool_dir is None:
        return None
    from session_reuse.lifecycle.spooling import Spooler
    from session_reuse.resilience.spool import Spool

    seal = services.codec.seal
    if not isinstance(seal, AesGcm):
        raise ConfigurationError("spool_dir needs encryption_keys: sessions are never written to disk in plain")
    spool = Spool(
        config.spool_dir,
        seal,
        max_entries=config.pending_max,
        max_bytes=config.pending_max_bytes,
        max_content=4 * config.max_state_bytes,
        ttl=config.ttl,
    )
    spooler = Spooler(services, spool)
    spooler.replay()
    return spooler
