"""The servers behind a client, and how commands get to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Final, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ReadOnlyError

from session_reuse._store.redis.batching import Batcher
from session_reuse._store.redis.cluster import ClusterTopology
from session_reuse._store.redis.redis_py import Command, Connections, Replies

_ASK_AGAIN_AFTER: Final = 1.0
"""How often at most the sentinels are asked for the master."""
_LEAVING_PAUSE: Final = 0.1
"""How often at most the connections to a read-only server are given up."""


def topology_of(client: Redis, lanes: int, connect_timeout: float = 0.25) -> Topology:
    """Return the servers behind an asyncio redis-py client."""
    if isinstance(client, RedisCluster):
        return ClusterTopology(client, lanes, connect_timeout)
    pool = getattr(client, "connection_pool", None)
    kind = SentinelTopology if hasattr(pool, "get_master_address") else SingleTopology
    return kind(client, lanes, connect_timeout)


class SingleTopology:
    """One server.

    Attributes:
        lanes: the way to it.
    """

    def __init__(self, client: Redis, lanes: int, connect_timeout: float = 0.25) -> None:
        self._client = client
        self._connections = Connections(client.connection_pool)
        self.lanes = Batcher(
            self._connections, lanes, connect_timeout=connect_timeout, on_error=self._notice_change_of_roles
        )
        self._left_at = -_LEAVING_PAUSE
        self.execute: Callable[..., Awaitable[Replies]] = self.lanes.execute

    def _notice_change_of_roles(self, error: Exception) -> None:
        """Drop the connections to a read-only server: the next ones find the new primary behind the same name."""
        now = asyncio.get_running_loop().time()
        if isinstance(error, ReadOnlyError) and now - self._left_at > _LEAVING_PAUSE:
            self._left_at = now
            self.lanes.renew()
            self.lanes.spawn(self._connections.disconnect_idle())

    async def aclose(self) -> None:
        """Fail what still waits, and give the connections back."""
        await self.lanes.aclose()

    def server_of(self, key: str) -> str:  # noqa: ARG002
        """Return the only server's name: none."""
        return ""

    def names(self) -> Collection[str]:
        """Return the only server's name: none."""
        return ("",)

    async def primaries(self) -> list[Redis]:
        """Return the client itself."""
        return [self._client]

    async def servers(self) -> list[Redis]:
        """Return the client itself. Replicas are met when they become primary."""
        return [self._client]

    async def check(self, *, timeout: float) -> None:
        """Do nothing: with one server, what uses it notices."""


class SentinelTopology(SingleTopology):
    """The present master of a Sentinel group. redis-py asks the sentinels only when it connects."""

    def __init__(self, client: Redis, lanes: int, connect_timeout: float = 0.25) -> None:
        super().__init__(client, lanes, connect_timeout)
        self.execute = self._execute
        self._pool: SentinelConnectionPool = client.connection_pool  # type: ignore[assignment]
        self._manager = self._pool.sentinel_manager
        self._sentinels = tuple(self._manager.sentinels)
        self._asked_at = -_ASK_AGAIN_AFTER
        self._asking: asyncio.Task[None] | None = None
        self._closed = False

    def _execute(self, *commands: Command, timeout: float, size: int = 0) -> Awaitable[Replies]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        # After an orderly change of master the old one goes on as a master for about ten seconds, and what is written
        # to it is lost (redis-server 7.0.15, 2026-11-22).
        if now - self._asked_at > _ASK_AGAIN_AFTER and not self._closed:
            self._asked_at = now
            self._asking = loop.create_task(self._ask(), name="session_reuse:topology")
        return self.lanes.execute(*commands, timeout=timeout, size=size)

    async def _ask(self) -> None:
        self._restore_sentinels()
        pool = self._pool
        before = pool.master_address
        with suppress(Exception):  # redis-py raises more than RedisError: see failures.py
            async with asyncio.timeout(_ASK_AGAIN_AFTER):
                if await pool.get_master_address() != before:  # type: ignore[no-untyped-call]
                    self.lanes.renew()

    def _restore_sentinels(self) -> None:
        # redis-py moves the sentinel that has answered to the head of its list. Two requests at once put one there twice
        # and drop another for good (8.1.0).
        if set(self._manager.sentinels) != set(self._sentinels):
            self._manager.sentinels = list(self._sentinels)

    async def check(self, *, timeout: float) -> None:
        """Follow a change of master."""
        async with asyncio.timeout(timeout):
            await self._ask()

    async def aclose(self) -> None:
        """End the lanes, and leave all sentinels in redis-py's list, to be closed."""
        self._closed = True
        await super().aclose()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        self._restore_sentinels()


Topology: TypeAlias = SingleTopology | ClusterTopology
"""The servers behind a client."""
