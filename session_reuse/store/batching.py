"""Commands of many agents in few writes, over redis-py's own pipeline. Must never mix up whose reply is whose.

While a lane waits for its replies, further commands queue; when it is free, all that has queued goes out as one
pipeline. An idle lane sends at once, in the caller's own task. Large values have a lane of their own, so that small
ones do not wait behind them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from session_reuse.store.watch import Watch

Command = tuple[Any, ...]
Replies = list[Any]
Send = Callable[[Sequence[Command]], Awaitable[Replies]]
"""Sends commands in one write and returns their replies, errors of single commands in their place."""

LARGE: Final = 64 * 1024
"""Commands with more bytes than this take the lane for large values."""
_MAX_BATCH: Final = 256
_PATIENCE: Final = 2.0
"""How many timeouts a group waits for a lane; it fails sooner when the lane it waits for does."""


class _Waiter:
    __slots__ = ("commands", "patience", "replies", "timeout")

    def __init__(
        self, commands: tuple[Command, ...], timeout: float, patience: float, replies: asyncio.Future[Replies]
    ) -> None:
        self.commands = commands
        self.timeout = timeout
        self.patience = patience
        self.replies = replies

    def fail(self) -> None:
        if not self.replies.done():
            self.replies.set_exception(TimeoutError())


class _Queue:
    """One queue and the lanes that serve it."""

    def __init__(self, send: Send, lanes: int) -> None:
        self._send = send
        self._lanes = lanes
        self._busy = 0
        self._waiting: deque[_Waiter] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: Watch | None = None

    def execute(self, commands: tuple[Command, ...], timeout: float) -> Awaitable[Replies]:
        if self._busy < self._lanes and not self._waiting:
            return self._execute_now(self._watched(), commands, timeout)
        return self.submit(commands, timeout)

    def submit(self, commands: tuple[Command, ...], timeout: float) -> asyncio.Future[Replies]:
        watch = self._watched()
        replies = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiter(commands, timeout, watch.deadline(_PATIENCE * timeout), replies))
        self._serve(watch)
        return replies

    def _watched(self) -> Watch:
        if self._watch is None:
            self._watch = Watch()
        return self._watch

    async def _execute_now(self, watch: Watch, commands: tuple[Command, ...], timeout: float) -> Replies:
        self._busy += 1
        try:
            return await watch.within(watch.deadline(timeout), self._send(commands))
        except TimeoutError:
            self._fail_waiting()
            raise
        finally:
            self._busy -= 1
            self._serve(watch)

    def _serve(self, watch: Watch) -> None:
        if self._waiting and self._busy < self._lanes:
            self._busy += 1
            task = asyncio.get_running_loop().create_task(self._drain(watch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drain(self, watch: Watch) -> None:
        try:
            while batch := self._take(watch):
                await self._send_batch(watch, batch)
        finally:
            self._busy -= 1

    def _take(self, watch: Watch) -> list[_Waiter]:
        batch: list[_Waiter] = []
        room = _MAX_BATCH
        while self._waiting and room > 0:
            waiter = self._waiting.popleft()
            if watch.passed(waiter.patience):
                waiter.fail()
            elif not waiter.replies.done():
                batch.append(waiter)
                room -= len(waiter.commands)
        return batch

    async def _send_batch(self, watch: Watch, batch: list[_Waiter]) -> None:
        commands = [command for waiter in batch for command in waiter.commands]
        deadline = watch.deadline(max(waiter.timeout for waiter in batch))
        try:
            replies = await watch.within(deadline, _with_one_wait(self._send, commands))
        except TimeoutError:
            self._fail(batch)
            self._fail_waiting()
        except asyncio.CancelledError:
            self._fail(batch)
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the waiters' to know)
            for waiter in batch:
                if not waiter.replies.done():
                    waiter.replies.set_exception(error)
        else:
            _hand_out(batch, replies)

    @staticmethod
    def _fail(batch: list[_Waiter]) -> None:
        for waiter in batch:
            waiter.fail()

    def _fail_waiting(self) -> None:
        """Fail what queued behind a frozen batch: the server does not answer, and their time is better spent."""
        waiting, self._waiting = list(self._waiting), deque()
        self._fail(waiting)

    async def aclose(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_waiting()


def _hand_out(batch: list[_Waiter], replies: Replies) -> None:
    position = 0
    for waiter in batch:
        end = position + len(waiter.commands)
        if not waiter.replies.done():
            waiter.replies.set_result(replies[position:end])
        position = end


async def _with_one_wait(send: Send, commands: list[Command]) -> Replies:
    """Send a batch with its last WAIT only: that one covers all writes before it, and the others would add up."""
    waits = [position for position, command in enumerate(commands) if command[0] == "WAIT"]
    if len(waits) < 2:
        return await send(commands)
    spared = set(waits[:-1])
    replies = await send([command for position, command in enumerate(commands) if position not in spared])
    answer = replies[waits[-1] - len(spared)]
    for position in waits[:-1]:
        replies.insert(position, answer)
    return replies


class Batcher:
    """Sends groups of commands to one server; each group goes out together and its replies come back together.

    Args:
        send: sends commands to the server.
        lanes: connections for small values.
    """

    def __init__(self, send: Send, lanes: int) -> None:
        self._small = _Queue(send, lanes)
        self._large = _Queue(send, 1)

    def execute(self, *commands: Command, timeout: float, size: int = 0) -> Awaitable[Replies]:
        """Send the commands in one write and return their replies, errors of single commands in their place.

        To be awaited at once, by the task that called.

        Args:
            commands: name and arguments of each.
            timeout: seconds from the write until TimeoutError; see `watch.py` for how they are counted.
            size: bytes of the values sent; decides on the lane.
        """
        queue = self._large if size > LARGE else self._small
        return queue.execute(commands, timeout)

    def submit(self, *commands: Command, timeout: float, size: int = 0) -> asyncio.Future[Replies]:
        """Do the same, without a task of its own for the caller who waits for several servers at once."""
        queue = self._large if size > LARGE else self._small
        return queue.submit(commands, timeout)

    async def aclose(self) -> None:
        """Fail what still waits and end the lanes."""
        await self._small.aclose()
        await self._large.aclose()
