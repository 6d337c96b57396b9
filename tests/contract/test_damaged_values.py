"""Whatever stands under a session's key: the agent starts fresh, the breaker stays closed, nothing is overwritten."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from session_reuse import BrowserSession, CorruptStateError, Outcome, SaveOutcome, SessionManager, reusable_session
from session_reuse._state.header import Header, authenticated_part
from session_reuse._state.sealing import NO_KEY, Checksum
from tests.harness.polling import until
from tests.harness.servers import RedisServer
from tests.harness.stored import KEYS

KEY = "browser:session:alice"
FOREIGN_AGENTS = {b"": 1.0, b"x" * 600: 2.0, b"\xff": 2e15}
QUARANTINE = "browser:quarantine:{browser:session:alice}"


def flipped(value: bytes, position: int) -> bytes:
    """Return the value with one bit turned."""
    changed = bytearray(value)
    changed[position] ^= 0x10
    return bytes(changed)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "a plain string": lambda _: b"hello",
    "json": lambda _: b'{"cookies": []}',
    "only the header": lambda value: value[:176],
    "cut in the header": lambda value: value[:100],
    "cut off": lambda value: value[:-1],
    "bit flipped in the body": lambda value: flipped(value, len(value) - 5),
    "bit flipped in the version": lambda value: flipped(value, 60),
    "bit flipped in the creation time": lambda value: flipped(value, 120),
    "longer than it was": lambda value: value + b"x",
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_value_is_set_aside(
    manager: SessionManager, redis_server: RedisServer, registry: CollectorRegistry, name: str
) -> None:
    """A fresh session, told as `corrupt`. The bad value is kept for people to look at, the new login is saved."""
    async with reusable_session("alice", "agent", manager=manager) as session:
        session.data["n"] = 1
    with redis_server.client() as client:
        bad = DAMAGES[name](client.get(KEY))
        client.set(KEY, bad, ex=1000)
        async with reusable_session("alice", "agent", manager=manager) as session:
            assert session.outcome is Outcome.CORRUPT
            assert not session.degraded
            assert session.data == {}
            session.data["n"] = 2
        assert session.save_outcome is SaveOutcome.SAVED
        assert client.get(QUARANTINE) == bad
        assert client.ttl(QUARANTINE) > 0
    assert manager.stats().breakers == {"read": "closed", "write": "closed"}
    assert registry.get_sample_value("session_miss_total", {"reason": "corrupt"}) == 1
    async with reusable_session("alice", "agent", manager=manager) as session:
        assert session.data == {"n": 2}


async def test_an_invalidation_of_long_ago_does_not_keep_a_damaged_value(
    manager: SessionManager, redis_server: RedisServer
) -> None:
    """The session was logged out and in again before it was damaged. The next login takes its place."""
    for number in range(2):
        async with reusable_session("alice", manager=manager) as session:
            session.data["n"] = number
        if number == 0:
            await manager.evict("alice")
    with redis_server.client() as client:
        client.set(KEY, client.get(KEY)[:-1], ex=1000)
    async with reusable_session("alice", manager=manager) as session:
        assert session.outcome is Outcome.CORRUPT
        session.data["n"] = 2
    assert session.save_outcome is SaveOutcome.SAVED
    async with reusable_session("alice", manager=manager) as session:
        assert session.data == {"n": 2}


async def test_an_invalidation_during_the_visit_refuses_the_save_over_a_damaged_value(
    manager: SessionManager, redis_server: RedisServer
) -> None:
    """An agent that met a damaged value entered before the logout: its login does not come back."""
    with redis_server.client() as client:
        client.set(KEY, b"damaged", ex=1000)
        async with reusable_session("alice", manager=manager) as session:
            assert session.outcome is Outcome.CORRUPT
            session.data["n"] = 1
            await manager.evict("alice")
            client.set(KEY, b"damaged again", ex=1000)
        assert session.save_outcome is SaveOutcome.STALE
        assert client.get(KEY) == b"damaged again"


async def test_another_fingerprints_value_is_not_used(manager: SessionManager, redis_server: RedisServer) -> None:
    """A value copied under another key is corrupt there: no one ever gets another's cookies."""
    async with reusable_session("bob", manager=manager) as session:
        session.data["whose"] = "bob"
    with redis_server.client() as client:
        client.copy("browser:session:bob", KEY)
    async with reusable_session("alice", manager=manager) as session:
        assert session.outcome is Outcome.CORRUPT
        assert session.data == {}


