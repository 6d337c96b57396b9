"""The servers behind a client, and how commands get to them. Must never leave a client with a primary that is none."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, Protocol

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ReadOnlyError

from session_reuse.store.batching import Batcher, Command, Replies
from session_reuse.store.cluster import ClusterTopology
from session_reuse.store.connections import LaneConnections

_LEAVING_PAUSE: Final = 0.1
"""How often at most the connections to a read-only server are given up."""


class Topology(Protocol):
    """The servers behind a client."""

    async def execute(self, *commands: Command, timeout: float, size: int = 0) -> Replies:
        """Send commands, each where it belongs, and return their replies, errors of single commands in their place."""

    async def primaries(self) -> list[Any]:
        """Return what takes `execute_command` for each server that holds data of its own."""

    async def servers(self) -> list[Any]:
        """Return what takes `execute_command` for every server, replicas included as far as they are known."""

    async def check(self, *, timeout: float) -> None:
        """Notice a change of roles while nobody uses the servers."""

    async def aclose(self) -> None:
        """Fail what still waits."""


def topology_of(client: Any, lanes: int) -> Topology:
    """Return the servers behind an asyncio redis-py client."""
    return ClusterTopology(client, lanes) if isinstance(client, RedisCluster) else SingleTopology(client, lanes)


class SingleTopology:
    """One server, or the present master of a Sentinel group: redis-py asks the sentinels when it connects."""

    def __init__(self, client: Any, lanes: int) -> None:
        self._client = client
        self._connections = LaneConnections(client.connection_pool)
        self._batcher = Batcher(self._send, lanes)
        self._left_at = 0.0
        self.execute = self._batcher.execute

    async def _send(self, commands: Sequence[Command]) -> Replies:
        replies = await self._connections.send(commands)
        for reply in replies:
            if isinstance(reply, ReadOnlyError):
                await self._leave_old_primary()
                break
        return replies

    async def _leave_old_primary(self) -> None:
        """Drop the connections, so that the next ones find the new primary behind the same name."""
        now = monotonic()
        if now - self._left_at > _LEAVING_PAUSE:
            self._left_at = now
            await self._connections.release()
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Fail what still waits, and give the connections back."""
        await self._batcher.aclose()
        await self._connections.release()

    async def primaries(self) -> list[Any]:
        """Return the client itself."""
        return [self._client]

    async def servers(self) -> list[Any]:
        """Return the client itself; replicas are met when they become primary."""
        return [self._client]

    async def check(self, *, timeout: float) -> None:
        """Do nothing: with one server, what uses it notices."""
