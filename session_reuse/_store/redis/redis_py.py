"""Connections of redis-py as our lanes use them: the one place that touches what redis-py does not document.

redis-py opens, authenticates, packs and keeps the pool. With hiredis a lane then reads and writes on the transport
itself: redis-py's streams take a task, a timer and several coroutines for each reply.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final

from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, MaxConnectionsError, MovedError, ResponseError, SlotNotCoveredError

from session_reuse._resilience.loop_timeouts import LoopTimeouts
from session_reuse._store.redis.resolver import resolve

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

Command = tuple[Any, ...]
Replies = list[Any]
Outcome = Replies | Exception
Done = Callable[["LaneConnection", Outcome], None]

_SLOTS: Final = 16384
_NOT_YET: Final = object()
_CROWDED_PAUSE: Final = 0.01
_CROWDED_TRIES: Final = 20


class LaneConnection:
    """One connection that carries one group of commands at a time.

    Attributes:
        on_lost: called when the connection ends, or misbehaves, while it carries nothing.
    """

    def __init__(self, connection: Any, pool: Any) -> None:
        self.on_lost: Callable[[LaneConnection], None] = lambda _: None
        self._connection = connection
        self._pool = pool
        self._done: Done | None = None
        self._replies: Replies = []

    def send(self, commands: Sequence[Command], done: Done) -> None:
        """Send commands in one write, and call `done` once with their replies or with what went wrong."""
        raise NotImplementedError

    def progress(self) -> int:
        """Return a number that changes when bytes of a reply arrive."""
        raise NotImplementedError

    def unsent(self) -> int:
        """Return how many bytes wait here for the network to take them, the kernel's included."""
        transport = getattr(getattr(self._connection, "_writer", None), "transport", None)
        if transport is None:
            return 0
        unsent: int = transport.get_write_buffer_size()
        with suppress(OSError, AttributeError):
            descriptor = transport.get_extra_info("socket").fileno()
            unsent += struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        return unsent

    async def release(self) -> None:
        """Give the connection back to its pool, open."""
        await self._pool.release(self._connection)

    async def discard(self) -> None:
        """End the connection at once and give it back to its pool, closed."""
        self._done = None
        await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)

    def _finish(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self, outcome)
        else:
            self.on_lost(self)


class _DirectConnection(LaneConnection, asyncio.Protocol):
    """Reads and writes on the transport, with hiredis."""

    def __init__(self, connection: Any, pool: Any) -> None:
        super().__init__(connection, pool)
        self._transport = connection._writer.transport
        self._stream_protocol = self._transport.get_protocol()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=_NOT_YET
        )
        self._awaited = 0
        self._received = 0
        self._transport.set_protocol(self)

    def send(self, commands: Sequence[Command], done: Done) -> None:
        self._done, self._replies, self._awaited = done, [], len(commands)
        if self._transport.is_closing():  # its end has not been reported yet
            return self._finish(RedisConnectionError("the connection is closed"))
        try:
            self._transport.write(b"".join(map(hiredis.pack_command, commands)))
        except Exception as error:  # noqa: BLE001  (a reset connection: see failures.py)
            self._finish(error)

    def progress(self) -> int:
        return self._received

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        replies, awaited, gets = self._replies, self._awaited, self._reader.gets
        self._reader.feed(data)
        try:
            while (reply := gets()) is not _NOT_YET:
                if isinstance(reply, hiredis.PushNotification):
                    continue
                replies.append(reply)
        except InvalidResponse as error:
            self._finish(error)
            return
        if len(replies) > awaited:
            self._finish(RedisConnectionError("the server sent what nobody asked for"))
        elif awaited and len(replies) == awaited:
            self._replies, self._awaited = [], 0
            self._finish(replies)

    def connection_lost(self, error: Exception | None) -> None:
        self._stream_protocol.connection_lost(error)
        self._finish(RedisConnectionError(f"the connection was lost ({type(error).__name__})"))

    async def release(self) -> None:
        self._transport.set_protocol(self._stream_protocol)
        await super().release()

    async def discard(self) -> None:
        self._done = None
        if not self._transport.is_closing():
            self._transport.set_protocol(self._stream_protocol)
            self._transport.abort()
        await super().discard()


class _StreamedConnection(LaneConnection):
    """Reads and writes by redis-py's own methods: without hiredis, and for fakes that have no transport."""

    def __init__(self, connection: Any, pool: Any) -> None:
        super().__init__(connection, pool)
        self._task: asyncio.Task[None] | None = None
        # The lanes have limits of their own; these would start a task for each write.
        self._timeout, connection.socket_timeout = connection.socket_timeout, None

    def send(self, commands: Sequence[Command], done: Done) -> None:
        self._done, self._replies = done, []
        self._task = asyncio.get_running_loop().create_task(self._exchange(commands))

    async def _exchange(self, commands: Sequence[Command]) -> None:
        connection = self._connection
        try:
            if not connection.is_connected or await connection.can_read():
                raise RedisConnectionError("the connection is closed")  # noqa: TRY301
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    self._replies.append(await connection.read_response())
                except ResponseError as error:
                    self._replies.append(error)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is for those who wait)
            self._finish(error)
        else:
            self._finish(self._replies)

    def progress(self) -> int:
        return (len(self._replies) << 40) + len(getattr(getattr(self._connection, "_reader", None), "_buffer", b""))

    async def release(self) -> None:
        self._connection.socket_timeout = self._timeout
        await super().release()

    async def discard(self) -> None:
        self._done = None
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        self._connection.socket_timeout = self._timeout
        await super().discard()


