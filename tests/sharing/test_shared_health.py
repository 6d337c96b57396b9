"""Health that all processes share: what one agent learns of a session, the next one acts on."""

from __future__ import annotations

import asyncio
from time import time

import pytest

from session_reuse import BrowserSession, Outcome, SaveOutcome, reusable_session
from session_reuse.errors import ConfigurationError
from tests.harness.probes import parts_of
from tests.harness.servers import RedisCluster, RedisServer
from tests.sharing.processes import workers
from tests.sharing.traces import MakeManager, raw, save_many

COOKIE = {"name": "sid", "value": "v", "domain": "shop.example", "path": "/", "httpOnly": True}


async def test_bad_marks_of_others_retire_a_session(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """Three agents of different hosts mark it bad: the fourth starts fresh, and its new login replaces it."""
    hosts = [await make_manager(servers.url) for _ in range(4)]
    await save_many(hosts[0], ["shop"])
    for host in hosts[:3]:
        async with reusable_session("shop", manager=host) as session:
            assert session.data == {"name": "shop"}
            session.data["state"] = "of a login page"
            session.mark_bad("login page")
        assert session.save_outcome is SaveOutcome.SKIPPED
    async with reusable_session("shop", manager=hosts[3]) as session:
        assert session.outcome is Outcome.RETIRED
        assert session.data == {}
        session.data["login"] = "new"
    assert session.save_outcome is SaveOutcome.SAVED
    async with reusable_session("shop", manager=hosts[0]) as session:
        assert session.reused
        assert session.data == {"login": "new"}


async def test_a_good_mark_takes_half_a_bad_one_back(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """Three bad marks with one good one between them do not retire a session. A further bad one does."""
    manager = await make_manager(servers.url)
    await save_many(manager, ["shop"])
    for good in (False, False, True, False):
        async with reusable_session("shop", manager=manager) as session:
            assert session.reused
            _ = session.mark_good() if good else session.mark_bad("blocked")
    async with reusable_session("shop", manager=manager) as session:
        assert session.reused
        session.mark_bad("blocked again")
    async with reusable_session("shop", manager=manager) as session:
        assert session.outcome is Outcome.RETIRED


async def test_a_bad_mark_does_not_hit_a_successor(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """A mark for a login that was replaced meanwhile says nothing of the new one."""
    manager = await make_manager(servers.url, retire_after_bad=1)
    await save_many(manager, ["shop"])
    async with reusable_session("shop", manager=manager) as late:
        await manager.evict("shop")
        await save_many(manager, ["shop"])
        late.mark_bad("the old login")
    async with reusable_session("shop", manager=manager) as session:
        assert session.reused


async def test_a_full_server_counts_no_reuse_and_costs_no_login(
    own_redis: RedisServer, make_manager: MakeManager
) -> None:
    """It still reads, also for a process that knows nothing yet. The count in the session decides."""
    await save_many(await make_manager(own_redis.url), ["shop"])
    with own_redis.client() as client:
        client.config_set("maxmemory", 1)
    manager = await make_manager(own_redis.url)
    async with reusable_session("shop", manager=manager, max_uses=5) as session:
        assert (session.outcome, session.stale) == (Outcome.REUSED, False)
        session.discard()


@pytest.mark.slow
async def test_max_uses_is_exact_over_processes(servers: RedisServer | RedisCluster, make_manager: MakeManager) -> None:
    """Four processes enter at once, 30 times each: a session of 50 uses is reused exactly 50 times."""
    await save_many(await make_manager(servers.url), ["shop"])
    async with workers(4, "reuse", url=servers.url, fingerprint="shop", enters=30, max_uses=50) as agents:
        await asyncio.gather(*(agent.says() for agent in agents))
        for agent in agents:
            agent.tell()
        said = await asyncio.gather(*(agent.says() for agent in agents))
    assert sum(each["reused"] for each in said) == 50


async def test_max_age_counts_from_the_first_save(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """However often it is used and saved again, a session is retired when it is old. The asker sets how old."""
    manager = await make_manager(servers.url)
    services = await parts_of(manager)
    await save_many(manager, ["shop"])
    services.clock.wall = lambda: time() + 50.0
    async with reusable_session("shop", manager=manager, max_age=60.0) as session:
        assert session.reused
        session.data["n"] = 1
    services.clock.wall = lambda: time() + 70.0
    async with reusable_session("shop", manager=manager, max_age=60.0) as session:
        assert session.outcome is Outcome.RETIRED
        session.discard()
    async with reusable_session("shop", manager=manager, max_age=80.0) as session:
        assert session.reused
    services.clock.wall = time
    with pytest.raises(ConfigurationError):
        reusable_session("shop", manager=manager, max_age=-1.0)
        await reusable_session("shop", manager=manager, max_age=-1.0).__aenter__()


async def refuse(_: BrowserSession) -> bool:
    """Say no."""
    return False


def fail(_: BrowserSession) -> bool:
    """Break."""
    raise RuntimeError("the hook is broken")


async def hang(_: BrowserSession) -> bool:
    """Never come back."""
    await asyncio.Event().wait()
    return True


@pytest.mark.parametrize("verify", [refuse, fail, hang])
async def test_what_does_not_verify_is_not_reused_nor_overwritten(
    servers: RedisServer | RedisCluster, make_manager: MakeManager, verify: object
) -> None:
    """False, an exception and a hook that hangs all mean: start fresh, and keep the stored state for others."""
    manager = await make_manager(servers.url, verify_timeout=0.1)
    await save_many(manager, ["shop"])
    async with reusable_session("shop", manager=manager, verify=verify) as session:  # type: ignore[arg-type]
        assert session.outcome is Outcome.UNVERIFIED
        assert session.data == {}
        session.data["half"] = "logged in"
    assert session.save_outcome is SaveOutcome.SKIPPED
    async with reusable_session("shop", manager=manager) as session:
        assert session.data == {"name": "shop"}


async def test_a_new_login_that_verifies_replaces_the_old_one(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """The stored one did not verify, the final state does: it is a new login, and takes the place."""
    manager = await make_manager(servers.url)
    await save_many(manager, ["shop"])

    def logged_in(session: BrowserSession) -> bool:
        return session.data.get("login") == "new"

    async with reusable_session("shop", manager=manager, verify=logged_in) as session:
        assert session.outcome is Outcome.UNVERIFIED
        session.data["login"] = "new"
    assert session.save_outcome is SaveOutcome.SAVED
    async with reusable_session("shop", manager=manager, verify=logged_in) as session:
        assert session.reused
        assert session.data == {"login": "new"}


async def test_a_session_lives_no_longer_than_its_login_cookie(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """With `ttl_from_cookies` a save and each later use stop at the longest-lived httpOnly cookie."""
    manager = await make_manager(servers.url, ttl_from_cookies=True)
    cookies = [COOKIE | {"expires": time() + 100.0}, COOKIE | {"name": "short", "expires": time() + 10.0}]
    async with reusable_session("shop", manager=manager) as session:
        session.storage_state = {"cookies": cookies, "origins": []}
    with raw(servers, "browser:session:shop") as client:
        assert 90_000 < client.pttl("browser:session:shop") <= 100_000
        async with reusable_session("shop", manager=manager) as session:
            assert session.reused
            session.data["used"] = True
        assert client.pttl("browser:session:shop") <= 100_000
    services = await parts_of(manager)
    services.clock.wall = lambda: time() + 101.0
    async with reusable_session("shop", manager=manager) as session:
        assert session.outcome is Outcome.RETIRED
        session.discard()
    services.clock.wall = time


async def test_a_clock_that_is_wrong_loses_nothing(
    servers: RedisServer | RedisCluster, make_manager: MakeManager
) -> None:
    """A host a year ahead, then one a year behind: both reuse, both save, and the clean-up takes neither for expired."""
    manager = await make_manager(servers.url)
    services = await parts_of(manager)
    for shift in (31_536_000.0, -31_536_000.0, 0.0):
        services.clock.wall = lambda shift=shift: time() + shift  # type: ignore[misc]
        async with reusable_session("shop", "agent", manager=manager) as session:
            assert session.outcome in {Outcome.MISSING, Outcome.REUSED}
            session.data[f"{shift}"] = 1
        assert session.save_outcome is SaveOutcome.SAVED
    report = await manager.cleanup_once()
    assert (report.expired, report.prolonged) == (0, 0)
    found = await manager.restore("shop")
    assert found is not None
    assert len(found.data) == 3
