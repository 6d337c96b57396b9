"""Commands of many agents in few writes: queues, lanes, and what is done when a server does not answer.

While a lane waits for its replies, further commands queue; when it is free, all that has queued goes out in one write.
Large values have a lane of their own, so that small ones do not wait behind them.

Time in a queue blames nobody: a request fails when a lane hears nothing from the server for as long as an attempt may
take, or when no connection can be opened. How long it is waited for in all is the caller's to limit, by cancelling.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from redis.exceptions import AuthenticationError

from session_reuse._resilience.loop_timeouts import LoopTimeouts
from session_reuse._store.redis.redis_py import Command, Connections, LaneConnection, Outcome, Replies

LARGE: Final = 64 * 1024
"""Commands and replies with more bytes than this take the lane for large values."""
_MAX_BATCH: Final = 256
_REMEMBERED_LARGE: Final = 1024
_BYTES_PER_SECOND: Final = 4 * 1024 * 1024
"""Speed a link must have for what is sent: beyond the kernel's buffer, progress cannot be seen."""
_LONGEST: Final = 30.0
"""Seconds after which a group that still trickles in is given up; callers mostly do so much earlier."""
_SECOND_AFTER: Final = 0.45
"""Share of an attempt's time after which the same commands go out on a fresh connection."""
_IDLE_FOR: Final = 2.0
"""Seconds after which an idle lane gives its connection back to the pool."""


class StalledError(TimeoutError):
    """One connection is silent although the server answers on others."""


class _Request:
    """Commands of one caller."""

    __slots__ = ("commands", "limit", "replies", "size")

    def __init__(
        self, commands: tuple[Command, ...], limit: float, size: int, replies: asyncio.Future[Replies]
    ) -> None:
        self.commands = commands
        self.limit = limit
        self.size = size
        self.replies = replies

    def fail(self, error: Exception) -> None:
        if not self.replies.done():
            self.replies.set_exception(error)


class _Flight:
    """Requests that went out in one write."""

    __slots__ = ("commands", "limit", "parts", "size")

    def __init__(self) -> None:
        self.parts: list[tuple[_Request, int]] = []
        """Each with the place of its first command."""
        self.commands: list[Command] = []
        self.limit = 0.0
        self.size = 0

    def add(self, request: _Request) -> None:
        self.parts.append((request, len(self.commands)))
        self.commands += request.commands
        self.limit = max(self.limit, request.limit)
        self.size += request.size

    def fail(self, error: Exception) -> None:
        for request, _ in self.parts:
            request.fail(error)

    def hand_out(self, replies: Replies) -> None:
        for request, start in self.parts:
            if not request.replies.done():
                request.replies.set_result(replies[start : start + len(request.commands)])

    @property
    def is_abandoned(self) -> bool:
        return all(request.replies.done() for request, _ in self.parts)


class _Lane:
    """One connection and what it carries.

    Attributes:
        since: when it last made progress, or became idle.
        is_fresh: whether its connection was opened for what it carries, so that it cannot have died meanwhile.
        second: a fresh connection that carries the same commands, because the first one may be dead.
    """

    __slots__ = (
        "began",
        "connection",
        "flight",
        "is_fresh",
        "is_outdated",
        "progress",
        "second",
        "second_asked",
        "since",
    )

    def __init__(self) -> None:
        self.connection: LaneConnection | None = None
        self.second: LaneConnection | None = None
        self.flight: _Flight | None = None
        self.began = self.since = self.second_asked = 0.0
        self.progress = 0
        self.is_fresh = True
        self.is_outdated = False


