"""Cancelling a coroutine at one chosen await."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any


class CancelAt:
    """Runs a coroutine and cancels its task at the given suspension, counted from 1.

    Attributes:
        reached: whether there were so many suspensions.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], suspension: int) -> None:
        self._work = work
        self._left = suspension
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        send: Any = None
        throw: BaseException | None = None
        while True:
            try:
                waited_for = steps.send(send) if throw is None else steps.throw(throw)
            except StopIteration as end:
                return end.value
            self._left -= 1
            if self._left == 0:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # takes effect at the yield below
            send, throw = None, None
            try:
                send = yield waited_for
            except BaseException as error:  # noqa: BLE001  (passed on inwards)
                throw = error


async def cancelled_at(work: Coroutine[Any, Any, Any], suspension: int) -> tuple[bool, BaseException | None]:
    """Run work in a task, cancel it at one suspension, and return whether it got there and what came out."""
    stepping = CancelAt(work, suspension)

    async def run(awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    task = asyncio.create_task(run(stepping))
    await asyncio.wait({task})
    error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
    return stepping.reached, error
