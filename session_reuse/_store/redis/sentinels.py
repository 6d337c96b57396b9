"""Ask the sentinels of a group for the master, without waiting for a silent one."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from session_reuse._cancellation import retrieve

_NEXT_AFTER: Final = 0.05
"""Seconds without an answer after which the next sentinel is asked as well."""


class HastySentinel(Sentinel):
    """Sentinels that are asked one after the other, the next one early.

    redis-py's waits for a silent sentinel until its time-out (8.1.0), which is longer than an enter. So one sentinel on
    the frozen host of the old master would hide the new one.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the master that the first sentinel to answer names, and ask that one first from now on.

        Raises:
            MasterNotFoundError: no sentinel knows a master of this name that works.
            Exception: the first error, if a sentinel could not be asked.
        """
        waiting: list[Redis] = list(self.sentinels)
        asked: dict[asyncio.Task[Any], Redis] = {}
        error: BaseException | None = None
        try:
            while waiting or asked:
                if waiting:
                    sentinel = waiting.pop(0)
                    asked[asyncio.ensure_future(sentinel.sentinel_masters())] = sentinel
                patience = _NEXT_AFTER if waiting else None
                done, _ = await asyncio.wait(asked, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                for answer in done:
                    sentinel = asked.pop(answer)
                    error = error or answer.exception()
                    state = None if answer.exception() else answer.result().get(service_name)
                    if state and self.check_master_state(state, service_name):
                        self.sentinels = [sentinel, *(each for each in self.sentinels if each is not sentinel)]
                        return state["ip"], state["port"]
        finally:
            for answer in asked:
                answer.add_done_callback(retrieve)
                answer.cancel()
        raise error or MasterNotFoundError(f"no sentinel knows a master {service_name!r} that works")
