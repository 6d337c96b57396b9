"""A TCP proxy on loopback that fails on command.

Faults are switched while it runs. Bytes that meet a black hole wait, as they would in a real network or before a paused
server, and are delivered when it ends, even if their sender has left by then. What connections say to begin with (HELLO,
AUTH, CLIENT, ...) is told from commands, so that a fault hits what a test means and not the next connection's greeting.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from tests.harness.servers import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_GREETINGS = frozenset({"HELLO", "AUTH", "CLIENT", "SELECT", "READONLY"})
_PACED = 16 * 1024
_CATCH_UP = 0.1
_NO_LINGER = struct.pack("ii", 1, 0)


class Fault(StrEnum):
    """What happens to connections."""

    OK = "ok"
    """They reach the server."""
    REFUSE = "refuse"
    """New ones are refused; open ones are closed."""
    BLACK_HOLE = "black_hole"
    """New ones are accepted; nothing passes in either direction."""
    SYN_BLACK_HOLE = "syn_black_hole"
    """New ones get no answer at all; on open ones nothing passes."""
    RESET = "reset"
    """New ones are accepted and reset."""
    CLOSE = "close"
    """New ones are accepted and closed."""


class Cut(StrEnum):
    """How a connection ends for the client."""

    RESET = "reset"
    CLOSE = "close"
    HANG = "hang"
    """It stays open and silent."""


@dataclass
class _CutPlan:
    after: int
    how: Cut
    times: float
    of: str | None


@dataclass
class _Injection:
    reply: bytes
    greetings: bool


class FaultProxy:
    """Stand between a client and a server. An async context manager.

    Args:
        upstream: (host, port) of the server, or the path of its unix socket. May be changed at any time for new
            connections, as in a failover.

    Attributes:
        latency: seconds that each chunk of a reply is late. Chunks do not wait for one another.
        upload_delay: seconds that each chunk from the client is late. It lands even when the client has left meanwhile.
        upload_rate, download_rate: bytes per second that are passed on from and to each client. 0 passes all at once.
        drip: bytes of a reply that are passed on per `tick` seconds. 0 passes all at once.
        accepted: how many connections were accepted.
        commands: how many commands came from clients, without greetings.
        uploaded, delivered: how many bytes were passed on to the server, and to clients.
        on_commands: awaited with the names of commands that have come, before they are passed on.
        cuts: how many connections were cut by `cut_replies` or `drop_replies`, which says that the server has answered.
    """

    def __init__(self, upstream: tuple[str, int] | str | Path) -> None:
        self.upstream = upstream
        self.port = free_port()
        self.latency = self.upload_delay = 0.0
        self.upload_rate = self.download_rate = 0.0
        self.drip, self.tick = 0, 0.01
        self.accepted = self.commands = self.uploaded = self.delivered = self.cuts = 0
        self.fault = Fault.OK
        self.plan: _CutPlan | None = None
        self.injection: _Injection | None = None
        self.on_commands: Callable[[list[str]], Awaitable[None]] | None = None
        self.flowing = asyncio.Event()
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._backlog: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        while True:
            try:
                await self.switch(Fault.OK)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self.port = free_port()  # another test was faster
            else:
                return self

    async def __aexit__(self, *_: object) -> None:
        self._close_listener()
        tasks = list(self._connections.values())
        for connection, task in list(self._connections.items()):
            connection.cut(Cut.RESET)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets one turn of the loop later

    @property
    def url(self) -> str:
        """Where a client without a password connects to."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def switch(self, fault: Fault) -> None:
        """Treat connections in this way from now on."""
        serving, self.fault = self._server is not None, fault
        if not serving or fault in (Fault.REFUSE, Fault.SYN_BLACK_HOLE):
            self._close_listener()
        if fault is Fault.SYN_BLACK_HOLE:
            await _retaken(self._fill_backlog)
        elif fault is not Fault.REFUSE and self._server is None:
            await _retaken(self._serve)
        if fault is Fault.REFUSE:
            self.cut(Cut.CLOSE)
        if fault in (Fault.BLACK_HOLE, Fault.SYN_BLACK_HOLE):
            self.flowing.clear()
        else:
            self.flowing.set()

    async def heal(self) -> None:
        """End all faults. Connections that were made to hang stay lost."""
        self.latency = self.upload_delay = self.upload_rate = self.download_rate = 0.0
        self.drip = 0
        self.plan = self.injection = None
        await self.switch(Fault.OK)

    def cut(self, how: Cut = Cut.RESET) -> None:
        """Cut all connections that are open now."""
        for connection in list(self._connections):
            connection.cut(how)

    def cut_replies(self, after: int, how: Cut = Cut.RESET, *, times: int | None = None, of: str | None = None) -> None:
        """Cut connections in the middle of the reply to a command.

        Args:
            after: bytes of the reply, or replies, that still pass.
            how: what the client sees then.
            times: how many connections. All if not given.
            of: only where this command is among those sent, e.g. `EVALSHA`.
        """
        self.plan = _CutPlan(after, how, float("inf") if times is None else times, of)

    def drop_replies(self, times: int = 1, *, how: Cut = Cut.HANG, of: str | None = None) -> None:
        """Let the server execute the next commands and the client never know. Its connection is lost each time."""
        self.cut_replies(0, how, times=times, of=of)

    def inject(self, reply: bytes | None, *, greetings: bool = False) -> None:
        r"""Answer each command with this, without asking the server. None ends it.

        Args:
            reply: the bytes of one reply, e.g. `b"-LOADING Redis is loading\r\n"`.
            greetings: answer HELLO and the like so as well, as a foreign server would.
        """
        self.injection = None if reply is None else _Injection(reply, greetings)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, reader, writer)
        if self.fault in (Fault.RESET, Fault.CLOSE):
            return connection.cut(Cut(self.fault))
        task = asyncio.current_task()
        assert task is not None
        self._connections[connection] = task
        try:
            await connection.run()
        finally:
            del self._connections[connection]

    def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        while self._backlog:
            self._backlog.pop().close()

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, limit=2**22)

    async def _fill_backlog(self) -> None:
        """Take the port with a queue of no length, and fill it: further SYNs are dropped by the kernel."""
        listener = socket.create_server((HOST, self.port), backlog=0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex((HOST, self.port))
        self._backlog = [*fillers, listener]


async def _retaken(take: Callable[[], Awaitable[None]]) -> None:
    """Take a port that was let go. A test that looks for a free one may hold it for a moment."""
    while True:
        try:
            return await take()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        await asyncio.sleep(0.01)


class _Commands:
    """Names of the commands in a client's bytes, however they are cut into chunks."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[str]:
        """Return the names of the commands that are complete with these bytes."""
        self._buffer += data
        names = []
        while self._buffer and (name := self._take()):
            names.append(name)
        return names

    def _take(self) -> str:
        if not self._buffer.startswith(b"*"):  # TLS, or not Redis: one chunk is one unknown command
            self._buffer = b""
            return "?"
        words, at = self._number(0)
        name = ""
        for _ in range(words):
            length, at = self._number(at)
            if length < 0 or len(self._buffer) < at + length + 2:
                return ""
            name = name or self._buffer[at : at + length].decode("ascii", "replace").upper()
            at += length + 2
        self._buffer = self._buffer[at:]
        return name

    def _number(self, at: int) -> tuple[int, int]:
        end = self._buffer.find(b"\r\n", at)
        return (-1, at) if end < 0 else (int(self._buffer[at + 1 : end]), end + 2)


class _Pace:
    """Bytes per second, kept although a busy machine wakes tasks late."""

    def __init__(self) -> None:
        self._due = 0.0

    async def keep(self, size: int, rate: float) -> None:
        """Wait until so many bytes have had their time."""
        if rate:
            now = asyncio.get_running_loop().time()
            self._due = max(self._due, now - _CATCH_UP) + size / rate
            await asyncio.sleep(max(0.0, self._due - now))


class _Connection:
    """One client's connection and its other half."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = reader, writer
        self._to_server: asyncio.StreamWriter | None = None
        self._commands = _Commands()
        self._plan: _CutPlan | None = None
        self._still_passing = 0
        self._silent = False
        self._upload_pace, self._download_pace = _Pace(), _Pace()

    async def run(self) -> None:
        """Carry bytes both ways until both ends are done."""
        try:
            await self._proxy.flowing.wait()
            with contextlib.suppress(OSError):
                from_server, self._to_server = await self._connect()
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._carry(self._from_client, self._upload, "upload_delay", self._server_end))
                    both.create_task(self._carry(from_server, self._reply, "latency", self._client_end))
        except BaseException:
            if self._to_server is not None:
                self._to_server.transport.abort()
            raise
        finally:
            self._to_client.close()
            if self._to_server is not None:
                self._to_server.close()

    def cut(self, how: Cut) -> None:
        """End the connection for the client. What it has sent still reaches the server."""
        self._silent = True
        if how is Cut.CLOSE:
            self._to_client.close()
        elif how is Cut.RESET:
            with contextlib.suppress(OSError):
                self._to_client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._to_client.transport.abort()

    def _server_end(self) -> None:
        """Tell the server that the client has left. A frozen server finds the bytes and this when it thaws."""
        assert self._to_server is not None
        if self._to_server.can_write_eof():
            self._to_server.write_eof()

    def _client_end(self) -> None:
        if not self._silent:
            self._to_client.close()

    def _connect(self) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        upstream = self._proxy.upstream
        if isinstance(upstream, tuple):
            return asyncio.open_connection(*upstream)
        return asyncio.open_unix_connection(upstream)

    async def _carry(
        self,
        source: asyncio.StreamReader,
        handle: Callable[[bytes], Awaitable[None]],
        delay: str,
        end: Callable[[], None],
    ) -> None:
        """Read at once, so that nothing is lost when an end goes away, and hand on when it is due."""
        clock, waiting = asyncio.get_running_loop().time, asyncio.Queue[tuple[float, bytes]]()

        async def read() -> None:
            data = b"?"
            while data:
                try:
                    data = await source.read(2**16)
                except OSError:
                    data = b""
                waiting.put_nowait((clock() + getattr(self._proxy, delay), data))

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            with contextlib.suppress(OSError):  # the target is gone; go on reading what the source has to say
                await self._hand_on(waiting, handle)
                end()

    async def _hand_on(
        self, waiting: asyncio.Queue[tuple[float, bytes]], handle: Callable[[bytes], Awaitable[None]]
    ) -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await self._proxy.flowing.wait()
            if not data:
                return
            await handle(data)

    async def _upload(self, data: bytes) -> None:
        names = self._commands.feed(data)
        work = [name for name in names if name not in _GREETINGS]
        self._proxy.commands += len(work)
        if work and self._proxy.on_commands is not None:
            await self._proxy.on_commands(work)
            await self._proxy.flowing.wait()
        injection = self._proxy.injection
        if injection is not None and (injection.greetings or work or not names):
            self._to_client.write(injection.reply * len(names if injection.greetings else work))
            return
        self._arm(work)
        assert self._to_server is not None
        self._proxy.uploaded += len(data)
        await self._upload_pace.keep(len(data), self._proxy.upload_rate)
        self._to_server.write(data)
        await self._to_server.drain()

    def _arm(self, work: list[str]) -> None:
        plan = self._proxy.plan
        if plan is None or self._plan is plan or not work or not plan.times or plan.of not in (None, *work):
            return
        plan.times -= 1
        self._plan, self._still_passing = plan, plan.after

    async def _reply(self, data: bytes) -> None:
        if self._silent:
            return
        plan = self._plan if self._proxy.plan is not None else None
        passing = data if plan is None else data[: self._still_passing]
        await self._write(passing)
        self._still_passing -= len(passing)
        if plan is not None and len(passing) < len(data):
            self._proxy.cuts += 1
            self.cut(plan.how)

    async def _write(self, data: bytes) -> None:
        step = self._proxy.drip or (_PACED if self._proxy.download_rate else len(data)) or 1
        for at in range(0, len(data), step):
            self._to_client.write(data[at : at + step])
            self._proxy.delivered += len(data[at : at + step])
            await self._to_client.drain()
            await self._download_pace.keep(step, self._proxy.download_rate)
            if self._proxy.drip:
                await asyncio.sleep(self._proxy.tick)
