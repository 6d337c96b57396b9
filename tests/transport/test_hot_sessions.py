"""Sessions that many agents save at once, and sessions of some megabytes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from session_reuse import SaveOutcome, SessionManager, reusable_session
from tests.harness.servers import RedisServer
from tests.transport.visits import DEFAULTS

PATIENT = {**DEFAULTS, "attempt_timeout": 5.0, "restore_timeout": 10.0, "save_timeout": 20.0}
AGENTS = 120
FEW = 12
"""Commits. Two are usual."""
LOOP_HELD = 0.03
"""Seconds of processor time for which 2 MB in 20,000 items may hold the event loop at a time: 0.01 measured."""


async def save(manager: SessionManager, number: int) -> SaveOutcome | None:
    """Add one note to the session that all share."""
    async with reusable_session("shop/hot", manager=manager) as session:
        await asyncio.sleep(0)
        session.data[f"agent-{number}"] = number
    return session.save_outcome


async def test_120_saves_of_one_session_are_few_commits(redis_server: RedisServer) -> None:
    """While one is on its way, the others are combined."""
    async with SessionManager(redis_server.url, **PATIENT) as manager:
        await save(manager, 0)
        with redis_server.client() as client:
            before = scripts_run(client)
            outcomes = await asyncio.gather(*(save(manager, number) for number in range(AGENTS)))
            commits = scripts_run(client) - before
        assert set(outcomes) <= {SaveOutcome.SAVED, SaveOutcome.MERGED, SaveOutcome.UNCHANGED}
        found = await manager.restore("shop/hot")
        assert found is not None
        assert len(found.data) == AGENTS
        assert commits <= FEW


def scripts_run(client: redis.Redis) -> int:
    """Return how many scripts the server has run."""
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


@contextmanager
def longest_turns() -> Iterator[list[float]]:
    """Measure the processor time of each turn of the event loop: that of others on this machine does not count."""
    real, turns = asyncio.Handle._run, [0.0]

    def run(handle: Any) -> None:
        began = time.thread_time()
        real(handle)
        turns.append(time.thread_time() - began)

    asyncio.Handle._run = run  # type: ignore[method-assign]
    try:
        yield turns
    finally:
        asyncio.Handle._run = real  # type: ignore[method-assign]


async def test_a_large_session_holds_the_loop_for_a_moment_only(redis_server: RedisServer) -> None:
    """2 MB are read, merged and written in threads. What is done on the loop is bounded."""
    pad = {f"item-{number}": os.urandom(40).hex() for number in range(20_000)}
    entered, leave = asyncio.Event(), asyncio.Event()

    async def agent() -> SaveOutcome | None:
        async with reusable_session("shop/big", manager=other) as session:
            entered.set()
            session.data["mine"] = 1
            await leave.wait()
        return session.save_outcome

    async with SessionManager(redis_server.url, **PATIENT) as one, SessionManager(redis_server.url, **PATIENT) as other:
        async with reusable_session("shop/big", manager=one) as session:
            session.data["pad"] = pad
        with longest_turns() as turns:
            working = asyncio.create_task(agent())
            await entered.wait()
        enter = max(turns)
        async with reusable_session("shop/big", manager=one) as session:
            session.data["theirs"] = 1
        with longest_turns() as turns:
            leave.set()
            assert await working is SaveOutcome.MERGED
        assert enter < LOOP_HELD
        assert max(turns) < LOOP_HELD
