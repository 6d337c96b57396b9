"""Commands of many agents in few writes: queues, lanes, and the checks of a silent server.

While a lane waits for its replies, further commands queue. When it is free, all that has queued goes out in one write.
Large values have a lane of their own, so that small ones do not wait behind them.

A request fails when its lane hears nothing from the server for as long as an attempt may take, or when no connection can
be opened. Time in a queue is not counted. The caller limits the whole by cancelling.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final

from redis.exceptions import AuthenticationError

from session_reuse._resilience.loop_timeouts import LoopTimeouts
from session_reuse._store.redis.flight import Flight, Request
from session_reuse._store.redis.redis_py import (
    ClosedError,
    Command,
    Connections,
    LaneConnection,
    Replies,
    StalledError,
)

LARGE: Final = 64 * 1024
"""Commands and replies with more bytes than this take the lane for large values."""
_MAX_BATCH: Final = 256
_REMEMBERED_LARGE: Final = 1024
_BYTES_PER_SECOND: Final = 4 * 1024 * 1024
"""Speed a link must have to send: beyond the kernel's buffer, progress cannot be seen."""
_LONGEST: Final = 30.0
"""Seconds after which a group that still trickles in is given up. Most callers end earlier."""
_SECOND_AFTER: Final = 0.45
"""Share of an attempt's time after which the same commands go out on a fresh connection as well."""
_IDLE_FOR: Final = 2.0
"""Seconds after which an idle lane returns its connection to the pool."""


class _Lane:
    """What goes out in one write at a time.

    Attributes:
        connections: the one in use. While it may be dead, a fresh one as well, with the same commands.
        began: when its flight went out.
        since: when it last made progress, or became idle.
        second_at: when a second connection was requested, 0 if it was not.
        opened_in: seconds that its connection took to open, until it has answered. About 0 for one of the pool.
    """

    __slots__ = ("began", "connections", "flight", "is_outdated", "opened_in", "progress", "second_at", "since")

    def __init__(self) -> None:
        self.connections: list[LaneConnection] = []
        self.flight: Flight | None = None
        self.began = self.since = self.second_at = self.opened_in = 0.0
        self.progress = 0
        self.is_outdated = False

    def received(self) -> int:
        """Return a number that changes when bytes of a reply arrive, or when many bytes are taken by the network."""
        received = sum(connection.progress() for connection in self.connections)
        is_large = self.flight is not None and self.flight.size > LARGE
        return received - self.connections[0].unsent() if is_large else received