class _Queue:
    """Requests that wait, and the lanes that serve them."""

    def __init__(self, batcher: Batcher, most: int, *, shares_reads: bool) -> None:
        self.waiting: deque[_Request] = deque()
        self.lanes: list[_Lane] = []
        self._batcher = batcher
        self._most = most
        self._idle: list[_Lane] = []
        self._shares_reads = shares_reads

    def serve(self) -> None:
        """Send what waits on the lanes that are idle; open another one when there are none."""
        while self.waiting and self._idle:
            lane = self._idle.pop()
            flight = self._take()
            if not flight.parts:
                self._idle.append(lane)
                return
            self._start(lane, flight)
        if self.waiting and len(self.lanes) < self._most:
            lane = _Lane()
            self.lanes.append(lane)
            self._batcher.spawn(self._open(lane), is_opening=True)

    def _take(self) -> _Flight:
        flight = _Flight()
        places: dict[tuple[Command, ...], int] = {}
        while self.waiting and len(flight.commands) < _MAX_BATCH:
            request = self.waiting.popleft()
            if request.replies.done():
                continue
            place = places.get(request.commands) if self._shares_reads else None
            if place is not None:
                flight.parts.append((request, place))
                continue
            if self._shares_reads and len(request.commands) == 1 and request.commands[0][0] in {"GET", "GETEX"}:
                places[request.commands] = len(flight.commands)
            flight.add(request)
        return flight

    def _start(self, lane: _Lane, flight: _Flight) -> None:
        assert lane.connection is not None  # noqa: S101  (idle lanes are open)
        batcher = self._batcher
        lane.flight = flight
        lane.began = lane.since = batcher.watched_time()
        lane.second_asked = 0.0
        lane.progress = _progress(lane)
        lane.connection.send(_with_one_wait(flight.commands), lambda by, outcome: self._done(lane, by, outcome))

    async def _open(self, lane: _Lane) -> None:
        try:
            connection = await self._batcher.open()
        except Exception as error:  # noqa: BLE001  (whatever it is, it is for those who wait)
            self._forget(lane)
            self._batcher.on_error(error)
            if not self.lanes:
                self._fail_waiting(error)
            return
        except BaseException:
            self._forget(lane)
            raise
        self._adopt(lane, connection)
        self._free(lane)

    def _forget(self, lane: _Lane) -> None:
        if lane in self.lanes:  # not dropped at a close meanwhile
            self.lanes.remove(lane)

    def _adopt(self, lane: _Lane, connection: LaneConnection) -> None:
        lane.connection = connection
        connection.on_lost = lambda _: self._drop(lane)

    def _free(self, lane: _Lane) -> None:
        """Let a lane carry what waits, or be idle."""
        lane.since = self._batcher.timeouts.time()
        if lane.is_outdated:
            self._drop(lane)
            return
        self._idle.append(lane)
        self.serve()
        if lane in self._idle:
            lane.is_fresh = False
            self._batcher.went_idle(self, lane)

    def _done(self, lane: _Lane, by: LaneConnection, outcome: Outcome) -> None:
        flight = lane.flight
        if flight is None or by not in (lane.connection, lane.second):
            return
        if isinstance(outcome, Exception):
            if lane.second is not None:
                self._batcher.spawn(by.discard())
                if by is lane.connection:
                    self._adopt(lane, lane.second)
                lane.second = None
                return
            self._drop(lane, outcome)
            return
        if lane.second is not None:
            loser = lane.second
            if by is lane.second and lane.connection is not None:
                loser, lane.began = lane.connection, lane.second_asked
                self._adopt(lane, by)
            self._batcher.spawn(loser.discard())
            lane.second = None
        lane.flight = None
        lane.is_fresh = False
        replies = _with_all_waits(flight.commands, outcome)
        if self._batcher.answered(lane, flight, replies):
            lane.is_outdated = True
        self._free(lane)
        flight.hand_out(replies)

    def _drop(self, lane: _Lane, error: Exception | None = None) -> None:
        """End a lane; what it carries fails, and what waits takes another one."""
        self._forget(lane)
        if lane in self._idle:
            self._idle.remove(lane)
        for connection in (lane.connection, lane.second):
            if connection is not None:
                self._batcher.spawn(connection.discard())
        lane.connection = lane.second = None
        flight, lane.flight = lane.flight, None
        if flight is not None and error is not None:
            self._batcher.on_error(error)
            flight.fail(error)
        self.serve()

    def _fail_waiting(self, error: Exception) -> None:
        waiting, self.waiting = self.waiting, deque()
        for request in waiting:
            request.fail(error)

    # While a flight is under way ---------------------------------------------------------------------------------------

    def check(self, lane: _Lane, flight: _Flight, now: float) -> None:
        """Look for progress; without it, try a second connection, and give up in the end."""
        progress = _progress(lane)
        if progress != lane.progress:
            lane.progress = progress
            lane.since = self._batcher.heard_at = now
        batcher, silent, took = self._batcher, now - lane.since, now - lane.began
        limit = flight.limit + flight.size / _BYTES_PER_SECOND
        if lane.second_asked:
            second_needs = max(limit / 2, 1.5 * (batcher.opened_in + batcher.answered_in))
            limit = max(limit, lane.second_asked - lane.since + second_needs)
        if silent >= limit or took >= _LONGEST or (took >= limit and flight.is_abandoned):
            self._give_up(lane, now)
        elif (
            not lane.is_fresh
            and not lane.second_asked
            and flight.size <= LARGE
            and lane.since == lane.began
            and silent >= max(_SECOND_AFTER * limit, 2 * batcher.answered_in)
        ):
            lane.second_asked = now
            batcher.spawn(self._try_second(lane, flight), is_opening=True)

    def _give_up(self, lane: _Lane, now: float) -> None:
        heard = self._batcher.heard_at - lane.since > (now - lane.since) / 2
        if not heard:
            self._fail_waiting(TimeoutError())
        self._drop(lane, StalledError() if heard else TimeoutError())

    async def _try_second(self, lane: _Lane, flight: _Flight) -> None:
        try:
            connection = await self._batcher.open()
        except Exception:  # noqa: BLE001  (the first connection decides)
            return
        if lane.flight is not flight or lane.second is not None:
            await connection.release()
            return
        lane.second = connection
        connection.send(_with_one_wait(flight.commands), lambda by, outcome: self._done(lane, by, outcome))

    # At the end of their use -------------------------------------------------------------------------------------------

    def give_back(self, lane: _Lane) -> None:
        """Return an idle lane's connection to its pool."""
        assert lane.connection is not None  # noqa: S101  (idle lanes are open)
        self._idle.remove(lane)
        self.lanes.remove(lane)
        self._batcher.spawn(lane.connection.release())

    def give_back_idle(self, before: float) -> int:
        """Return to the pool what has been idle since `before`; how many lanes are left."""
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
        """Fail what waits and what is under way."""
        self._most = 0
        self._fail_waiting(TimeoutError())
        self.give_back_idle(before=self._batcher.timeouts.time())
        for lane in list(self.lanes):
            self._drop(lane, TimeoutError())


