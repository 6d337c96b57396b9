"""The network between simulated processes and the simulated server: it delays, holds back, loses, cuts.

Requests of one connection arrive in order. Those of two connections do not. A request that was sent arrives even when
its sender has given up meanwhile, as TCP does. A `Mishap` is planned for the next request that it fits, so that a fault
hits the request it is meant for and a shrunk history keeps it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.simulation.loop import HOST, NOBODY, Host, SimLoop
from tests.simulation.redis_server import RedisServer, ServerError, Status

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]

Words = list[bytes]
_FAST: Final = (0.0001, 0.0012)
PIECES: Final = 8
"""Into how many pieces a reply is cut that trickles in."""


@dataclass(slots=True, eq=False)
class Mishap:
    """What happens to one request.

    Attributes:
        kind: slow_request | slow_reply | lost_request | lost_reply | silent_request | silent_reply | split | trickle |
            twice.
        seconds: how slow, or how far apart the parts or the two copies are.
        part: only requests that hold this word: a script's name in lower case, a command in upper case. Empty for any.
    """

    kind: str
    seconds: float = 0.0
    part: str = ""


class Link:
    """How one process reaches the server.

    Attributes:
        held: requests and replies that wait for the network. None while it works.
        mishaps: what is planned.
    """

    def __init__(self, host: Host, far: float = 0.0) -> None:
        self.host = host
        self.far = far
        self.held: list[Callable[[], None]] | None = None
        self.mishaps: list[Mishap] = []
        self.connections: list[SimConnection] = []

    def mishap_for(self, commands: list[Words], names: dict[bytes, str]) -> Mishap | None:
        """Take the first planned mishap that is meant for these commands."""
        if not self.mishaps:
            return None
        words = {word for command in commands for word in _words(command, names)}
        mishap = next((mishap for mishap in self.mishaps if not mishap.part or mishap.part in words), None)
        if mishap is not None:
            self.mishaps.remove(mishap)
        return mishap


def _words(command: Words, names: dict[bytes, str]) -> tuple[str, ...]:
    name = command[0].decode()
    return (name, names.get(command[1], "")) if name in {"EVAL", "EVALSHA"} else (name,)


class Network:
    """All links, the server behind them, and the record of what arrived.

    Args:
        loop: the history's.
        server: executes commands.
        chance: draws latencies.
        names: SHA-1 or source of each script -> its name.
        executed: called with (who sent it, command) before each command is executed, and after it with the reply.
    """

    def __init__(self, loop: SimLoop, server: RedisServer, chance: Random, names: dict[bytes, str]) -> None:
        self.loop = loop
        self.server = server
        self.names = names
        self.links: list[Link] = []
        self.down = False
        self.wrong_password = False
        self.frozen: list[Callable[[], None]] | None = None
        self.executed: Callable[[SimConnection, Words, Any], None] = lambda *_: None
        self.last_trouble = -1e9
        self._uniform = chance.uniform

    def plan(self, link: Link, mishap: Mishap) -> None:
        """Plan a mishap for the next request of a process that it is meant for.

        Raises:
            ValueError: it names a script that does not exist, so it would never happen.
        """
        if mishap.part.islower() and mishap.part not in self.names.values():
            raise ValueError(f"a mishap for a script that does not exist: {mishap.part}")
        link.mishaps.append(mishap)

    def latency(self, link: Link) -> float:
        """Draw the time one message takes."""
        return link.far + self._uniform(*_FAST)

    def trouble(self) -> None:
        """Note that something went wrong at this moment, so that what follows is not taken for the client's fault."""
        self.last_trouble = max(self.last_trouble, self.loop.time())

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Have the network do something later."""
        self.loop.call_at(when, act, context=NOBODY)

    def cut(self, link: Link) -> None:
        """End all connections of a process."""
        self.trouble()
        for connection in list(link.connections):
            connection.break_off()

    def cut_all(self) -> None:
        """End all connections."""
        for link in self.links:
            self.cut(link)

    def hold(self, link: Link) -> None:
        """Let nothing through, without a word: what is sent waits."""
        self.trouble()
        if link.held is None:
            link.held = []

    def let_through(self, link: Link) -> None:
        """Deliver what waited."""
        self.trouble()
        held, link.held = link.held, None
        for act in held or ():
            self.at(self.loop.time() + self.latency(link), act)

    def freeze(self) -> None:
        """Stop the server, as SIGSTOP does."""
        self.trouble()
        if self.frozen is None:
            self.frozen = []

    def thaw(self) -> None:
        """Let the server go on with what has arrived meanwhile."""
        self.trouble()
        waiting, self.frozen = self.frozen, None
        for act in waiting or ():
            act()


class SimTransport(asyncio.Transport):
    """The transport below a connection: what is written reaches the server, what the server sends reaches the protocol."""

    def __init__(self, connection: SimConnection) -> None:
        super().__init__()
        self._connection = connection
        self._protocol: Any = _NoProtocol()
        self._requests = hiredis.Reader()

    def get_protocol(self) -> Any:
        """Return who reads."""
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        """Set who reads."""
        self._protocol = protocol

    def write(self, data: Any) -> None:
        """Send requests."""
        if self._connection.is_connected:
            self._requests.feed(bytes(data))
            commands: list[Words] = []
            while (command := self._requests.gets()) is not False:
                commands.append(command)
            self._connection.send_words(commands)

    def is_closing(self) -> bool:
        """Return whether it is over."""
        return not self._connection.is_connected

    def abort(self) -> None:
        """Close at once. What was sent arrives anyway."""
        self._connection.close()

    close = abort

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent: none."""
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return nothing: there is no socket."""
        return default

    def deliver(self, data: bytes) -> None:
        """Hand what arrived to the protocol."""
        self._protocol.data_received(data)

    def lost(self, error: Exception | None) -> None:
        """Tell the protocol that the connection is over."""
        self._protocol.connection_lost(error)


class _NoProtocol:
    def data_received(self, data: bytes) -> None:
        """Drop what no one reads."""

    def connection_lost(self, error: Exception | None) -> None:
        """Say nothing."""


class _Holder:
    """Stands for the objects between a redis-py connection and its transport."""

    def __init__(self, **members: Any) -> None:
        self.__dict__ |= members


class SimConnection:
    """What the lanes use of an asyncio redis-py connection, its transport and parser included."""

    def __init__(self, pool: SimPool) -> None:
        self.pool = pool
        self.link = pool.link
        self.network = pool.network
        self.host = pool.link.host
        self.socket_timeout: float | None = 3.0
        self.is_connected = self.is_repeating = False
        self._replies: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._broken: Exception | None = None
        self._last_arrival = self._last_delivery = 0.0
        self._requests: deque[tuple[list[Words], Mishap | None]] = deque()
        self._pieces: deque[bytes | list[Any]] = deque()
        """What is under way, the earliest first: TCP keeps the order, also of what the network has held back."""
        self._transport: SimTransport | None = None

    async def connect(self) -> None:
        """Open the connection and authenticate.

        Raises:
            redis.exceptions.ConnectionError: no one listens, or the password is wrong.
            redis.exceptions.TimeoutError: no one answers.
        """
        network, link = self.network, self.link
        began = network.loop.time()
        await asyncio.sleep(2 * network.latency(link))
        while link.held is not None or (network.frozen is not None and not network.down):
            if network.loop.time() - began >= self.pool.connect_timeout:
                raise RedisTimeoutError("Timeout connecting to server")
            await asyncio.sleep(0.02)
        if network.down:
            raise RedisConnectionError("Error 111 connecting to server. Connection refused.")
        if network.wrong_password:
            raise AuthenticationError("WRONGPASS invalid username-password pair or user is disabled.")
        self.is_connected, self._broken = True, None
        self._replies.clear()
        self._last_arrival = self._last_delivery = network.loop.time()
        link.connections.append(self)
        if self.pool.direct:
            self._transport = SimTransport(self)
            self._writer = _Holder(transport=self._transport)
            self._parser = _Holder(parse_error=BaseParser.parse_error)

    def pack_commands(self, commands: Sequence[Sequence[Any]]) -> list[Words]:
        """Return commands as they are executed: lists of bytes."""
        return [[_encoded(word) for word in command] for command in commands]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send commands in one write."""
        if not self.is_connected:
            raise RedisConnectionError("Connection closed by server.")
        self.send_words(command)

    def send_words(self, commands: list[Words]) -> None:
        """Send commands. What goes wrong with the connection shows when replies are read."""
        network, link = self.network, self.link
        mishap = link.mishap_for(commands, network.names)
        delay = network.latency(link)
        if mishap is not None:
            network.trouble()
            if mishap.kind == "slow_request":
                delay += mishap.seconds
            elif mishap.kind == "lost_request":
                network.at(network.loop.time() + delay, self.break_off)
                return
            elif mishap.kind == "silent_request":
                return
            elif mishap.kind == "split" and len(commands) > 1:
                half = len(commands) // 2
                self._send(commands[:half], delay, mishap)
                commands, delay = commands[half:], delay + mishap.seconds
        self._send(commands, delay, mishap)

    def _send(self, commands: list[Words], delay: float, mishap: Mishap | None) -> None:
        self._last_arrival = when = max(self._last_arrival, self.network.loop.time() + delay)
        self._requests.append((commands, mishap))
        self.network.at(when, self._arrive)

    def _arrive(self) -> None:
        network, link = self.network, self.link
        if link.held is not None:
            link.held.append(self._arrive)
            return
        if network.frozen is not None:
            network.frozen.append(self._arrive)
            return
        commands, mishap = self._requests.popleft()
        if network.down:
            self.break_off()
            return
        if mishap is not None and mishap.kind == "twice":
            network.trouble()
            network.at(network.loop.time() + mishap.seconds, lambda: self._arrive_again(commands))
        self._answer([self._execute(command) for command in commands], mishap)

    def _arrive_again(self, commands: list[Words]) -> None:
        """Execute a copy of a request, as behind a proxy that has sent it a second time. Its replies reach no one."""
        if not self.network.down and self.network.frozen is None:
            self.network.trouble()
            self.is_repeating = True
            for command in commands:
                self._execute(command)
            self.is_repeating = False

    def _execute(self, command: Words) -> Any:
        network = self.network
        network.server.touched.clear()
        reply = network.server.execute(command)
        network.executed(self, command, reply)
        return reply

    def _answer(self, replies: list[Any], mishap: Mishap | None) -> None:
        network, link = self.network, self.link
        if mishap is not None and mishap.kind == "lost_reply":
            network.trouble()
            self.break_off()
            return
        if mishap is not None and mishap.kind == "silent_reply":
            network.trouble()
            return
        delay = network.latency(link)
        if mishap is not None and mishap.kind == "slow_reply":
            delay += mishap.seconds
        self._last_delivery = when = max(self._last_delivery, network.loop.time() + delay)
        if self._transport is None:
            self._pieces.append([_parsed(reply) for reply in replies])
            network.at(when, self._deliver)
            return
        data = b"".join(map(_wire, replies))
        if mishap is not None and mishap.kind == "trickle":
            for at in range(PIECES - 1):
                piece, data = data[: len(data) // 2], data[len(data) // 2 :]
                self._pieces.append(piece)
                network.at(when + at * mishap.seconds / PIECES, self._deliver)
            self._last_delivery = when = when + mishap.seconds
        self._pieces.append(data)
        network.at(when, self._deliver)

    def _deliver(self) -> None:
        """Hand replies to the process, or bytes to its protocol, which runs in its name."""
        host = self.link.host
        if self.link.held is not None:
            self.link.held.append(self._deliver)
            return
        piece = self._pieces.popleft()
        if isinstance(piece, list):
            if self.is_connected:
                self._replies.extend(piece)
                self._wake()
        elif self.is_connected and self._transport is not None and self.host is host:
            context = NOBODY.copy()
            context.run(HOST.set, host)
            self.network.loop.call_soon(self._transport.deliver, piece, context=context)

    def break_off(self) -> None:
        """End the connection from the other side: what was not read yet is lost."""
        if self.is_connected:
            self._forget()
            self._replies.clear()
            self._broken = RedisConnectionError("Connection closed by server.")
            self._wake()
            if self._transport is not None:
                context = NOBODY.copy()
                context.run(HOST.set, self.host)
                error = ConnectionResetError("Connection reset by peer")
                self.network.loop.call_soon(self._transport.lost, error, context=context)

    def _forget(self) -> None:
        self.is_connected = False
        if self in self.link.connections:
            self.link.connections.remove(self)

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def read_response(self, *_: Any, **__: Any) -> Any:
        """Return the next reply, or raise the error that stands in its place."""
        while not self._replies:
            if self._broken is not None:
                raise self._broken
            if not self.is_connected:
                raise RedisConnectionError("Connection closed")
            self._reader = self.network.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        reply = self._replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def can_read(self, timeout: float = 0) -> bool:
        """Return whether something is there to be read."""
        return bool(self._replies) or self._broken is not None

    can_read_destructive = can_read

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the connection. What was sent arrives anyway."""
        self.close()

    def close(self) -> None:
        """Do the same at once."""
        self._forget()
        self._broken = None
        self._replies.clear()
        self._wake()


class SimPool:
    """What `LaneConnections` uses of an asyncio redis-py connection pool."""

    def __init__(self, network: Network, link: Link, connect_timeout: float, owner: Any = None) -> None:
        self.network = network
        self.link = link
        self.connect_timeout = connect_timeout
        self.owner = owner
        self.max_connections = 1000
        self.direct = hiredis is not None
        """Whether its connections have a transport of their own, as redis-py's do; else they are read by its methods."""
        self.connection_kwargs: dict[str, Any] = {}
        self._available: list[SimConnection] = []

    async def get_connection(self, *_: Any, **__: Any) -> SimConnection:
        """Return a connection that is open."""
        while self._available:
            connection = self._available.pop()
            if connection.is_connected and not await connection.can_read():
                return connection
            await connection.disconnect()
        connection = SimConnection(self)
        await connection.connect()
        return connection

    async def release(self, connection: SimConnection) -> None:
        """Take a connection back."""
        self._available.append(connection)

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections that are not in use."""
        while self._available:
            await self._available.pop().disconnect()


class SimClient(Redis):
    """What the store uses of an asyncio redis-py client."""

    def __init__(self, pool: SimPool) -> None:
        self.connection_pool: Any = pool
        self.connection = None

    def pipeline(self, *_: Any, **__: Any) -> Any:
        """Refuse: the store has its own."""
        raise NotImplementedError

    async def execute_command(self, *command: Any, **_: Any) -> Any:
        """Send one command."""
        pool = self.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_commands([command]))
            return await connection.read_response()
        except BaseException:
            await connection.disconnect()
            raise
        finally:
            await pool.release(connection)

    async def aclose(self, *_: Any, **__: Any) -> None:
        """Close the connections."""
        await self.connection_pool.disconnect()


def _encoded(word: Any) -> bytes:
    if type(word) is str:
        return word.encode()
    if type(word) is bytes:
        return word
    if isinstance(word, str):
        return str(word).encode()
    if isinstance(word, float):
        return repr(word).encode()
    if isinstance(word, int) and not isinstance(word, bool):
        return b"%d" % word
    return bytes(word)


def _wire(reply: Any) -> bytes:
    """Return a reply as it goes over the wire (RESP2)."""
    if type(reply) is bytes:
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if type(reply) is int:
        return b":%d\r\n" % reply
    if reply is None:
        return b"$-1\r\n"
    if type(reply) is list:
        return b"*%d\r\n%b" % (len(reply), b"".join(map(_wire, reply)))
    if isinstance(reply, ServerError):
        return f"-{reply}\r\n".encode()
    return b"+%b\r\n" % bytes(reply)


def _parsed(reply: Any) -> Any:
    if isinstance(reply, ServerError):
        return BaseParser.parse_error(str(reply))
    if type(reply) is Status:
        return bytes(reply)
    return reply