@pytest.mark.parametrize("kind", ["list", "hash", "set", "zset", "stream"])
async def test_another_type_under_the_key_is_set_aside(
    manager: SessionManager, redis_server: RedisServer, kind: str
) -> None:
    """A value of another Redis type is corrupt too, and is kept."""
    with redis_server.client() as client:
        fill = {
            "list": lambda: client.rpush(KEY, "x"),
            "hash": lambda: client.hset(KEY, "a", "b"),
            "set": lambda: client.sadd(KEY, "x"),
            "zset": lambda: client.zadd(KEY, {"x": 1}),
            "stream": lambda: client.xadd(KEY, {"a": "b"}),
        }
        fill[kind]()
        async with reusable_session("alice", manager=manager) as session:
            assert session.outcome is Outcome.CORRUPT
            session.data["n"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
        assert client.type(QUARANTINE).decode() == kind
    async with reusable_session("alice", manager=manager) as session:
        assert session.data == {"n": 1}


async def test_another_type_keeps_nobody_out_for_long(manager: SessionManager, redis_server: RedisServer) -> None:
    """The lease holds, and is given back, whatever stands under the session's key."""
    with redis_server.client() as client:
        client.rpush(KEY, "x")
    async with reusable_session("alice", manager=manager, exclusive=True) as first:
        assert first.outcome is Outcome.CORRUPT
        async with reusable_session("alice", manager=manager, exclusive=True) as second:
            assert second.outcome is Outcome.BUSY
        first.data["n"] = 1
    assert first.save_outcome is SaveOutcome.SAVED
    async with reusable_session("alice", manager=manager, exclusive=True) as third:
        assert third.data == {"n": 1}


async def test_a_value_repaired_meanwhile_is_not_set_aside(manager: SessionManager, redis_server: RedisServer) -> None:
    """When another agent has put a good state in place of the bad one, ours is merged into it."""
    with redis_server.client() as client:
        client.set(KEY, "bad")
    async with reusable_session("alice", manager=manager) as session:
        async with reusable_session("alice", manager=manager) as other:
            other.data["other"] = 1
        session.data["mine"] = 1
    assert session.save_outcome is SaveOutcome.MERGED
    async with reusable_session("alice", manager=manager) as session:
        assert session.data == {"other": 1, "mine": 1}


async def test_strict_callers_are_told(manager: SessionManager, redis_server: RedisServer) -> None:
    """With strict=True a damaged value is an exception."""
    with redis_server.client() as client:
        client.set(KEY, "bad")
    with pytest.raises(CorruptStateError):
        await reusable_session("alice", manager=manager, strict=True).__aenter__()


def test_a_key_name_that_is_no_text_is_damage() -> None:
    """Without keys anybody can write a value whose checksum is right: it is refused, and not with an error of Python's."""
    front = Header(save_ids=("a" * 12,), created_at=1, saved_at=1).encode("--ot", NO_KEY)
    name, body = b"browser:session:\xff", b"{}"
    forged = front + b"%04d" % len(name) + name + Checksum().close(body, authenticated_part(front) + name)
    with pytest.raises(CorruptStateError):
        BrowserSession.import_(forged)


async def test_what_another_program_writes_beside_a_session_disturbs_nothing(
    manager: SessionManager, redis_server: RedisServer
) -> None:
    """A lease and agents that are no names: listings, probes and an eviction go on, and the affinity goes with the session."""
    async with reusable_session("alice", "agent", manager=manager) as session:
        session.data["n"] = 1
    keys = KEYS.of("alice")
    with redis_server.client() as client:
        client.set(keys.lease, b"\xff\xfe")
        client.zadd(keys.agents, FOREIGN_AGENTS)
        (listed,) = [each async for each in manager.sessions()]
        assert (listed.holder, listed.used_by) == ("", "\N{REPLACEMENT CHARACTER}")
        assert await manager.keep_alive(lambda _: True, once=True) == {}
        assert await manager.evict("alice")
        assert client.keys("browser:affinity:*") == []


async def test_what_another_program_lists_as_agents_keeps_no_traces(redis_server: RedisServer) -> None:
    """The clean-up finishes the sessions of its batch: `on_expired` hears of each, and no affinity stays."""
    gone: list[str] = []
    async with SessionManager(redis_server.url, ttl=1.0, registry=None, on_expired=gone.append) as manager:
        for name in ("alice", "bob"):
            async with reusable_session(name, f"agent of {name}", manager=manager) as session:
                session.data["n"] = 1
        with redis_server.client() as client:
            client.zadd(KEYS.of("alice").agents, FOREIGN_AGENTS)
            await until(lambda: client.keys("browser:session:*") == [], message="the sessions expire")
            await manager.cleanup_once()
    assert sorted(gone) == ["alice", "bob"]
