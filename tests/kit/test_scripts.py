"""The scripts on random cases: a store in memory and a real server decide alike, and no case breaks what scripts promise."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, NamedTuple

import pytest
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from session_reuse._state.codec import Codec
from session_reuse._state.header import LENGTH, Header
from session_reuse._store.interface import Commit, CommitOutcome, CommitReply, Lease, Precondition
from tests.harness.servers import RedisServer
from tests.harness.stored import KEYS
from tests.kit.actions import CREATED_AT, HOUR, NAME, header_of
from tests.kit.stores import Kit, memory_kit, redis_kit

IDS = st.sampled_from(["a" * 12, "b" * 12, "c" * 12, "d" * 12])
SMALL = st.integers(0, 3)
SHORT, LONG = 100.0, 1000.0
LONG_AGO = 1_000_000
"""Unix milliseconds before which a time in these tests was made up; later ones come from a server's clock."""

HEADERS = st.builds(
    Header,
    save_ids=st.lists(IDS, min_size=1, max_size=4, unique=True).map(tuple),
    created_at=st.sampled_from([CREATED_AT, 2000]),
    saved_at=st.just(3000),
    version=st.integers(1, 4),
    invalidated_at=SMALL,
    token=SMALL,
    retire_at=st.sampled_from([0, 1, 9_999_999_999_999]),
    uses=SMALL,
    score=st.sampled_from([0, 10, 9995]),
    ttl=st.sampled_from([0, 120]),
)
LEASES = st.none() | st.builds(Lease, token=st.integers(1, 3), holder=st.sampled_from(["me", "other"]))
THERE = st.none() | HEADERS | HEADERS | st.sampled_from([b"damaged", b"", b"SRS1"])
"""What is stored before: nothing, a session, damage."""


class Seen(NamedTuple):
    """All there is to see after a commit, with the server's times written as `now`."""

    reply: CommitReply
    header: Any
    rest: bytes
    time_to_live: int
    lease: bytes | None
    affinity: str | None
    set_aside: bytes | None


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    """Return a commit of any kind."""
    save_id = draw(IDS)
    header = Header(
        save_ids=(save_id,), created_at=draw(st.sampled_from([CREATED_AT, 2000])), saved_at=4000,
        version=draw(st.integers(1, 4)), retire_at=draw(st.sampled_from([0, 9_999_999_999_998])),
    )  # fmt: skip
    precondition = draw(st.sampled_from(Precondition))
    known = b""
    if precondition is Precondition.MATCHES:
        ids = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
        known = f"{draw(st.integers(1, 4)):012d}{''.join(ids)}".encode()
    elif precondition is Precondition.CORRUPT:
        known = draw(st.sampled_from([b"damaged", b"", b"SRS1", b"other"]))
    unchanged = precondition is Precondition.UNCHANGED
    return Commit(
        fingerprint=NAME,
        value=b"" if unchanged else Codec(compression="none").encode(b"{}", "o", header, KEYS.session(NAME)),
        save_id=save_id,
        precondition=precondition,
        known=known,
        invalidated_at=draw(SMALL),
        may_recreate=draw(st.booleans()),
        created_at=draw(st.sampled_from([CREATED_AT, 2000])),
        ttl=draw(st.sampled_from([SHORT, LONG])) if not unchanged else draw(st.sampled_from([0, SHORT, LONG])),
        agents=draw(st.sampled_from([(), (("agent", NAME),)])),
        lease=draw(LEASES),
        release=draw(st.booleans()),
        new_login=draw(st.booleans()),
        score_change=draw(st.sampled_from([-5, 0, 10])),
    )


async def prepare(kit: Kit, there: Header | bytes | None, lease: Lease | None, tombstone: int) -> bytes | None:
    """Fill an empty server. Return what stands under the session's key."""
    keys = kit.keys.of(NAME)
    await kit.client.flushall()
    value = there.encode() + b"body" if isinstance(there, Header) else there
    if value is not None:
        await kit.client.set(keys.session, value, px=300_000)
    if lease is not None:
        await kit.client.set(keys.lease, f"{lease.token:020d}:{lease.holder}")
    if tombstone:
        await kit.client.set(keys.tombstone, f"{tombstone:020d}")
    return value


