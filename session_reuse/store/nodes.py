"""One node of a Cluster: its lanes and their connections. Must never know of another node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis.asyncio.cluster import ClusterNode

from session_reuse.store.batching import Batcher, Replies
from session_reuse.store.connections import LaneConnections


class _NodePool:
    """A node's connections, in the shape of a connection pool."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node
        self.max_connections: int = node.max_connections

    async def get_connection(self) -> Any:
        """Return a connection that is open."""
        connection = self._node.acquire_connection()
        try:
            await self._node.disconnect_if_needed(connection)
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            self._node.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        self._node.release(connection)


class NodeLanes:
    """The way to one node.

    Args:
        node: redis-py's idea of it.
        lanes: connections for small values.
        send: sends commands to a node; what the batcher calls.
    """

    def __init__(self, node: ClusterNode, lanes: int, send: Callable[..., Awaitable[Replies]]) -> None:
        self.node = node
        self.connections = LaneConnections(_NodePool(node), lanes + 1)
        self.batcher = Batcher(partial(send, node), lanes)

    async def aclose(self) -> None:
        """End the lanes and their connections; redis-py has forgotten those of nodes that have left."""
        await self.batcher.aclose()
        await self.connections.renew()
