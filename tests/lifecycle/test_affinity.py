"""Which session an agent gets without a name is decided by those who have the key."""

from __future__ import annotations

from typing import Any

import pytest
from fakeredis import FakeRedis

from session_reuse import reusable_session
from session_reuse.testing import Fault, FaultyStore, MemoryStore, assert_reused, memory_manager
from tests.lifecycle.worlds import Process

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


async def used(process: Process, name: str, agent: str) -> None:
    """Have an agent use a session."""
    async with process.enter(name, agent) as session:
        session.data["of"] = name
    assert session.save_outcome in {"saved", "unchanged"}


async def found_by(memory: MemoryStore, agent: str, **config: Any) -> str | None:
    """Return which session another process would give to an agent."""
    process = Process(memory, **config)
    try:
        return await process.manager.affinity(agent)
    finally:
        await process.manager.aclose()


async def test_a_writer_without_a_key_does_not_decide_whose_session_an_agent_gets() -> None:
    """A plain entry, which anybody with access to the server can write, is not followed where keys are set."""
    memory = MemoryStore()
    process = Process(memory, encryption_keys=[KEY])
    await used(process, "alice", "agent-a")
    await used(process, "bob", "agent-b")
    client: Any = FakeRedis(server=memory.server)
    client.set("browser:affinity:agent-a", "bob")
    assert await process.manager.affinity("agent-a") is None
    async with process.enter(None, "agent-a") as session:
        assert session.fingerprint == "agent/agent-a"
        session.discard()
    await process.manager.aclose()


@pytest.mark.parametrize("entry", [b"x" * 600, b"", b"\xff\xfe", b"a\0b"])
@pytest.mark.parametrize("config", [{}, {"encryption_keys": [KEY]}], ids=["plain", "sealed"])
async def test_a_damaged_entry_raises_nothing_into_the_agent(entry: bytes, config: dict[str, Any]) -> None:
    """A name that is too long raised `InvalidFingerprintError` at the enter."""
    memory = MemoryStore()
    process = Process(memory, **config)
    client: Any = FakeRedis(server=memory.server)
    client.set("browser:affinity:agent-a", entry)
    async with process.enter(None, "agent-a") as session:
        session.data["n"] = 1
    assert (session.outcome, session.save_outcome) == ("missing", "saved")
    await process.manager.aclose()


async def test_a_sealed_entry_of_another_agent_is_not_followed() -> None:
    """The seal covers the agent, so that an entry that is copied says nothing."""
    memory = MemoryStore()
    process = Process(memory, encryption_keys=[KEY])
    await used(process, "alice", "agent-a")
    await used(process, "bob", "agent-b")
    client: Any = FakeRedis(server=memory.server)
    client.set("browser:affinity:agent-a", client.get("browser:affinity:agent-b"))
    assert await process.manager.affinity("agent-a") is None
    await process.manager.aclose()


async def test_an_agent_finds_its_session_by_a_sealed_entry() -> None:
    """Another process with the key follows it, also after the keys were rotated, and one without a key does too."""
    memory = MemoryStore()
    process = Process(memory, encryption_keys=[KEY])
    await used(process, "alice", "agent-a")
    await process.manager.aclose()
    assert await found_by(memory, "agent-a", encryption_keys=[KEY]) == "alice"
    assert await found_by(memory, "agent-a", encryption_keys=[OTHER_KEY, KEY]) == "alice"
    assert await found_by(memory, "agent-a", encryption_keys=[OTHER_KEY]) is None
    assert await found_by(memory, "agent-a") == "alice"
    successor = Process(memory, encryption_keys=[KEY])
    async with successor.enter(None, "agent-a") as session:
        assert_reused(session)
        assert session.data == {"of": "alice"}
    await successor.manager.aclose()


async def test_a_sealed_entry_goes_with_its_session() -> None:
    """An eviction removes the entries of the agents that used the session, whoever has sealed them."""
    memory = MemoryStore()
    process = Process(memory, encryption_keys=[KEY])
    await used(process, "alice", "agent-a")
    await process.manager.evict("alice")
    client: Any = FakeRedis(server=memory.server)
    assert not client.exists("browser:affinity:agent-a")
    await process.manager.aclose()


async def test_a_line_feed_in_a_name_leads_to_no_other_session() -> None:
    """It separates a fingerprint from its seal, also where there are no seals."""
    memory = MemoryStore()
    process = Process(memory)
    for name in ("alice", f"alice\n{'0123456789abcdef' * 2}", "alice\n"):
        await used(process, name, "agent")
        assert await found_by(memory, "agent") == name
        assert await found_by(memory, "agent", encryption_keys=[KEY]) is None
    await process.manager.aclose()


async def test_a_member_of_a_pool_is_an_agents_last_session_too() -> None:
    """Also while the store is away: else the agent would get another login than its last."""
    way = FaultyStore(MemoryStore())
    async with memory_manager(way) as manager:
        await manager.pool("shop.example").add("bob")
        async with reusable_session("shop.example/alice", "a7", manager=manager) as session:
            session.data["n"] = 1
        async with reusable_session(pool="shop.example", agent_id="a7", manager=manager) as session:
            session.data["n"] = 2
        way.fail = Fault.UNAVAILABLE
        async with reusable_session(None, "a7", manager=manager) as session:
            assert (session.fingerprint, session.data) == ("shop.example/bob", {"n": 2})
            session.discard()