async def look(kit: Kit, reply: CommitReply) -> Seen:
    """Return all there is to see."""
    value = await kit.value(NAME)
    header: Any = None if value is None else value
    if value is not None and value[:4] == b"SRS1" and len(value) >= LENGTH:
        header = Header.decode(value)
        if header.saved_at > LONG_AGO:
            header = dataclasses.replace(header, saved_at="now")
    if reply.saved_at > LONG_AGO:
        reply = dataclasses.replace(reply, saved_at="now")  # type: ignore[arg-type]
    left = await kit.time_to_live(NAME)
    lease = await kit.client.get(kit.keys.of(NAME).lease)
    affinity = await kit.store.affinity("agent", timeout=10)
    rest = b"" if value is None else value[LENGTH:]
    return Seen(reply, header, rest, round(left / 10), lease, affinity, await kit.set_aside(NAME))


@pytest.mark.redis
@settings(max_examples=200, deadline=None)
@given(there=THERE, lease=LEASES, tombstone=SMALL, commit=commits())
def test_memory_and_a_real_server_decide_alike(
    shared_redis: RedisServer, there: Any, lease: Lease | None, tombstone: int, commit: Commit
) -> None:
    """A user's test in memory does not pass where Redis would refuse, nor the other way round."""

    async def both() -> list[Seen]:
        seen = []
        for kit in (memory_kit(), redis_kit(redis.asyncio.Redis.from_url(shared_redis.url, protocol=2))):
            await prepare(kit, there, lease, tombstone)
            seen.append(await look(kit, await kit.store.commit(commit, timeout=10)))
            await kit.store.aclose()
            await kit.client.aclose()
        return seen

    memory, real = asyncio.run(both())
    assert memory == real


@settings(max_examples=200, deadline=None)
@given(there=THERE, lease=LEASES, tombstone=SMALL, commit=commits())
def test_no_commit_breaks_a_promise(there: Any, lease: Lease | None, tombstone: int, commit: Commit) -> None:
    """Whatever is stored and whatever comes late: a refusal changes nothing, and a save only what it may."""

    async def main() -> None:
        kit = memory_kit()
        before = await prepare(kit, there, lease, tombstone)
        reply = await kit.store.commit(commit, timeout=10)
        after, left = await kit.value(NAME), await kit.time_to_live(NAME)
        if not reply.outcome.written or reply.outcome is CommitOutcome.DUPLICATE:
            assert after == before
            assert before is None or left > 290
            return
        assert after is not None
        header = Header.decode(after)
        last = max(tombstone, there.invalidated_at if isinstance(there, Header) else 0)
        assert last in {0, commit.invalidated_at}
        assert header.invalidated_at <= reply.invalidated_at <= commit.invalidated_at
        if lease is not None and commit.lease is not None:
            assert commit.lease.holder == lease.holder
        if isinstance(there, Header):
            assert header.token >= there.token
            assert header.saved_at >= there.saved_at
            if commit.lease is not None:
                assert commit.lease.token >= there.token
            if not commit.new_login or commit.precondition is Precondition.UNCHANGED:
                assert left > 290, "the time to live was shortened"
                assert header.ttl >= there.ttl
        if commit.precondition is Precondition.UNCHANGED:
            assert isinstance(there, Header)
            assert there.created_at == commit.created_at
            assert before is not None
            assert after[LENGTH:] == before[LENGTH:]
        if reply.outcome is CommitOutcome.RECREATED:
            assert commit.may_recreate
        if reply.outcome is CommitOutcome.RECOVERED:
            assert isinstance(there, Header)
            assert there.created_at == commit.created_at
            assert there.save_ids[0] in commit.known.decode()[24:]

    asyncio.run(main())


async def test_the_scripts_read_the_header_where_it_is_written(kit: Kit) -> None:
    """A field moved in one place and not in the other would corrupt sessions: positions are compared by use."""
    header = Header(
        save_ids=("a" * 12,), created_at=CREATED_AT, saved_at=3000, invalidated_at=5, token=6, version=7, retire_at=0,
        uses=9, score=10, ttl=180,
    )  # fmt: skip
    await kit.plant(NAME, header.encode() + b"body")
    mark = Commit(
        fingerprint=NAME, save_id="m" * 12, precondition=Precondition.UNCHANGED, invalidated_at=5,
        created_at=CREATED_AT, ttl=0, score_change=10, indexed=True,
    )  # fmt: skip
    reply = await kit.store.commit(mark, timeout=10)
    assert (reply.invalidated_at, reply.uses, reply.score, reply.saved_at, reply.ttl) == (5, 9, 20, 3000, 180)
    entered = await kit.store.enter(NAME, ttl=HOUR, timeout=10, use_id="u" * 12)
    assert entered.uses == 9
    assert entered.value is not None
    assert len(header.encode()) == LENGTH
    assert Header.decode(entered.value) == dataclasses.replace(header, uses=10, score=20)
    assert entered.value[LENGTH:] == b"body"
    assert (await header_of(kit.store)).uses == 10