class Connections:
    """Where lanes get their connections: a pool of redis-py, or a node of its Cluster client.

    Attributes:
        most: how many connections there may be, those of the pool's other users included.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = _NodePool(pool) if isinstance(pool, ClusterNode) else pool
        self.most: int = getattr(self._pool, "max_connections", 1 << 30)

    async def open(self) -> LaneConnection:
        """Return a connection that is ready; the caller limits the time."""
        for _ in range(_CROWDED_TRIES):
            with suppress(MaxConnectionsError):  # whoever has them may give one back
                return self._lane_connection(await self._pool.get_connection())
            await asyncio.sleep(_CROWDED_PAUSE)
        return self._lane_connection(await self._pool.get_connection())

    def _lane_connection(self, connection: Any) -> LaneConnection:
        transport = getattr(getattr(connection, "_writer", None), "transport", None)
        direct = hiredis is not None and hasattr(transport, "set_protocol")  # uvloop's is no asyncio.Transport
        return (_DirectConnection if direct else _StreamedConnection)(connection, self._pool)

    async def disconnect_idle(self) -> None:
        """Close what is in the pool and not in use."""
        pool: Any = self._pool
        await pool.disconnect(inuse_connections=False)


class _NodePool:
    """A Cluster node's connections, in the shape of a connection pool."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node
        self.max_connections: int = node.max_connections

    async def get_connection(self) -> Any:
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
        self._node.release(connection)


class _ResolvedConnection:
    """Mixed into redis-py's TCP connections: host names are resolved by us, and time is counted by `LoopTimeouts`."""

    async def _connect(self) -> None:
        me: Any = self
        limit, me.socket_connect_timeout = me.socket_connect_timeout, None
        timeouts = LoopTimeouts()
        try:
            with timeouts.until(timeouts.time() + (limit or 60.0)):
                await self._connect_to_any(await resolve(me.host, limit or 60.0))
        finally:
            me.socket_connect_timeout = limit

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Authenticate and select the database, in one write where both are asked for: a round trip less."""
        me: Any = self
        if me.protocol != 2 or not me.db or not (me.username or me.password) or me.client_name or me.driver_info:
            await super().on_connect_check_health(check_health)  # type: ignore[misc]
            return
        me._parser.on_connect(me)
        credentials = (me.username, me.password) if me.username else (me.password,)
        commands = me.pack_commands([("AUTH", *credentials), ("SELECT", me.db)])
        await me.send_packed_command(commands, check_health=False)
        await me.read_response()
        await me.read_response()

    async def _connect_to_any(self, addresses: Sequence[str]) -> None:
        for address in addresses:
            self._address = address
            try:
                await super()._connect()  # type: ignore[misc]
            except OSError:
                if address is addresses[-1]:
                    raise
            else:
                return

    def _connection_arguments(self) -> dict[str, Any]:
        arguments = dict(super()._connection_arguments())  # type: ignore[misc]
        if "ssl" in arguments:
            arguments.setdefault("server_hostname", arguments["host"])
        return arguments | {"host": self._address}


@cache
def _resolved(kind: type) -> type:
    return type(f"Resolved{kind.__name__}", (_ResolvedConnection, kind), {})


def use_own_resolver(client: Any) -> None:
    """Have a client's host names looked up by `_resolver.py`: the event loop's way may fill the application's threads."""
    manager = getattr(client, "nodes_manager", None)
    if manager is not None:
        kind = _resolved(client.connection_kwargs["connection_class"])
        client.connection_kwargs["connection_class"] = manager.connection_kwargs["connection_class"] = kind
        for node in manager.startup_nodes.values():
            node.connection_class = kind
        return
    sentinels = getattr(getattr(client.connection_pool, "sentinel_manager", None), "sentinels", [])
    for each in (client, *sentinels):
        each.connection_pool.connection_class = _resolved(each.connection_pool.connection_class)


class ClusterNodes:
    """What redis-py's Cluster client knows of the nodes."""

    def __init__(self, client: RedisCluster) -> None:
        self._manager = client.nodes_manager

    @property
    def are_known(self) -> bool:
        """Whether it has learned of any slot yet."""
        return bool(self._manager.slots_cache)

    def primary_of(self, key: str | bytes) -> ClusterNode | None:
        """Return the primary that serves a key; None when the slot has none."""
        nodes = self._manager.slots_cache.get(key_slot(key.encode() if isinstance(key, str) else key))
        return nodes[0] if nodes else None

    def primaries(self) -> list[ClusterNode]:
        """Return all primaries.

        Raises:
            SlotNotCoveredError: a slot has none.
        """
        slots = self._manager.slots_cache
        if len(slots) < _SLOTS:
            raise SlotNotCoveredError(f"{_SLOTS - len(slots)} slots of the Cluster have no node")
        return list({nodes[0].name: nodes[0] for nodes in slots.values()}.values())

    def by_name(self) -> dict[str, ClusterNode]:
        """Return all nodes."""
        return dict(self._manager.nodes_cache)

    async def learn(self, suspect: str | None) -> None:
        """Ask the Cluster who serves what; `suspect` is asked last."""
        await self._manager.initialize(last_failed_node_name=suspect)

    async def follow(self, moved: MovedError) -> None:
        """Note where a slot is now."""
        with suppress(KeyError):  # a slot that had no node until now
            await self._manager.move_slot(moved)

    async def close_idle(self) -> None:
        """Close what is idle: a client that was not initialized by itself would leave it (redis-py 8.1.0)."""
        for node in [*self._manager.nodes_cache.values(), *self._manager.startup_nodes.values()]:
            await node.disconnect_free_connections()
