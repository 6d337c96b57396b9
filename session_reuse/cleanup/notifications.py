"""Keyspace notifications: hints that a session may be gone. Must never be relied on; what is missed is reconciled.

Facts (redis-server 7.0.15, redis-py 8.1, measured 2026-11-22): with 200,000 other keys 10 of 100 events come within 75 s;
CONFIG SET is forgotten at a restart, after which redis-py subscribes anew and says nothing; replicas say `del` where
primaries say `expired`; on a Cluster redis-py's listener does not follow a fail-over by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.keyspace_notifications import AsyncClusterKeyspaceNotifications, AsyncKeyspaceNotifications
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.keyspace_notifications import KeyeventChannel

from session_reuse._telemetry import Event, log
from session_reuse.store.redis_store import RedisStore

_EVENTS: Final = ("expired", "del", "evicted")
_SETTING: Final = "notify-keyspace-events"
_NEEDED: Final = frozenset("Exge")
_ALL_CLASSES: Final = frozenset("g$lshzxetd")
"""What the flag `A` stands for."""
_POLL: Final = 1.0
_LOOK_AROUND: Final = 5.0
"""How often the nodes of a Cluster are asked what they are."""
_TIMEOUT: Final = 2.0

Tell = Callable[[], None]


class _Subscription(PubSub):
    """A subscription that tells when it was made anew: what happened in between has gone by unheard."""

    def __init__(self, connection_pool: Any, tell: Tell) -> None:
        super().__init__(connection_pool, ignore_subscribe_messages=False)
        self._acknowledged = 0
        self._tell = tell

    async def handle_message(self, response: Any, ignore_subscribe_messages: bool = False) -> Any:
        """Count the acknowledgements on the way through: redis-py does not show them."""
        if isinstance(response, list) and response[0] in {b"subscribe", "subscribe"}:
            self._acknowledged += 1
            if self._acknowledged > len(_EVENTS) and self._acknowledged % len(_EVENTS) == 0:
                self._tell()
        return await super().handle_message(response, ignore_subscribe_messages)  # type: ignore[no-untyped-call]


class _Notifications(AsyncKeyspaceNotifications):
    def __init__(self, client: Any, tell: Tell) -> None:
        super().__init__(client)
        self._pubsub = _Subscription(client.connection_pool, tell)


class _ClusterNotifications(AsyncClusterKeyspaceNotifications):
    def __init__(self, client: RedisCluster, tell: Tell) -> None:
        super().__init__(client)
        self._tell = tell

    async def _ensure_node_pubsub(self, node: ClusterNode) -> PubSub:
        if node.name in self._node_pubsubs:
            return self._node_pubsubs[node.name]
        pubsub = await super()._ensure_node_pubsub(node)
        if self.subscribed:  # a node that has come to be a primary meanwhile
            self._tell()
        self._node_pubsubs[node.name] = _Subscription(pubsub.connection_pool, self._tell)
        return self._node_pubsubs[node.name]


class Listener:
    """Listens for events and passes on the fingerprints of sessions that may be gone.

    Args:
        store: whose servers to listen to.
        configure: whether the servers may be told to send events.
        on_hint: gets a fingerprint.
        on_gap: called when events may have been missed.
    """

    def __init__(
        self, store: RedisStore, *, configure: bool, on_hint: Callable[[str], None], on_gap: Callable[[], None]
    ) -> None:
        self._store = store
        self._configure = configure
        self._on_hint = on_hint
        self._on_gap = on_gap
        self._gap = False
        self._warned = False

    async def listen(self) -> None:
        """Listen until something goes wrong.

        Raises:
            Exception: whatever it was; call again after a pause.
        """
        await self._check_setting()
        self._gap = False
        async with self._notifications() as notifications:
            await notifications.subscribe(*(KeyeventChannel(event, db=self._database()) for event in _EVENTS))
            looked = monotonic()
            while True:
                found = await notifications.get_message(timeout=_POLL)
                if found is not None:
                    self._hint(found.key)
                if monotonic() - looked > _LOOK_AROUND:
                    await self._look_around(notifications)
                    looked = monotonic()
                if self._gap:
                    await self._close_gap()

    def _notifications(self) -> Any:
        client = self._store.client
        kind = _ClusterNotifications if isinstance(client, RedisCluster) else _Notifications
        return kind(client, self._note_gap)

    def _database(self) -> int:
        pool = getattr(self._store.client, "connection_pool", None)
        return int(pool.connection_kwargs.get("db") or 0) if pool is not None else 0

    def _hint(self, key: str) -> None:
        fingerprint = self._store.keys.fingerprint_of(key)
        if fingerprint:
            self._on_hint(fingerprint)

    def _note_gap(self) -> None:
        self._gap = True

    async def _close_gap(self) -> None:
        """After a silence: a restart has forgotten the setting, and what has expired meanwhile is to be reconciled."""
        self._gap = False
        log.info(Event.NOTIFICATIONS_GAP)
        await self._check_setting()
        self._on_gap()

    async def _look_around(self, notifications: Any) -> None:
        """Follow a fail-over: the listener itself would not notice."""
        if isinstance(notifications, _ClusterNotifications):
            await self._store.topology.check(timeout=_TIMEOUT)
            await notifications.refresh_subscriptions()  # type: ignore[no-untyped-call]

    async def _check_setting(self) -> None:
        """See that the servers send the events, on replicas too: they may be primaries tomorrow."""
        async with asyncio.timeout(2 * _TIMEOUT):
            for server in await self._store.topology.servers():
                try:
                    await self._check_server(server)
                except (RedisConnectionError, RedisTimeoutError, OSError):
                    continue  # it is met again when it is back
                except (RedisError, RedisClusterException) as error:
                    self._warn(f"CONFIG is not allowed ({type(error).__name__})")

    async def _check_server(self, server: Any) -> None:
        flags = _flags(await server.execute_command("CONFIG GET", _SETTING))
        missing = _NEEDED - (flags | _ALL_CLASSES if "A" in flags else flags)
        if not missing:
            return
        if self._configure:
            await server.execute_command("CONFIG SET", _SETTING, "".join(sorted(flags | missing)))
        else:
            self._warn("the server does not send the events")

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            remedy = f"set {_SETTING} to Exge, or allow it by configure_notifications=True; until then expired sessions"
            log.warning(Event.NOTIFICATIONS_OFF, why=why, remedy=f"{remedy} are found at the next reconcile only")


def _flags(reply: Any) -> frozenset[str]:
    """Return the flags in the answer to CONFIG GET. The server reorders them: only a set can be compared."""
    values = list(reply.values()) if isinstance(reply, dict) else list(reply)[1:2]
    value = values[0] if values else ""
    return frozenset(value.decode() if isinstance(value, bytes) else str(value))
