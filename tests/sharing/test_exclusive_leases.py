"""Exclusive use: one at a time, fenced, and taken over from the dead."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from session_reuse import Outcome, SaveOutcome, SessionBusyError, reusable_session
from tests.harness.polling import until
from tests.harness.servers import RedisCluster, RedisServer
from tests.sharing.processes import workers
from tests.sharing.traces import MakeManager, raw

LEASE = "browser:lease:{browser:session:shop}"
LEASE_TTL = 2.0
BEATING = 6.0
"""The time to live of a lease that is to be renewed in time: a busy machine holds a heartbeat up for seconds."""


def token_of(servers: RedisServer | RedisCluster) -> int:
    """Return the fencing token of the lease as it stands."""
    with raw(servers, "browser:session:shop") as client:
        value = client.get(LEASE)
    assert value is not None
    return int(value[:20])


@pytest.mark.slow
async def test_a_frozen_holder_overwrites_nothing(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """SIGSTOPped past its lease, while another takes over and saves: its late save is stale and changes nothing."""
    manager = await make_manager(servers.url)
    async with workers(1, "hold", url=servers.url, fingerprint="shop", value="frozen", lease_ttl=LEASE_TTL) as holders:
        holder = holders[0]
        assert (await holder.says())["outcome"] == "missing"
        first = token_of(servers)
        holder.stop()
        async with reusable_session("shop", manager=manager, exclusive=True, wait=20.0) as session:
            assert session.outcome is Outcome.MISSING
            assert token_of(servers) > first
            session.data["by"] = "successor"
        assert session.save_outcome is SaveOutcome.SAVED
        holder.go_on()
        holder.tell()
        assert (await holder.says())["saved"] == "stale"
    found = await manager.restore("shop")
    assert found is not None
    assert found.data == {"by": "successor"}


async def test_a_killed_holder_is_succeeded(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """A holder that died without a word holds no one up for longer than its lease."""
    manager = await make_manager(servers.url, lease_ttl=LEASE_TTL)
    async with workers(1, "hold", url=servers.url, fingerprint="shop", value="dead", lease_ttl=LEASE_TTL) as holders:
        await holders[0].says()
        await holders[0].end()
        began = monotonic()
        async with reusable_session("shop", manager=manager, exclusive=True, wait=20.0) as session:
            assert monotonic() - began < 10 * LEASE_TTL
            session.data["by"] = "successor"
        assert session.save_outcome is SaveOutcome.SAVED


async def test_a_live_holder_keeps_its_lease(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """The heartbeat renews it beyond its time to live. Others are told that it is busy, by outcome or by exception."""
    manager = await make_manager(servers.url, lease_ttl=BEATING)
    async with reusable_session("shop", manager=manager, exclusive=True) as holder:
        holder.data["by"] = "holder"
        token, began = token_of(servers), monotonic()
        while monotonic() - began < 1.05 * BEATING:
            async with reusable_session("shop", manager=manager, exclusive=True, wait=0.5) as other:
                assert other.outcome is Outcome.BUSY
                other.data["by"] = "other"
            assert other.save_outcome is SaveOutcome.SKIPPED
        with pytest.raises(SessionBusyError):
            await reusable_session("shop", manager=manager, exclusive=True, on_busy="raise").__aenter__()
        assert token_of(servers) == token
    assert holder.save_outcome is SaveOutcome.SAVED
    async with reusable_session("shop", manager=manager, exclusive=True) as session:
        assert session.data == {"by": "holder"}


async def test_fencing_tokens_grow_even_when_all_is_lost(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """A token comes from the server's clock and from what is on record: losing lease and session repeats none."""
    manager = await make_manager(servers.url)
    tokens = []
    for _ in range(4):
        async with reusable_session("shop", manager=manager, exclusive=True) as session:
            tokens.append(token_of(servers))
            session.discard()
        await until(lambda: raw(servers, "browser:session:shop").exists(LEASE) == 0)
        with raw(servers, "browser:session:shop") as client:
            client.delete("browser:session:shop", LEASE)
    assert tokens == sorted(set(tokens))


async def test_a_clock_that_jumps_back_repeats_no_token(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """A server whose clock is behind the one that gave the last token goes on from the token, not from its clock."""
    manager = await make_manager(servers.url)
    async with reusable_session("shop", manager=manager, exclusive=True) as session:
        session.data["n"] = 1
    future = 4_000_000_000_000_000
    with raw(servers, "browser:session:shop") as client:
        client.setrange("browser:session:shop", 36, f"{future:020d}")
    async with reusable_session("shop", manager=manager, exclusive=True) as session:
        assert token_of(servers) == future + 1
        session.data["n"] = 2
    assert session.save_outcome is SaveOutcome.SAVED
    assert await manager.evict("shop")
    async with reusable_session("shop", manager=manager, exclusive=True) as session:
        assert token_of(servers) > future + 1


@pytest.mark.parametrize("foreign", ["list", "string"])
async def test_a_foreign_value_under_the_lease_is_left_alone(
    servers: RedisServer | RedisCluster, make_manager: MakeManager, foreign: str
) -> None:
    """What is not ours is not deleted: exclusive use is busy, shared use goes on."""
    manager = await make_manager(servers.url)
    with raw(servers, "browser:session:shop") as client:
        _ = client.rpush(LEASE, "theirs") if foreign == "list" else client.set(LEASE, "theirs")
        async with reusable_session("shop", manager=manager, exclusive=True, wait=0.1) as session:
            assert session.outcome is Outcome.BUSY
        async with reusable_session("shop", manager=manager) as session:
            session.data["n"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
        assert client.exists(LEASE) == 1


async def test_waiting_agents_all_get_their_turn(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """Twelve agents that want the same session get it one after the other, never two at once."""
    manager = await make_manager(servers.url)
    inside = most = 0

    async def turn() -> None:
        nonlocal inside, most
        async with reusable_session("shop", manager=manager, exclusive=True, wait=30.0) as session:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            session.data["turns"] = session.data.get("turns", 0) + 1
            inside -= 1
        assert session.save_outcome is SaveOutcome.SAVED

    await asyncio.gather(*(turn() for _ in range(12)))
    found = await manager.restore("shop")
    assert most == 1
    assert found is not None
    assert found.data == {"turns": 12}
