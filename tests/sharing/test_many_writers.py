"""Several hosts with one login at once: every update survives."""

from __future__ import annotations

import asyncio

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager, reusable_session
from tests.harness.servers import RedisCluster, RedisServer
from tests.sharing.processes import workers
from tests.sharing.traces import MakeManager

PROCESSES, TASKS, ROUNDS = 4, 8, 30
COOKIES = [{"name": name, "value": "v", "domain": "shop.example", "path": "/"} for name in ("sid", "csrf", "theme")]


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_no_update_is_lost_among_many_writers(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """4 processes x 8 tasks x 30 updates: all 960 items of shared mode are there, the exclusive count is exact."""
    async with workers(PROCESSES, "crowd", url=servers.url, fingerprint="one", tasks=TASKS, rounds=ROUNDS) as crowd:
        await asyncio.gather(*(worker.says() for worker in crowd))
        for worker in crowd:
            worker.tell()
        said = await asyncio.gather(*(worker.says(150.0) for worker in crowd))
    manager = await make_manager(servers.url)
    shared, counted = await manager.restore("one"), await manager.restore("one/counter")
    total = PROCESSES * TASKS * ROUNDS
    assert shared is not None, said
    assert counted is not None, said
    assert len(shared.data) == total, said
    assert counted.data == {"count": total}, said


async def test_a_logout_beside_a_save_stays(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """One agent's deleted cookie stays deleted when another, who still had it, saves later."""
    ours, theirs = await make_manager(servers.url), await make_manager(servers.url)
    async with reusable_session("shop", "agent-1", manager=ours) as session:
        session.storage_state = {"cookies": [dict(cookie) for cookie in COOKIES], "origins": []}
    async with reusable_session("shop", "agent-2", manager=theirs) as other:
        async with reusable_session("shop", "agent-1", manager=ours) as session:
            session.storage_state["cookies"] = [c for c in session.storage_state["cookies"] if c["name"] != "sid"]
        assert session.save_outcome is SaveOutcome.SAVED
        other.storage_state["cookies"][2]["value"] = "dark"
    assert other.save_outcome is SaveOutcome.MERGED
    found = await ours.restore("shop")
    assert found is not None
    assert {cookie["name"]: cookie["value"] for cookie in found.storage_state["cookies"]} == {
        "csrf": "v",
        "theme": "dark",
    }


async def test_what_is_invalidated_during_a_body_stays_dead(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """A late save brings nothing back, leaves no affinity and no index entry. A new login afterwards is welcome."""
    ours, theirs = await make_manager(servers.url), await make_manager(servers.url)
    async with reusable_session("shop", "agent-1", manager=ours) as session:
        session.data["n"] = 1
    async with reusable_session("shop", "agent-2", manager=theirs) as late:
        async with reusable_session("shop", "agent-3", manager=theirs) as unchanged:
            assert await ours.evict("shop", "stolen")
            late.data["n"] = 2
        assert unchanged.save_outcome is SaveOutcome.STALE
    assert late.save_outcome is SaveOutcome.STALE
    assert await ours.restore("shop") is None
    assert [await ours.affinity(f"agent-{number}") for number in (1, 2, 3)] == [None, None, None]
    async with reusable_session("shop", "agent-4", manager=theirs) as session:
        assert session.outcome is Outcome.MISSING
        session.data["n"] = 3
    assert session.save_outcome is SaveOutcome.SAVED
    found = await ours.restore("shop")
    assert found is not None
    assert found.data == {"n": 3}


async def test_an_agent_that_met_nothing_cannot_undo_an_invalidation(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """Whoever entered before the invalidation, even a session that was missing then, is too late with its save."""
    manager = await make_manager(servers.url)
    async with reusable_session("shop", "agent-1", manager=manager) as late:
        async with reusable_session("shop", "agent-2", manager=manager) as session:
            session.data["n"] = 1
        await session_invalidated(manager, "shop")
        late.data["n"] = 2
    assert late.save_outcome is SaveOutcome.STALE
    assert await manager.restore("shop") is None
    assert await manager.affinity("agent-1") is None
    assert (await manager.cleanup_once()).expired == 0


async def session_invalidated(manager: SessionManager, fingerprint: str) -> None:
    """Invalidate from inside of a visit."""
    async with reusable_session(fingerprint, manager=manager) as session:
        await session.invalidate("logged out")
    assert session.save_outcome is SaveOutcome.SKIPPED


async def test_affinity_goes_with_the_session(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """Eviction removes the affinity of every agent that used the session, and of no other."""
    manager = await make_manager(servers.url)
    for agent in ("a", "b", "moved on"):
        async with reusable_session("shop", agent, manager=manager) as session:
            session.data[agent] = 1
    async with reusable_session("elsewhere", "moved on", manager=manager) as session:
        session.data["n"] = 1
    assert await manager.affinity("a") == "shop"
    await manager.evict("shop")
    assert [await manager.affinity(agent) for agent in ("a", "b", "moved on")] == [None, None, "elsewhere"]
