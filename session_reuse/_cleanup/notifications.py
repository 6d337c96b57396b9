"""Keyspace notifications: hints that a session may be gone. The reconcile finds the others.

With 200,000 other keys, 10 of 100 events arrived within 75 s (redis-server 7.0.15, 2026-11-22).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from session_reuse._cancellation import SwallowedCancellation
from session_reuse._store.redis.store import RedisStore
from session_reuse._telemetry import Event, log

# Replicas send `del` where primaries send `expired` (redis-server 7.0.15, 2026-11-22).
_EVENTS: Final = ("expired", "del", "evicted")
_SETTING: Final = "notify-keyspace-events"
NEEDED_EVENTS: Final = frozenset("Exge")
"""Keyevent channel, expired, generic and evicted: what the job listens to."""
_ALL_CLASSES: Final = frozenset("g$lshzxetd")
"""What the flag `A` stands for."""
_FIRST_PAUSE: Final = 0.2
_POLL: Final = 1.0
_TOPOLOGY_INTERVAL: Final = 5.0
_TIMEOUT: Final = 2.0


@dataclass(slots=True, kw_only=True, eq=False)
class Notifications:
    """Listens to each primary and passes on the fingerprints of sessions that may be gone.

    Attributes:
        store: whose servers to listen to.
        configure: whether to set `notify-keyspace-events` on the servers.
        on_hint: gets a fingerprint.
        on_gap: called when events may have been missed.
        on_trouble: gets a step and the error that ended it. The step is repeated.
    """

    store: RedisStore
    configure: bool
    on_hint: Callable[[str], None]
    on_gap: Callable[[], None]
    on_trouble: Callable[[str, Exception], None]
    _warned: bool = False

    async def run(self, longest_pause: float) -> None:
        """Listen until cancelled, to the primaries of the moment. Pause so long, at most, between two attempts to listen."""
        listeners: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                pools = await self._pools()
                for name in listeners.keys() - pools.keys():
                    listeners.pop(name).cancel()
                for name in pools.keys() - listeners.keys():
                    listeners[name] = group.create_task(self._follow(pools[name], longest_pause))
                await asyncio.sleep(_TOPOLOGY_INTERVAL)

    async def _pools(self) -> dict[str, ConnectionPool]:
        """Return a connection pool for each primary, by name."""
        client = self.store.client
        if not isinstance(client, RedisCluster):
            return {"": _pool_beside(client.connection_pool)}
        try:
            await self.store.topology.check(timeout=_TIMEOUT)
        except Exception as error:  # noqa: BLE001  (redis-py raises more than RedisError)
            self.on_trouble("topology", error)
        return {
            node.name: ConnectionPool(connection_class=node.connection_class, **node.connection_kwargs)
            for node in client.get_primaries()
        }

    async def _follow(self, pool: ConnectionPool, longest_pause: float) -> None:
        """Listen to one server, and again after each error."""
        loop, pause, cancellation = asyncio.get_running_loop(), _FIRST_PAUSE, SwallowedCancellation()
        has_listened = asyncio.Event()
        while True:
            began = loop.time()
            try:
                # Each time: a restart of the server forgets CONFIG SET (redis-server 7.0.15, 2026-11-22).
                await self._check_setting()
                cancellation.raise_again()
                await self._listen(pool, cancellation, has_listened)
            except Exception as error:  # noqa: BLE001  (the next attempt may work after any error)
                cancellation.raise_again()
                self.on_trouble("notifications", error)
            # After a long time of listening this is a new failure, so the pauses start again.
            pause = _FIRST_PAUSE if loop.time() - began > longest_pause else min(2 * pause, longest_pause)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            if has_listened.is_set():  # a server that is still away is no second gap
                has_listened.clear()
                log.info(Event.NOTIFICATIONS_GAP)
                self.on_gap()

    async def _listen(
        self, pool: ConnectionPool, cancellation: SwallowedCancellation, has_listened: asyncio.Event
    ) -> None:  # fmt: skip
        """Listen until redis-py subscribes again after a disconnect, because events are missed then."""
        pubsub, database = PubSub(pool), pool.connection_kwargs.get("db") or 0
        try:
            await pubsub.subscribe(*(f"__keyevent@{database}__:{event}" for event in _EVENTS))
            # redis-py subscribes again after a disconnect: the second confirmation of an event is the sign of one.
            subscribed = 0
            while subscribed <= len(_EVENTS):
                message = await pubsub.get_message(timeout=_POLL)
                cancellation.raise_again()
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    subscribed += 1
                    has_listened.set()
                else:
                    self._hint(message["data"])
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _hint(self, key: bytes) -> None:
        fingerprint = self.store.keys.fingerprint_of(key.decode(errors="replace"))
        if fingerprint:
            self.on_hint(fingerprint)

    async def _check_setting(self) -> None:
        """Check that the servers send the events."""
        async with asyncio.timeout(_TIMEOUT):
            servers = await self.store.topology.servers()
        for server in servers:  # replicas as well, because they may become primaries
            try:
                async with asyncio.timeout(_TIMEOUT):
                    await self._check_server(server)
            except (RedisConnectionError, RedisTimeoutError, OSError):
                continue  # it is checked when it is back
            except (RedisError, RedisClusterException) as error:
                self._warn(f"CONFIG is not allowed ({type(error).__name__})")

    async def _check_server(self, server: Any) -> None:
        # The server reorders the flags: only a set can be compared.
        flags = frozenset((await server.execute_command("CONFIG GET", _SETTING)).get(_SETTING, ""))
        missing = missing_events(flags)
        if not missing:
            return
        if self.configure:
            await server.execute_command("CONFIG SET", _SETTING, "".join(sorted(flags | missing)))
        else:
            self._warn("the server does not send the events")

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            remedy = f"set {_SETTING} to Exge, or allow it by configure_notifications=True. Until then expired sessions"
            log.warning(Event.NOTIFICATIONS_OFF, why=why, remedy=f"{remedy} are found at the next reconcile only")


def missing_events(flags: frozenset[str]) -> frozenset[str]:
    """Return the flags that `notify-keyspace-events` lacks for the job."""
    return NEEDED_EVENTS - (flags | _ALL_CLASSES if "A" in flags else flags)


def _pool_beside(pool: ConnectionPool) -> ConnectionPool:
    """Return a pool for a connection that is kept for ever. Taken out of a small pool, it would be missing there for agents."""
    if isinstance(pool, SentinelConnectionPool):  # it finds the primary
        return pool
    return ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs)
