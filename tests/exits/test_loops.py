"""Event loops may end without ceremony: nothing of ours outlives them, and no save is lost without a word."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest
from prometheus_client import CollectorRegistry

from session_reuse import SaveOutcome, SessionManager, reusable_session
from tests.exits.programs import run
from tests.support.servers import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.filterwarnings("ignore::ResourceWarning")]

LOOPS = 300


async def visit() -> None:
    """Enter and leave with the default manager."""
    async with reusable_session("shop/alice", "agent") as session:
        session.data["n"] = session.data.get("n", 0) + 1
    assert session.save_outcome is SaveOutcome.SAVED


def descriptors() -> int:
    """Return how many files and sockets are open."""
    return len(os.listdir("/proc/self/fd"))


def managers() -> int:
    """Return how many managers are in memory."""
    gc.collect()
    return sum(isinstance(each, SessionManager) for each in gc.get_objects())


def test_loops_that_are_only_closed_leave_nothing(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 times `run_until_complete` and `close`, without the garbage collector: one manager at most is left open."""
    monkeypatch.setenv("SESSION_REUSE_URL", redis_server.url)
    before, alive, threads = descriptors(), managers(), threading.active_count()
    gc.disable()
    try:
        for _ in range(LOOPS):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(visit())
            loop.close()
        assert descriptors() <= before + 5
        with redis_server.client() as client:
            assert len(client.client_list()) <= 4
    finally:
        gc.enable()
    assert managers() <= alive + 1
    assert threading.active_count() == threads


def test_loops_that_are_dropped_leave_nothing(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is not even closed takes its manager with it when it is collected."""
    monkeypatch.setenv("SESSION_REUSE_URL", redis_server.url)
    before, alive = descriptors(), managers()
    for _ in range(30):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(visit())
        del loop
    assert managers() <= alive + 1
    assert descriptors() <= before + 5


WAITING = """
from session_reuse import SessionManager, reusable_session

async def leave(fingerprint, manager=None):
    async with reusable_session(fingerprint, manager=manager) as session:
        session.data["n"] = 1
        server.config_set("maxmemory", "1")
    say(session.save_outcome)
    server.config_set("maxmemory", "0")
"""


@pytest.mark.parametrize(
    "end",
    [
        "loop.run_until_complete(leave('shop/alice')); loop.close(); asyncio.run(asyncio.sleep(0))",
        "loop.run_until_complete(leave('shop/alice')); loop.close(); asyncio.run(leave('shop/bob'))",
        "loop.run_until_complete(leave('shop/alice'))",
        "loop.run_until_complete(leave('shop/alice', SessionManager())); loop.close()",
        "loop.run_until_complete(leave('shop/alice', SessionManager())); loop.close(); loop = None; gc.collect()",
    ],
    ids=["closed", "next-use", "open", "own", "collected"],
)
def test_saves_that_wait_are_reported_once(own_redis: RedisServer, end: str) -> None:
    """The loop ends before its manager, or the process does: one warning for each save that waited."""
    ended = run(WAITING + "loop = asyncio.new_event_loop(); " + end, own_redis)
    assert ended.lines[0] == "pending"
    assert sum("session_reuse.save_lost fingerprint='shop/alice'" in line for line in ended.logged) == 1
    assert ended.code == 0


def test_a_collected_manager_counts_what_is_lost(own_redis: RedisServer) -> None:
    """Nobody closed the manager: the save that waited is in `session_pending_lost_total`, and waits no more."""
    registry = CollectorRegistry()

    async def leave() -> None:
        async with reusable_session("shop/alice", manager=SessionManager(own_redis.url, registry=registry)) as session:
            session.data["n"] = 1
            with own_redis.client() as client:
                client.config_set("maxmemory", "1")
        assert session.save_outcome is SaveOutcome.PENDING

    asyncio.run(leave())
    gc.collect()
    assert registry.get_sample_value("session_pending_lost_total") == 1
    assert registry.get_sample_value("session_pending_saves") == 0
