"""Connections of redis-py as our lanes use them: the one place that touches what redis-py does not document.

redis-py opens, authenticates, packs and keeps the pool. With hiredis a lane then reads and writes on the transport
itself: redis-py's streams take a task, a timer and several coroutines for each reply.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, Protocol, TypeAlias

from redis.asyncio.cluster import ClusterNode
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, MaxConnectionsError, ResponseError

from session_reuse._resilience.loop_timeouts import LoopTimeouts
from session_reuse._store.redis.resolver import avoid, resolve

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

Argument: TypeAlias = str | bytes | int | float
Command: TypeAlias = tuple[Argument, ...]
Replies: TypeAlias = list[Any]
"""Bytes, numbers, None, lists of them, or the error of a single command in its place."""

_NOT_YET: Final = object()
_CROWDED_PAUSE: Final = 0.01
_CROWDED_TRIES: Final = 20


class Send(Protocol):
    """Sends commands and returns their replies, errors of single commands in their place."""

    async def __call__(self, *commands: Command, timeout: float, size: int = 0) -> Replies:
        """Send commands in one write to each server."""


class StalledError(TimeoutError):
    """One connection is silent although the server answers on others."""


class ClosedError(ConnectionError):
    """We have closed the connections. It says nothing about the server."""


def _ignore(_: Replies | Exception) -> None:
    """Take the place of a handler that is not set."""


class LaneConnection(ABC):
    """One connection that carries one group of commands at a time.

    Attributes:
        on_end: called with the replies of a group, or with what ended it. Without a group under way it is called
            when the connection ends.
    """

    def __init__(self, connection: Any, pool: Any) -> None:
        self.on_end: Callable[[Replies | Exception], None] = _ignore
        self._connection = connection
        self._pool = pool
        self._replies: Replies = []
        self._awaited = 0

    def send(self, commands: Sequence[Command]) -> None:
        """Write commands, and expect their replies."""
        self._replies, self._awaited = [], len(commands)
        self.write(commands)

    @abstractmethod
    def write(self, commands: Sequence[Command]) -> None:
        """Write commands."""

    @abstractmethod
    def progress(self) -> int:
        """Return a number that changes when bytes of a reply arrive."""

    def unsent(self) -> int:
        """Return how many bytes wait here for the network to take them, the kernel's included."""
        transport: Any = getattr(getattr(self._connection, "_writer", None), "transport", None)
        if not hasattr(transport, "get_write_buffer_size"):  # that of a fake server
            return 0
        unsent: int = transport.get_write_buffer_size()
        with suppress(OSError, AttributeError):
            descriptor = transport.get_extra_info("socket").fileno()
            unsent += struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        return unsent

    async def release(self) -> None:
        """Return the connection to its pool, open."""
        await self._pool.release(self._connection)

    async def discard(self) -> None:
        """End the connection at once and return it to its pool, closed."""
        self.on_end = _ignore
        await self._connection.disconnect(nowait=True)
        with suppress(KeyError):  # the pool was closed meanwhile, and knows it no more
            await self._pool.release(self._connection)


class _DirectConnection(LaneConnection, asyncio.Protocol):
    """Reads and writes on the transport, with hiredis."""

    def __init__(self, connection: Any, pool: Any) -> None:
        super().__init__(connection, pool)
        self._transport = connection._writer.transport
        self._stream_protocol = self._transport.get_protocol()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=connection._parser.parse_error, notEnoughData=_NOT_YET
        )
        self._received = 0
        self._transport.set_protocol(self)

    def write(self, commands: Sequence[Command]) -> None:
        if self._transport.is_closing():  # its end has not been reported yet
            raise RedisConnectionError("the connection is closed")
        packed = map(hiredis.pack_command, commands)  # type: ignore[arg-type]  # its stub takes one argument
        self._transport.write(b"".join(packed))

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
            self.on_end(error)
            return
        if len(replies) > awaited:
            self.on_end(RedisConnectionError("the server sent replies without a command"))
        elif awaited and len(replies) == awaited:
            self._replies, self._awaited = [], 0
            self.on_end(replies)

    def connection_lost(self, error: Exception | None) -> None:
        self._stream_protocol.connection_lost(error)  # so that the pool does not hand it out again
        self.on_end(RedisConnectionError(f"the connection was lost ({type(error).__name__})"))

    async def release(self) -> None:
        self.on_end = _ignore
        self._transport.set_protocol(self._stream_protocol)
        await super().release()

    async def discard(self) -> None:
        self.on_end = _ignore
        if not self._transport.is_closing():
            self._transport.set_protocol(self._stream_protocol)
            self._transport.abort()
        await super().discard()


