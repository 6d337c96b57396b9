"""The decision in Python and the script in Lua: what one of them would do, the other does."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from session_reuse.state.baseline import Expectation
from session_reuse.state.codec import Codec
from session_reuse.state.header import LENGTH, Header
from session_reuse.store.interface import Commit, CommitOutcome, Committed, Lease, Touch, TouchOutcome
from session_reuse.store.keys import Keys
from session_reuse.store.memory import Kept, MemoryStore
from session_reuse.store.redis_store import RedisStore
from tests.support.servers import RedisServer

NAME = "a"
IDS = st.sampled_from(["a" * 12, "b" * 12, "c" * 12])
SMALL = st.integers(0, 3)

HEADERS = st.builds(
    Header,
    save_ids=st.lists(IDS, min_size=1, max_size=4).map(tuple),
    created_at=st.sampled_from([1000, 2000]),
    saved_at=st.just(3000),
    version=st.integers(1, 4),
    epoch=SMALL,
    token=SMALL,
    uses=SMALL,
    score=st.sampled_from([0, 10, 9995]),
)
LEASES = st.none() | st.builds(Lease, token=st.integers(1, 3), holder=st.sampled_from(["me", "other"]))
THERE = st.none() | HEADERS | st.sampled_from([b"damaged", b""])


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    """Return a commit of any kind."""
    save_id, version, known_id = draw(IDS), draw(st.integers(1, 4)), draw(IDS)
    header = Header(save_ids=(save_id,), created_at=1000, saved_at=4000, version=version)
    expectation = draw(st.sampled_from(Expectation))
    damaged = draw(st.sampled_from([b"damaged", b"", b"other"]))
    known = damaged if expectation is Expectation.CORRUPT else f"{draw(st.integers(1, 4)):012d}{known_id}".encode()
    return Commit(
        fingerprint=NAME,
        value=Codec(compression="none").encode(b"{}", "o", header, Keys().session(NAME)),
        save_id=save_id,
        expectation=expectation,
        known=known,
        epoch=draw(SMALL),
        age=draw(st.sampled_from([None, 0.0, 100.0])),
        created_at=draw(st.sampled_from([1000, 2000])),
        agent_id=draw(st.none() | st.just("agent")),
        lease=draw(LEASES),
        release=draw(st.booleans()),
        fresh=draw(st.booleans()),
        score_change=draw(st.sampled_from([-5, 0, 10])),
    )


def value_of(there: Header | bytes | None) -> bytes | None:
    """Return what stands under the key."""
    return there.encode() + b"body" if isinstance(there, Header) else there


async def in_memory(there: Any, lease: Lease | None, tombstone: int, work: Commit | Touch) -> Any:
    """Do the work in a store in memory and return all there is to see."""
    store = MemoryStore()
    if (value := value_of(there)) is not None:
        store.put(NAME, value)
    if lease is not None:
        store.leases[NAME] = Kept(lease, time.time() + 100)
    if tombstone:
        store.tombstones[NAME] = Kept(tombstone, time.time() + 100)
    done = await (store.commit(work, timeout=2) if isinstance(work, Commit) else store.touch(work, timeout=2))
    kept = store.leases.get(NAME)
    return done, store.peek(NAME), kept and kept.item, await store.affinity("agent", timeout=2), NAME in store.set_aside


async def in_redis(url: str, there: Any, lease: Lease | None, tombstone: int, work: Commit | Touch) -> Any:
    """Do the work on a real server and return all there is to see."""
    keys, client = Keys(), redis.asyncio.Redis.from_url(url, protocol=2)
    try:
        await client.flushall()
        if (value := value_of(there)) is not None:
            await client.set(keys.session(NAME), value)
        if lease is not None:
            await client.set(keys.of(NAME).lease, f"{lease.token:020d}:{lease.holder}")
        if tombstone:
            await client.set(keys.of(NAME).tombstone, f"{tombstone:020d}")
        store = RedisStore(client, keys, own_client=False)
        done = await (store.commit(work, timeout=2) if isinstance(work, Commit) else store.touch(work, timeout=2))
        held = await client.get(keys.of(NAME).lease)
        token, _, holder = held.decode().partition(":") if held else ("", "", "")
        found = (await client.get(keys.session(NAME)), Lease(int(token), holder) if held else None)
        seen = (*found, await store.affinity("agent", timeout=2), bool(await client.exists(keys.of(NAME).quarantine)))
        await store.aclose()
        return done, *seen
    finally:
        await client.aclose()


@pytest.mark.redis
@settings(max_examples=200, deadline=None)
@given(there=THERE, lease=LEASES, tombstone=SMALL, commit=commits())
def test_memory_and_lua_decide_alike(
    shared_redis: RedisServer, there: Any, lease: Lease | None, tombstone: int, commit: Commit
) -> None:
    """A user's test in memory must not pass where Redis would refuse, nor the other way round."""

    async def both() -> tuple[Any, Any]:
        return (
            await in_memory(there, lease, tombstone, commit),
            await in_redis(shared_redis.url, there, lease, tombstone, commit),
        )

    memory, real = asyncio.run(both())
    done, expected = memory[0], real[0]
    assert isinstance(done, Committed)
    assert done.outcome is expected.outcome
    if done.outcome.written and done.outcome is not CommitOutcome.DUPLICATE:
        assert done.epoch == expected.epoch
    if done.outcome is CommitOutcome.STALE:
        assert done.exists == expected.exists
    assert memory[1:] == real[1:]


@pytest.mark.redis
@settings(max_examples=80, deadline=None)
@given(
    there=THERE,
    lease=LEASES,
    tombstone=SMALL,
    touch=st.builds(
        Touch,
        fingerprint=st.just(NAME),
        epoch=SMALL,
        ttl=st.just(100.0),
        agent_id=st.none() | st.just("agent"),
        lease=LEASES,
        release=st.booleans(),
        score_change=st.sampled_from([-5, 0, 10]),
    ),
)
def test_memory_and_lua_touch_alike(
    shared_redis: RedisServer, there: Any, lease: Lease | None, tombstone: int, touch: Touch
) -> None:
    """The same for sessions that have not changed."""

    async def both() -> tuple[Any, Any]:
        return (
            await in_memory(there, lease, tombstone, touch),
            await in_redis(shared_redis.url, there, lease, tombstone, touch),
        )

    memory, real = asyncio.run(both())
    assert isinstance(memory[0], TouchOutcome)
    assert memory == real


@pytest.mark.redis
async def test_the_scripts_read_the_header_where_it_is_written(redis_server: RedisServer) -> None:
    """A field moved in one place and not in the other would corrupt sessions: positions are compared by use."""
    client = redis.asyncio.Redis.from_url(redis_server.url, protocol=2)
    store, header = RedisStore(client, Keys()), Header(save_ids=("a" * 12,), created_at=1000, saved_at=3000)
    marked = dataclasses.replace(header, epoch=5, token=6, version=7, retire_at=8, uses=9, score=10)
    await client.set(Keys().session(NAME), marked.encode() + b"body")
    assert await store.mark(NAME, created_at=1000, epoch=5, change=10, timeout=2) == 20
    entered = await store.enter(NAME, ttl=100, timeout=2, count_use=True)
    assert entered.uses == 9
    assert entered.value is not None
    assert len(marked.encode()) == LENGTH
    assert Header.decode(entered.value) == dataclasses.replace(marked, uses=10, score=20)
    assert entered.value[LENGTH:] == b"body"
    await store.aclose()
