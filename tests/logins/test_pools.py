"""Pools: one of many identities for each agent, never one for two, and none of the agents starves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from session_reuse import (
    BrowserSession,
    ConfigurationError,
    InvalidFingerprintError,
    Outcome,
    SessionBusyError,
    SessionManager,
    blocking,
    reusable_session,
)
from session_reuse._logins.pool import Turn, members_of
from session_reuse._manager import runtime_of
from session_reuse._session.lease import LeaseHolder
from session_reuse._session.scope import SessionScope
from session_reuse._store.interface import PoolMember
from session_reuse.testing import Fault, FaultyStore, MemoryStore, memory_manager, state_with_cookie
from tests.cli.conftest import CommandLine
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.harness.servers import RedisCluster, RedisServer
from tests.harness.stored import KEYS

POOL = "shop.example"


def enter(manager: SessionManager, **options: Any) -> reusable_session:
    """Enter a member of the pool."""
    return reusable_session(pool=POOL, manager=manager, **options)


async def use(manager: SessionManager, **options: Any) -> str:
    """Use a member of the pool, log in if need be, and return its fingerprint."""
    async with enter(manager, **options) as session:
        if not session.reused:
            session.storage_state = state_with_cookie()
        return session.fingerprint


async def waits(manager: SessionManager) -> list[PoolMember]:
    """Return the members of the pool with the time until each is free."""
    return await members_of(await runtime_of(manager), POOL)


@pytest.fixture
def url(servers: RedisServer | RedisCluster) -> str:
    """One server, and a Cluster, in which each session may live on another server than its pool."""
    return servers.url


async def test_the_member_that_rested_longest_comes_next(url: str) -> None:
    """Members are used in turn, new ones first, under the name of the pool."""
    async with SessionManager(url, registry=None) as manager:
        assert await manager.pool(POOL).add("alice", "bob", "cem") == 3
        assert await manager.pool(POOL).add("alice") == 0
        first = [await use(manager) for _ in range(3)]
        assert set(first) == {f"{POOL}/{name}" for name in ("alice", "bob", "cem")}
        assert [await use(manager) for _ in range(3)] == first
        assert await manager.pool(POOL).add("dan") == 1
        assert await use(manager) == f"{POOL}/dan"
        assert await manager.pool(POOL).members() == ["alice", "bob", "cem", "dan"]
        assert await manager.pool(POOL).remove("dan", "nobody") == 1
        assert f"{POOL}/dan" not in [await use(manager) for _ in range(4)]


async def test_never_two_holders_of_one(url: str) -> None:
    """Who finds all in use gets none. Who waits gets the first that is given back."""
    async with SessionManager(url, registry=None) as manager:
        await manager.pool(POOL).add("alice", "bob")
        second = enter(manager)
        async with enter(manager) as one:
            two = await second.__aenter__()
            assert one.fingerprint != two.fingerprint
            async with enter(manager) as third:
                assert (third.outcome, third.fingerprint) == (Outcome.BUSY, POOL)
            assert third.save_outcome == "skipped"
            with pytest.raises(SessionBusyError, match="no member that is free"):
                await use(manager, on_busy="raise")
            waiting = asyncio.create_task(use(manager, wait=30))
            await asyncio.sleep(0)
            await second.__aexit__(None, None, None)
            assert await waiting == two.fingerprint


async def test_a_member_that_is_used_outside_of_the_pool_is_passed_by(redis_server: RedisServer) -> None:
    """The lease decides, wherever it was taken, and a member is free at once when its holder leaves."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice", "bob")
        async with reusable_session(f"{POOL}/alice", manager=manager, exclusive=True):
            assert [await use(manager) for _ in range(3)] == [f"{POOL}/bob"] * 3