class _StreamedConnection(LaneConnection):
    """Reads and writes by redis-py's own methods: without hiredis, and for fakes that have no transport."""

    def __init__(self, connection: Any, pool: Any) -> None:
        super().__init__(connection, pool)
        self._task: asyncio.Task[None] | None = None
        # The lanes have limits of their own. These would start a task for each write.
        self._timeout, connection.socket_timeout = connection.socket_timeout, None

    def write(self, commands: Sequence[Command]) -> None:
        work = self._exchange(commands, self._replies)
        self._task = asyncio.get_running_loop().create_task(work)

    async def _exchange(self, commands: Sequence[Command], replies: Replies) -> None:
        connection = self._connection
        try:
            # Nothing is awaited yet, so bytes now are the end of the connection, or replies to no command.
            if not connection.is_connected or await connection.can_read():
                raise RedisConnectionError("the connection is closed")  # noqa: TRY301
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except Exception as error:  # noqa: BLE001  (it is the reply for all that wait)
            self.on_end(error)
        else:
            self.on_end(replies)

    def progress(self) -> int:
        # Replies outweigh the buffer, because each one that is read takes its bytes out of the buffer.
        return (len(self._replies) << 40) + len(getattr(getattr(self._connection, "_reader", None), "_buffer", b""))

    async def release(self) -> None:
        self._connection.socket_timeout = self._timeout
        await super().release()

    async def discard(self) -> None:
        self.on_end = _ignore
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
        """Return a connection that is ready. The caller limits the time."""
        for _ in range(_CROWDED_TRIES):
            with suppress(MaxConnectionsError):  # another user of the pool may return one
                return self._lane_connection(await self._pool.get_connection())
            await asyncio.sleep(_CROWDED_PAUSE)
        return self._lane_connection(await self._pool.get_connection())

    def _lane_connection(self, connection: Any) -> LaneConnection:
        transport = getattr(getattr(connection, "_writer", None), "transport", None)
        direct = hiredis is not None and hasattr(transport, "set_protocol")  # uvloop's is no asyncio.Transport
        return (_DirectConnection if direct else _StreamedConnection)(connection, self._pool)

    async def disconnect_idle(self) -> None:
        """Close the idle connections of the pool at once: they may be dead, and would not answer a farewell."""
        idle: Collection[Any] = getattr(self._pool, "_available_connections", ())  # the list itself, which changes
        for connection in list(idle):
            if connection in idle:  # nobody has taken it meanwhile
                await connection.disconnect(nowait=True)


class _NodePool:
    """A Cluster node's connections, in the shape of a connection pool."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node
        self._available_connections = node._free
        self.max_connections: int = node.max_connections

    async def get_connection(self) -> Any:
        connection = self._node.acquire_connection()
        try:
            await self._node.disconnect_if_needed(connection)
            await connection.connect()  # type: ignore[no-untyped-call]
            try:  # a pool of redis-py looks itself
                has_ended = await connection.can_read()  # the server has sent something, or closed it
            except RedisConnectionError:
                has_ended = True
            if has_ended:
                await connection.disconnect(nowait=True)
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
        # redis-py's own limit counts the time in which the event loop is late.
        limit, me.socket_connect_timeout = me.socket_connect_timeout, None
        timeouts = LoopTimeouts()
        self._address = ""
        try:
            with timeouts.until(timeouts.time() + (limit or 60.0)):
                await self._connect_to_any(await resolve(me.host, limit or 60.0))
        except TimeoutError:  # the next attempt begins with another one, and has the whole time for it
            avoid(me.host, self._address)
            raise
        finally:
            me.socket_connect_timeout = limit

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Authenticate and select the database, in one write where both are asked for: a round trip less."""
        me: Any = self
        if me.protocol != 2 or not me.db or not (me.username or me.password) or me.client_name or me.driver_info:
            await super().on_connect_check_health(check_health)  # type: ignore[misc]
            return
        me._parser.on_connect(me)
        credentials = (me.username, me.password or "") if me.username else (me.password,)
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
            # The certificate is for the name, and the connection is to an address.
            arguments.setdefault("server_hostname", arguments["host"])
        return arguments | {"host": self._address}


@cache
def _resolved(kind: type) -> type:
    return type(f"Resolved{kind.__name__}", (_ResolvedConnection, kind), {})


def use_own_resolver(client: Any) -> None:
    """Resolve a client's host names by `resolver.py`: asyncio's way may fill the application's threads."""
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


# What an event loop or a process has left --------------------------------------------------------------------------------


def close_sockets(client: object) -> None:
    """Close the connections of a redis-py client whose event loop has ended, without asking the loop."""
    for connection in _connections(client):
        transport: Any = getattr(getattr(connection, "_writer", None), "transport", None)
        connection._writer = connection._reader = None
        # asyncio closes a transport by a callback, which a closed loop does not take. uvloop has closed it already.
        transport = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
        socket = getattr(transport, "_sock", None)
        if socket is not None:
            with suppress(OSError):
                socket.close()
            transport._sock = None


def forget_connections(client: object) -> list[Any]:
    """Take the connections of the parent process out of a client, in a forked child, and return them."""
    parents = list(_connections(client))
    for pool in _pools(client):
        pool.reset()
    for node in _nodes(client):
        node._connections.clear()
        node._free.clear()
    return parents


def _connections(client: object) -> Iterator[Any]:
    for pool in _pools(client):
        yield from [*getattr(pool, "_available_connections", ()), *getattr(pool, "_in_use_connections", ())]
    for node in _nodes(client):
        yield from list(node._connections)


def _pools(client: object) -> Iterator[Any]:
    """Yield the pool of a client, and those to the sentinels that it asks for the primary."""
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        yield pool
    for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        yield from _pools(sentinel)


def _nodes(client: object) -> list[Any]:
    manager = getattr(client, "nodes_manager", None)
    known = [getattr(manager, name, {}) for name in ("nodes_cache", "startup_nodes")]
    return list({id(node): node for nodes in known for node in nodes.values()}.values())  # two of a name are equal