class _Queue:
    """Requests that wait, and the lanes that serve them."""

    def __init__(self, batcher: Batcher, most: int, *, shares_reads: bool) -> None:
        self.waiting: deque[Request] = deque()
        self.lanes: list[_Lane] = []
        self._batcher = batcher
        self._most = most
        self._idle: list[_Lane] = []
        self._shares_reads = shares_reads

    def add(self, request: Request) -> None:
        """Send a request with all others of this moment: agents often start together."""
        self.waiting.append(request)
        if len(self.waiting) == 1:
            asyncio.get_running_loop().call_soon(self.serve)

    def serve(self) -> None:
        """Send what waits on the lanes that are idle. Open another lane when there are none."""
        while self.waiting and self._idle:
            flight = self._take()
            if not flight.parts:
                return
            lane = self._idle.pop()
            (connection,) = lane.connections
            lane.flight = flight
            lane.began = lane.since = self._batcher.watched_time()
            lane.second_at = 0.0
            lane.progress = lane.received()
            try:
                connection.send(flight.commands)
            except Exception as error:  # noqa: BLE001  (a reset connection: see failures.py)
                self._done(lane, connection, error)
        if self.waiting and len(self.lanes) < self._most:
            lane = _Lane()
            self.lanes.append(lane)
            self._batcher.spawn(self._open(lane), is_opening=True)

    def _take(self) -> Flight:
        flight = Flight()
        places: dict[tuple[Command, ...], int] = {}
        while self.waiting and len(flight.commands) < _MAX_BATCH:
            request = self.waiting.popleft()
            if request.replies.done():
                continue
            if self._shares_reads and len(request.commands) == 1 and request.commands[0][0] in {"GET", "GETEX"}:
                if request.commands in places:
                    flight.parts.append((request, places[request.commands]))
                    continue
                places[request.commands] = len(flight.commands)
            flight.add(request)
        if flight.wait is not None:  # one covers all writes before it, and the times of several would add up
            flight.commands.append(flight.wait)
        return flight

    async def _open(self, lane: _Lane) -> None:
        try:
            connection = await self._batcher.open()
        except BaseException as error:
            self._forget(lane)
            if not isinstance(error, Exception):
                raise
            self._batcher.on_error(error)
            if not self.lanes:
                self._fail_waiting(error)
            return
        lane.opened_in = self._batcher.opened_in
        self._adopt(lane, connection)
        self._free(lane)

    def _adopt(self, lane: _Lane, connection: LaneConnection) -> None:
        lane.connections.append(connection)
        connection.on_end = lambda outcome: self._done(lane, connection, outcome)

    def _forget(self, lane: _Lane) -> None:
        for lanes in (self.lanes, self._idle):
            if lane in lanes:  # not dropped at a close meanwhile
                lanes.remove(lane)

    def _free(self, lane: _Lane) -> None:
        """Send what waits on a lane, or note that it is idle."""
        lane.since = self._batcher.timeouts.time()
        if lane.is_outdated:
            self._drop(lane)
            return
        self._idle.append(lane)
        self.serve()
        if lane in self._idle:
            lane.opened_in = 0.0
            self._batcher.went_idle(self, lane)

    def _done(self, lane: _Lane, by: LaneConnection, outcome: Replies | Exception) -> None:
        flight, is_error = lane.flight, isinstance(outcome, Exception)
        if by not in lane.connections:
            return
        began = lane.began if by is lane.connections[0] else lane.second_at
        if len(lane.connections) > 1:  # after an error the other one decides, after a reply it has lost
            gone = next(one for one in lane.connections if (one is by) == is_error)
            lane.connections.remove(gone)
            self._batcher.spawn(gone.discard())
            if is_error:
                return
        if isinstance(outcome, Exception) or flight is None:
            self._drop(lane, outcome if isinstance(outcome, Exception) else None)
            return
        lane.flight = None
        lane.opened_in = 0.0
        lane.is_outdated = self._batcher.is_lost(began, flight, outcome) or lane.is_outdated
        self._free(lane)
        flight.deliver(outcome)

    def _drop(self, lane: _Lane, error: Exception | None = None) -> None:
        """End a lane. What it carries fails, and what waits takes another one."""
        self._forget(lane)
        for connection in lane.connections:
            self._batcher.spawn(connection.discard())
        lane.connections = []
        flight, lane.flight = lane.flight, None
        if flight is not None and error is not None:
            self._batcher.on_error(error)
            flight.fail(error)
        self.serve()

    def _fail_waiting(self, error: Exception) -> None:
        waiting, self.waiting = self.waiting, deque()
        for request in waiting:
            request.fail(error)

    def check(self, lane: _Lane, flight: Flight, now: float) -> None:
        """Measure progress. Without it, try a second connection, and give up in the end."""
        batcher, progress = self._batcher, lane.received()
        if progress != lane.progress:
            lane.progress = progress
            lane.since = batcher.heard_at = now
        silent, took = now - lane.since, now - lane.began
        limit = flight.limit + flight.size / _BYTES_PER_SECOND
        if lane.second_at:  # it gets the time that it needs to open and to answer
            needed = max(limit / 2, 1.5 * (batcher.opened_in + batcher.answered_in))
            limit = max(limit, lane.second_at - lane.since + needed)
        is_abandoned = took >= limit and all(request.replies.done() for request, _ in flight.parts)
        if silent >= limit or took >= _LONGEST or is_abandoned:
            self._give_up(lane, now)
        elif (
            not lane.second_at
            and flight.size <= LARGE  # large values are not sent twice
            and lane.since == lane.began
            and silent >= max(_SECOND_AFTER * limit, 2 * batcher.answered_in, 2 * lane.opened_in)
        ):
            # The connection may have died without a word while it was idle, here or in the pool. All commands are safe to repeat.
            lane.second_at = now
            batcher.spawn(self._try_second(lane, flight), is_opening=True)

    def _give_up(self, lane: _Lane, now: float) -> None:
        # A server that answers on other lanes is alive, so what waits for this one takes another lane.
        heard = self._batcher.heard_at - lane.since > (now - lane.since) / 2
        if not heard:
            self._fail_waiting(TimeoutError())
        self._drop(lane, StalledError() if heard else TimeoutError())

    async def _try_second(self, lane: _Lane, flight: Flight) -> None:
        try:
            connection = await self._batcher.open(is_new=True)
        except Exception:  # noqa: BLE001  (the first connection decides)
            return
        if lane.flight is not flight:
            await connection.release()
            return
        try:
            connection.send(flight.commands)
        except Exception:  # noqa: BLE001  (likewise)
            await connection.discard()
            return
        self._adopt(lane, connection)

    def give_back(self, lane: _Lane) -> None:
        """Return an idle lane's connection to its pool."""
        self._forget(lane)
        self._batcher.spawn(lane.connections[0].release())

    def give_back_idle(self, before: float) -> int:
        """Return connections that have been idle since `before`, and count the lanes that are left."""
        for lane in [lane for lane in self._idle if lane.since <= before]:
            self.give_back(lane)
        return len(self.lanes)

    def renew(self) -> None:
        """Part with all connections, with those in use when they are done: they lead to the wrong server."""
        for lane in list(self.lanes):
            lane.is_outdated = True
            if lane in self._idle:
                self._drop(lane)

    def close(self) -> None:
        """Fail requests that wait or are under way."""
        self._most = 0
        self._fail_waiting(ClosedError())
        self.give_back_idle(before=self._batcher.timeouts.time())
        for lane in list(self.lanes):
            self._drop(lane, ClosedError())