@pytest.mark.parametrize("user", ["agent", "probe"])
async def test_a_member_that_was_used_outside_of_the_pool_is_free_soon(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    """Its user frees the lease, and does not know the pool. The member was looked at again when that lease would have ended."""
    held, passed, gate = asyncio.Event(), asyncio.Event(), asyncio.Event()
    reserve = Turn._reserve

    async def reserves(turn: Turn) -> float | None:
        left = await reserve(turn)
        if not turn._member:
            passed.set()
        return left

    monkeypatch.setattr(Turn, "_reserve", reserves)

    async def probe(_session: BrowserSession) -> bool:
        held.set()
        return await gate.wait()

    async def outside() -> None:
        if user == "probe":
            await manager.keep_alive(probe, once=True)
            return
        async with reusable_session(f"{POOL}/alice", manager=manager, exclusive=True) as session:
            await probe(session)

    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        await use(manager)
        holder = asyncio.create_task(outside())
        await held.wait()
        waiter = asyncio.create_task(use(manager, wait=8))
        await passed.wait()
        gate.set()
        await holder
        assert await waiter == f"{POOL}/alice"


@pytest.mark.alone
@pytest.mark.parametrize("where", ["in the pool", "outside"])
async def test_a_free_member_of_a_far_pool_is_found_behind_those_in_use(where: str) -> None:
    """Each one in use took three round trips, and a few of them all the time that an enter has."""
    store, leave, gone = MemoryStore(), [asyncio.Event(), asyncio.Event()], []
    async with memory_manager(store) as near, memory_manager(FaultyStore(store, latency=0.08)) as far:
        await near.pool(POOL).add(*(f"user-{number:02}" for number in range(12)))

        async def hold(number: int) -> None:
            name = {"fingerprint": f"{POOL}/user-{number:02}"} if where == "outside" else {"pool": POOL}
            async with reusable_session(**name, manager=near, exclusive=True):
                await leave[number < 10].wait()
            gone.append(number)

        holders = [asyncio.create_task(hold(number)) for number in range(12)]
        await until(lambda: near.stats().entered.get("missing") == 12, message="all are in use")
        store.advance(3)  # the reservations have ended
        leave[0].set()
        await until(lambda: len(gone) == 2, message="two are free")
        entered = []
        for _ in range(2):
            async with enter(far) as session:
                entered.append(session.outcome)
        leave[1].set()
        await asyncio.gather(*holders)
    assert entered == [Outcome.REUSED, Outcome.REUSED]


async def test_a_bad_member_cools_down(redis_server: RedisServer) -> None:
    """For as long as was asked for. The others go on."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice", "bob")
        async with enter(manager) as session:
            session.mark_bad("captcha", cooldown=600)
        assert session.fingerprint not in [await use(manager) for _ in range(4)]
        free_in = {member.name: member.free_in for member in await waits(manager)}
        assert 500 < free_in[session.fingerprint.removeprefix(f"{POOL}/")] <= 600


async def test_a_member_that_begins_to_cool_down_goes_to_no_waiter(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cools down before its lease is free, and an agent that has reserved it meanwhile looks once more."""
    async with SessionManager(url, registry=None, attempt_timeout=20, restore_timeout=60) as manager:
        pool, seen = manager.pool(POOL), []
        await pool.add("alice")
        scope = enter(manager)
        (await scope.__aenter__()).mark_bad("captcha", cooldown=600)
        await pool.remove("alice")  # its reservation ends, as after two seconds
        await pool.add("alice")
        enter_member, release = Turn._enter_member, LeaseHolder.release

        async def released(lease: LeaseHolder, budget: float) -> None:
            seen.extend([member.free_in > 500 for member in await waits(manager)])
            await release(lease, budget)

        async def entered(turn: Turn) -> tuple[BrowserSession, SessionScope] | None:
            await scope.__aexit__(None, None, None)
            return await enter_member(turn)

        monkeypatch.setattr(LeaseHolder, "release", released)
        monkeypatch.setattr(Turn, "_enter_member", entered)
        assert await use(manager) == POOL
        assert seen == [True]


async def test_a_cooldown_is_seen_where_the_session_lives_on_another_server(cluster: RedisCluster) -> None:
    """The servers answer in any order. The holder leaves meanwhile: its lease or its cooldown is seen."""
    pool_server = cluster.primary_of(KEYS.pool(POOL)[0])
    member = next(
        name for name in (f"user-{number}" for number in range(1000))
        if cluster.primary_of(f"browser:session:{POOL}/{name}") is not pool_server
    )  # fmt: skip
    async with (
        SessionManager(cluster.url, registry=None) as manager,
        SessionManager(cluster.url, registry=None) as other,
    ):
        await manager.pool(POOL).add(member)
        scope = enter(manager)
        (await scope.__aenter__()).mark_bad("captcha", cooldown=600)
        await other.pool(POOL).members()
        store = (await parts_of(other)).store
        send, left = store.send, []

        async def in_the_other_order(*commands: Any, **options: Any) -> list[Any]:
            replies: list[Any] = []
            for command in reversed(commands):
                replies[:0] = await send(command, **options)
                if not left:
                    left.append(await scope.__aexit__(None, None, None))
            return replies

        (score,) = await send(("ZSCORE", KEYS.pool(POOL)[0], member), timeout=5.0)
        store.send = in_the_other_order
        found = await store.member_facts(POOL, member, f"{POOL}/{member}", score, timeout=5.0)
        assert left
        assert found is None or found.holder


@pytest.mark.parametrize("saves", [True, False])
async def test_an_agent_whose_login_was_invalidated_ends_no_cooldown(redis_server: RedisServer, *, saves: bool) -> None:
    """The member is another agent's by then, or rests after one."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        pool = manager.pool(POOL)
        await pool.add("alice")
        await use(manager)
        async with enter(manager) as overtaken:
            await manager.evict(f"{POOL}/alice")
            async with enter(manager, wait=10) as session:
                session.storage_state = state_with_cookie(value="2")
                session.mark_bad("captcha", cooldown=600)
            assert session.fingerprint == f"{POOL}/alice"
            overtaken.data["late"] = True
            if not saves:
                overtaken.discard()
        assert overtaken.save_outcome == ("stale" if saves else "skipped")
        assert await use(manager) == POOL
        assert [member.free_in > 500 for member in await waits(manager)] == [True]


async def test_the_next_holder_ends_no_cooldown_of_the_one_before(redis_server: RedisServer) -> None:
    """The one before lost the lease, and found out that the site wants a pause."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        pool = manager.pool(POOL)
        await pool.add("alice")
        scope = enter(manager)
        overtaken = await scope.__aenter__()
        await manager.evict(f"{POOL}/alice")
        async with enter(manager, wait=10) as session:
            assert session.fingerprint == f"{POOL}/alice"
            overtaken.mark_bad("captcha", cooldown=600)
            await scope.__aexit__(None, None, None)
        assert [member.free_in > 500 for member in await waits(manager)] == [True]


async def test_a_cooldown_outlives_an_outage_at_the_exit() -> None:
    """The agent has seen a captcha, and the store is away when it leaves: the member rests anyway."""
    store = FaultyStore(MemoryStore())
    async with memory_manager(store, attempt_timeout=0.5) as manager:  # the exit tries for twice as long
        pool = manager.pool(POOL)
        await pool.add("alice")
        async with enter(manager) as session:
            session.mark_bad("captcha", cooldown=600)
            store.fail = Fault.UNAVAILABLE
        await until(lambda: manager.stats().breakers["write"] == "open", message="each try has failed")
        assert "return_to_pool" in store.calls
        store.heal()

        async def rests() -> bool:
            return [member.free_in > 500 for member in await waits(manager)] == [True]

        await until(rests, message="the member rests")


async def test_a_retired_member_is_passed_by_until_it_is_evicted(redis_server: RedisServer) -> None:
    """A new login can be made for it then."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        await use(manager)
        async with reusable_session(f"{POOL}/alice", manager=manager) as session:
            session.storage_state = state_with_cookie(value="2")
        for _ in range(manager.config.retire_after_bad):
            async with reusable_session(f"{POOL}/alice", manager=manager) as session:
                session.mark_bad()
        async with enter(manager) as session:
            assert session.outcome is Outcome.BUSY
        await manager.evict(f"{POOL}/alice")
        await manager.pool(POOL).remove("alice")
        await manager.pool(POOL).add("alice")
        assert await use(manager) == f"{POOL}/alice"


async def test_a_used_up_member_is_passed_by(redis_server: RedisServer) -> None:
    """`max_uses` counts."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        await use(manager, max_uses=2)
        assert [await use(manager, max_uses=2) for _ in range(3)] == [f"{POOL}/alice", f"{POOL}/alice", POOL]


async def test_limits_of_one_agent_hide_no_member_from_others(url: str) -> None:
    """It passes over what is too old or used up for itself, in its own memory. What retires for all rests for all."""
    async with SessionManager(url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        await use(manager)
        for limits in ({"max_age": 0.001}, {"max_uses": 1}, {"max_age": 0.001, "wait": 0.3}):
            await use(manager, max_uses=1000)
            assert await use(manager, **limits) == POOL
            assert await use(manager) == f"{POOL}/alice"


async def test_an_agent_with_limits_finds_what_it_wants_behind_what_it_does_not(url: str) -> None:
    """Whoever waits, and in which order they came: each gets a member that will do, and none waits for another one's."""
    async with SessionManager(url, registry=None) as manager:
        await manager.pool(POOL).add("old", "older")
        await asyncio.gather(use(manager), use(manager))
        await asyncio.sleep(0.3)
        picky = asyncio.create_task(use(manager, wait=60, max_age=0.3))
        assert {await use(manager, wait=10) for _ in range(4)} == {f"{POOL}/old", f"{POOL}/older"}
        assert not picky.done()
        await manager.pool(POOL).add("new")
        assert await picky == f"{POOL}/new"


async def test_waiters_are_served_in_the_order_of_their_arrival(redis_server: RedisServer) -> None:
    """None is overtaken, however often others ask."""
    served: list[int] = []

    async def wait(number: int) -> None:
        async with enter(manager, wait=60) as session:
            assert session.fingerprint != POOL
            served.append(number)

    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        async with enter(manager):
            tasks = []
            with redis_server.client() as client:
                for number in range(6):
                    tasks.append(asyncio.create_task(wait(number)))
                    while client.zcard(f"browser:waiters:{{browser:pool:{POOL}}}") != number + 1:
                        await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    assert served == list(range(6))


async def test_a_cancelled_waiter_leaves_nothing_behind(redis_server: RedisServer) -> None:
    """Neither a place in the queue nor a reservation."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        async with enter(manager):
            task = asyncio.create_task(use(manager, wait=60))
            with redis_server.client() as client:
                key = f"browser:waiters:{{browser:pool:{POOL}}}"
                while not client.zcard(key):
                    await asyncio.sleep(0.005)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                while client.zcard(key):
                    await asyncio.sleep(0.005)
        assert await use(manager) == f"{POOL}/alice"


async def test_an_empty_pool_does_not_make_an_agent_wait(redis_server: RedisServer) -> None:
    """The agent starts fresh at once, or hears of it."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        began = time.monotonic()
        assert await use(manager, wait=60) == POOL
        with pytest.raises(SessionBusyError, match="no members"):
            await use(manager, wait=60, on_busy="raise")
        assert time.monotonic() - began < 30


async def test_a_store_that_is_away_is_an_outcome() -> None:
    """The agent starts fresh, and nothing is saved under a wrong name."""
    store = FaultyStore(MemoryStore())
    async with memory_manager(store) as manager:
        await manager.pool(POOL).add("alice")
        store.fail = Fault.UNAVAILABLE
        async with enter(manager, wait=60) as session:
            assert session.degraded
        assert session.save_outcome == "skipped"


async def test_a_pool_key_of_another_type_is_the_trouble_of_that_pool_alone(redis_server: RedisServer) -> None:
    """It opens no breaker: other sessions and pools work."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        redis_server.client().set("browser:pool:{browser:pool:shop.example}", "junk")
        await manager.pool("other").add("alice")
        for _ in range(12):
            async with enter(manager) as session:
                assert session.outcome is Outcome.UNAVAILABLE
        async with reusable_session(pool="other", manager=manager) as session:
            assert session.fingerprint == "other/alice"


async def test_members_that_another_program_has_written_reach_no_agent(redis_server: RedisServer) -> None:
    """Neither names that are too long nor bytes that are no text."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        key = "browser:pool:{browser:pool:shop.example}"
        redis_server.client().zadd(key, {b"x" * 600: -2, b"\xff": -1})
        assert f"{POOL}/alice" in [await use(manager, wait=10) for _ in range(3)]
        assert len(await manager.pool(POOL).members()) == 3


async def test_a_server_whose_clock_is_behind_does_not_stop_a_pool(redis_server: RedisServer) -> None:
    """After a fail-over all members are free in hours. Those that cool down stay away."""
    key, client = "browser:pool:{browser:pool:shop.example}", redis_server.client()
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice", "bob")
        for cooldown in (0, 600):
            async with enter(manager) as session:
                session.storage_state = state_with_cookie()
                if cooldown:
                    session.mark_bad(cooldown=cooldown)
        for member, score in client.zrange(key, 0, -1, withscores=True):
            client.zadd(key, {member: score + 36_000e6})
        assert {await use(manager, wait=10) for _ in range(3)} == {f"{POOL}/alice", f"{POOL}/bob"} - {
            session.fingerprint
        }


@pytest.mark.parametrize("cooldown", ["10", None, float("nan"), -1, True])
async def test_a_cooldown_that_is_no_number_of_seconds_is_refused(cooldown: Any) -> None:
    """Where it is given. It would be lost when the member is returned."""
    async with memory_manager() as manager:
        await manager.pool(POOL).add("alice")
        async with enter(manager) as session:
            with pytest.raises(ConfigurationError, match="cooldown"):
                session.mark_bad(cooldown=cooldown)
        assert await use(manager) == f"{POOL}/alice"


async def test_a_cooldown_without_end_lasts(redis_server: RedisServer) -> None:
    """The member is not handed out again."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("alice")
        async with enter(manager) as session:
            session.mark_bad(cooldown=float("inf"))
        assert await use(manager) == POOL
        assert (await waits(manager))[0].free_in > 1e8


@pytest.mark.parametrize("member", ["", "\ud800", None, b"alice"])
async def test_a_wrong_name_to_remove_is_named(member: Any) -> None:
    """It is not taken for a store that is away."""
    async with memory_manager() as manager:
        with pytest.raises(InvalidFingerprintError, match="member"):
            await manager.pool(POOL).remove(member)


async def test_a_pool_and_a_fingerprint_are_a_contradiction() -> None:
    """The error says so."""
    async with memory_manager() as manager:
        with pytest.raises(ConfigurationError, match="not both"):
            async with reusable_session("a", pool=POOL, manager=manager):
                pass


def test_blocking_code_has_pools_too(redis_server: RedisServer) -> None:
    """With the same names."""
    with blocking.SessionManager(redis_server.url, registry=None) as manager:
        assert manager.pool(POOL).add("alice") == 1
        with blocking.reusable_session(pool=POOL, manager=manager, wait=5) as session:
            assert session.fingerprint == f"{POOL}/alice"
        assert manager.pool(POOL).members() == ["alice"]
        assert manager.pool(POOL).remove("alice") == 1


def test_the_command_line_shows_when_a_member_that_is_in_use_is_free(cli: CommandLine) -> None:
    """At the end of its lease at the latest: its reservation has ended long before."""
    with blocking.SessionManager(cli.url, registry=None) as manager:
        manager.pool(POOL).add("alice")
        with blocking.reusable_session(pool=POOL, manager=manager):
            assert 20 < cli("pool", "ls", "--json").json["free_in"] <= 30
        assert cli("pool", "ls", "--json").json["free_in"] == 0


def test_the_command_line_keeps_pools(cli: CommandLine) -> None:
    """Add, list and remove."""
    assert cli("pool", "add", POOL, "alice", "bob", "--json").json == {"pool": POOL, "changed": 2}
    found = cli("pool", "ls", "--json").lines
    assert [(line["pool"], line["member"], line["fingerprint"]) for line in found] == [
        (POOL, "alice", f"{POOL}/alice"),
        (POOL, "bob", f"{POOL}/bob"),
    ]
    assert cli("pool", "rm", POOL, "bob").code == 0
    assert [line["member"] for line in cli("pool", "ls", POOL, "--json").lines] == ["alice"]
    assert "alice" in cli("pool", "ls").out
    assert cli("pool", "rm", POOL, "nobody").code == 1
    assert cli("pool", "add", POOL).code == 2


async def test_a_member_whose_cooldown_is_over_is_found_behind_one_that_is_held(redis_server: RedisServer) -> None:
    """It is looked at while it is not reserved, and its score still shows the cooldown."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await manager.pool(POOL).add("bob")
        async with enter(manager) as session:
            session.mark_bad("captcha", cooldown=0.05)
        await asyncio.sleep(0.1)
        await manager.pool(POOL).add("alice")
        async with reusable_session(f"{POOL}/alice", manager=manager, exclusive=True), enter(manager) as session:
            assert session.fingerprint == f"{POOL}/bob"