class Batcher:
    """Sends groups of commands to one server; each group goes out together and its replies come back together.

    Args:
        connections: where to get connections.
        lanes: how many for small values.
        connect_timeout: seconds for one step of opening a connection.
        on_error: called with each error that the server returns or that ends a group, before those who wait get it.
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
        self._small = _Queue(self, max(1, min(lanes, connections.most - 1)), shares_reads=False)
        self._large = _Queue(self, 1, shares_reads=True) if connections.most > 1 else self._small
        self._large_keys: dict[tuple[Any, ...], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._is_watching = False
        self._is_sweeping = False
        self._is_closed = False

    def execute(self, *commands: Command, timeout: float, size: int = 0) -> asyncio.Future[Replies]:
        """Send the commands in one write and return their replies, errors of single commands in their place.

        Args:
            commands: name and arguments of each; safe to repeat.
            timeout: seconds of silence of the server until TimeoutError.
            size: bytes of the values sent; decides on the lane.
        """
        replies: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()
        request = _Request(commands, timeout, size, replies)
        if self._is_closed:
            request.fail(TimeoutError())
        elif size > LARGE or (self._large_keys and commands[-1][1:2] in self._large_keys):
            for command in commands:
                if size > LARGE and command[0] == "EVALSHA":  # its first key is the session's
                    self._learn_size(command[3:4], size)
            self._large.waiting.append(request)
            asyncio.get_running_loop().call_soon(self._large.serve)  # after those who ask at the same moment
        else:
            self._small.waiting.append(request)
            self._small.serve()
        return replies

    @property
    def connections(self) -> int:
        """How many connections the lanes hold, or are about to open."""
        return sum(len(queue.lanes) for queue in {self._small, self._large})

    def spawn(self, work: Coroutine[Any, Any, None], *, is_opening: bool = False) -> None:
        """Run work in the background; what opens a connection is cancelled at the close."""
        task = asyncio.get_running_loop().create_task(work, name="session_reuse:lane")
        for tasks in (self._tasks, self._opening) if is_opening else (self._tasks,):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def watched_time(self) -> float:
        """Return the time, and see to it that lanes under way are checked."""
        if not self._is_watching:
            self._is_watching = True
            self.timeouts.watch(self._check)
        return self.timeouts.time()

    async def open(self) -> LaneConnection:
        """Return a new connection; opening it goes on when those who asked for it have gone."""
        began = self.timeouts.time()
        with self.timeouts.until(began + 2 * self._connect_timeout):
            connection = await self._connections.open()
        self.opened_in = self.timeouts.time() - began
        return connection

    def answered(self, lane: _Lane, flight: _Flight, replies: Replies) -> bool:
        """Learn from replies; return whether their connection cannot be used any more."""
        now = self.timeouts.time()
        self.heard_at = now
        # The distance of the server: the shortest time of late. A slow machine or a large reply must not hide it.
        self.answered_in = min(now - lane.began, 2 * self.answered_in + 0.001)
        is_lost = False
        for place, reply in enumerate(replies):
            if isinstance(reply, bytes):
                if len(reply) > LARGE or self._large_keys:
                    self._learn_size(flight.commands[place][1:2], len(reply))
            elif isinstance(reply, Exception):
                is_lost = is_lost or isinstance(reply, AuthenticationError)
                self.on_error(reply)
        return is_lost

    def _learn_size(self, key: tuple[Any, ...], size: int) -> None:
        if size <= LARGE:
            self._large_keys.pop(key, None)
            return
        self._large_keys[key] = None
        if len(self._large_keys) > _REMEMBERED_LARGE:
            del self._large_keys[next(iter(self._large_keys))]

    def _check(self, now: float) -> bool:
        self._is_watching = False
        for queue in (self._small, self._large):
            for lane in list(queue.lanes):
                if lane.flight is not None:
                    self._is_watching = True
                    queue.check(lane, lane.flight, now)
        return self._is_watching

    def went_idle(self, queue: _Queue, lane: _Lane) -> None:
        """Give its connection back: at once where there are few, else after a while."""
        if self._is_crowded:
            queue.give_back(lane)
        elif not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(_IDLE_FOR, self._sweep)

    def _sweep(self) -> None:
        before = self.timeouts.time() - _IDLE_FOR / 2
        left = self._small.give_back_idle(before) | self._large.give_back_idle(before)
        self._is_sweeping = bool(left) and not self._is_closed
        if self._is_sweeping:
            asyncio.get_running_loop().call_later(_IDLE_FOR, self._sweep)

    def renew(self) -> None:
        """Use other connections from now on."""
        self._small.renew()
        self._large.renew()

    async def aclose(self) -> None:
        """Fail what still waits, and give the connections back."""
        self._is_closed = True
        self._small.close()
        self._large.close()
        for task in self._opening:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)


def _progress(lane: _Lane) -> int:
    assert lane.connection is not None  # noqa: S101  (it carries a flight)
    progress = lane.connection.progress() + (lane.second.progress() if lane.second else 0)
    return progress if lane.flight is None or lane.flight.size <= LARGE else progress - lane.connection.unsent()


def _with_one_wait(commands: list[Command]) -> list[Command]:
    """Return commands with the last WAIT only: that one covers all writes before it, and the others would add up."""
    waits = [place for place, command in enumerate(commands) if command[0] == "WAIT"]
    spared = set(waits[:-1])
    return [command for place, command in enumerate(commands) if place not in spared] if spared else commands


def _with_all_waits(commands: list[Command], replies: Replies) -> Replies:
    """Return the replies with that of the last WAIT in the place of each WAIT that was not sent."""
    if len(replies) == len(commands):
        return replies
    last = max(place for place, command in enumerate(commands) if command[0] == "WAIT")
    answer = replies[last - (len(commands) - len(replies))]
    rest = iter(replies)
    return [answer if command[0] == "WAIT" and place < last else next(rest) for place, command in enumerate(commands)]