class Batcher:
    """Sends groups of commands to one server. Each group goes out together and its replies come back together.

    Args:
        connections: where to get connections.
        lanes: how many for small values.
        connect_timeout: seconds for one step of opening a connection.
        on_error: called with each error that the server returns or that ends a group, before the callers get it.
        timeouts: the event loop's.
    """

    def __init__(
        self,
        connections: Connections,
        lanes: int,
        *,
        connect_timeout: float = 0.25,
        on_error: Callable[[Exception], None] = lambda _: None,
        timeouts: LoopTimeouts | None = None,
    ) -> None:
        self.on_error = on_error
        self.timeouts = timeouts or LoopTimeouts()
        self.opened_in = self.answered_in = self.heard_at = 0.0
        self._connections = connections
        self._connect_timeout = connect_timeout
        self._is_crowded = connections.most <= lanes + 1
        # One connection is left for large values.
        self._small = _Queue(self, max(1, min(lanes, connections.most - 1)), shares_reads=False)
        self._large = _Queue(self, 1, shares_reads=True) if connections.most > 1 else self._small
        self._queues = tuple({self._small: None, self._large: None})
        self._large_keys: dict[Command, None] = {}
        self._tasks: dict[asyncio.Task[None], bool] = {}
        self._is_watching = False
        self._is_sweeping = False
        self._is_closed = False

    def execute(self, *commands: Command, timeout: float, size: int = 0) -> asyncio.Future[Replies]:
        """Send the commands in one write and return their replies, errors of single commands in their place.

        Args:
            commands: name and arguments of each, safe to repeat. A WAIT stands last.
            timeout: seconds of silence of the server until TimeoutError.
            size: bytes of the values sent, which decide on the lane.
        """
        loop = asyncio.get_running_loop()
        replies: asyncio.Future[Replies] = loop.create_future()
        request = Request(commands, timeout, size, replies)
        if self._is_closed:
            request.fail(ClosedError())
        # A read takes the lane for the size that its value had last.
        elif size > LARGE or (self._large_keys and request.commands[-1][1:2] in self._large_keys):
            for command in commands:
                if size > LARGE and command[0] in {"EVAL", "EVALSHA"}:  # its first key is the session's
                    self._learn_size(command[3:4], size)
            self._large.add(request)
        else:
            self._small.add(request)
        return replies

    @property
    def connections(self) -> int:
        """How many connections the lanes hold, or are about to open."""
        return sum(len(queue.lanes) for queue in self._queues)

    def spawn(self, work: Coroutine[object, object, None], *, is_opening: bool = False) -> None:
        """Run work in the background. What opens a connection is cancelled at the close."""
        task = asyncio.get_running_loop().create_task(work, name="session_reuse:lane")
        self._tasks[task] = is_opening
        task.add_done_callback(self._tasks.pop)

    def watched_time(self) -> float:
        """Return the time, and have lanes under way checked from now on."""
        if not self._is_watching:
            self._is_watching = True
            self.timeouts.watch(self._check)
        return self.timeouts.time()

    def _check(self, now: float) -> bool:
        self._is_watching = False
        for queue in self._queues:
            for lane in list(queue.lanes):
                if lane.flight is not None:
                    self._is_watching = True
                    queue.check(lane, lane.flight, now)
        return self._is_watching

    async def open(self, *, is_new: bool = False) -> LaneConnection:
        """Return a connection, of the pool or a new one. Opening it goes on when the callers have gone."""
        began = self.timeouts.time()
        with self.timeouts.until(began + 2 * self._connect_timeout):
            if is_new:
                await self._connections.disconnect_idle()
            connection = await self._connections.open()
        self.opened_in = self.timeouts.time() - began
        return connection

    def is_lost(self, began: float, flight: Flight, replies: Replies) -> bool:
        """Learn from replies, and return whether their connection cannot be used any more."""
        now = self.timeouts.time()
        self.heard_at = now
        # The distance of the server: the shortest time of late. A slow machine or a large reply must not hide it.
        self.answered_in = min(now - began, 2 * self.answered_in + 0.001)
        is_lost = False
        for place, reply in enumerate(replies):
            if isinstance(reply, bytes):
                if len(reply) > LARGE or self._large_keys:
                    self._learn_size(flight.commands[place][1:2], len(reply))
            elif isinstance(reply, Exception):
                is_lost = is_lost or isinstance(reply, AuthenticationError)
                self.on_error(reply)
        return is_lost

    def _learn_size(self, key: Command, size: int) -> None:
        if size <= LARGE:
            self._large_keys.pop(key, None)
            return
        self._large_keys[key] = None
        if len(self._large_keys) > _REMEMBERED_LARGE:
            del self._large_keys[next(iter(self._large_keys))]

    def went_idle(self, queue: _Queue, lane: _Lane) -> None:
        """Return its connection to the pool: at once where there are few, else after a while."""
        if self._is_crowded:
            queue.give_back(lane)
        elif not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(_IDLE_FOR, self._sweep)

    def _sweep(self) -> None:
        before = self.timeouts.time() - _IDLE_FOR / 2
        left = [queue.give_back_idle(before) for queue in self._queues]
        self._is_sweeping = any(left) and not self._is_closed
        if self._is_sweeping:
            asyncio.get_running_loop().call_later(_IDLE_FOR, self._sweep)

    def renew(self) -> None:
        """Use other connections from now on."""
        for queue in self._queues:
            queue.renew()

    async def aclose(self) -> None:
        """Fail requests that still wait, and return the connections."""
        self._is_closed = True
        for queue in self._queues:
            queue.close()
        for task, is_opening in self._tasks.items():
            if is_opening:
                task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)
