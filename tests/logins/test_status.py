"""`status`, `copy` and `manager.sessions()`: what we know of a login, and of whom."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from session_reuse import BrowserSession, Liveness, SessionManager, reusable_session
from session_reuse._logins import listing
from session_reuse.testing import MemoryStore, memory_manager, state_with_cookie
from tests.cli.conftest import ALICE, CANARIES, CommandLine, store
from tests.harness.probes import parts_of
from tests.harness.servers import RedisServer

EXPIRY = 4_000_000_000
FACTS = {"used_by", "used_at", "holder", "lease_left", "liveness", "checked_at", "retired", "cookies_expire_at", "readable"}  # fmt: skip


def note(server: RedisServer, name: str, verdict: Liveness, created_at: int | None = None) -> None:
    """Note a verdict on a login, as a probe does."""

    async def run() -> None:
        async with SessionManager(server.url, registry=None) as manager:
            found = [each async for each in manager.sessions() if each.fingerprint == name]
            created = created_at or round((found[0].created_at or 0) * 1000)
            await (await parts_of(manager)).store.note_liveness(name, verdict, created, 60.0, timeout=2.0)

    asyncio.run(run())


def test_status_shows_each_fact_and_no_value(cli: CommandLine, alice: str, redis_server: RedisServer) -> None:
    """Age, last use and by whom, cookies, lease, health and the last probe."""
    note(redis_server, alice, Liveness.LIVE)
    with redis_server.client() as client:
        client.set(f"browser:lease:{{browser:session:{alice}}}", f"{7:020d}:agent-9-abc", px=20_000)
    shown = cli("status", "--json").json
    assert shown.keys() >= FACTS
    assert shown["used_by"] == "agent-1"
    assert time.time() - 60 < shown["used_at"] <= time.time() + 5
    assert shown["cookies_expire_at"] == pytest.approx(EXPIRY, abs=2)
    assert (shown["liveness"], shown["problem"], shown["retired"]) == ("live", None, False)
    assert shown["holder"] == "agent-9-abc"
    assert 0 < shown["lease_left"] <= 20
    text = cli("status").out
    for part in (alice, "LIVE", "by agent-1", "agent-9-abc", "good"):
        assert part in text
    assert not any(canary in text for canary in CANARIES)


async def test_sessions_are_opened_several_at_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, 10,000 took half a minute. All at once, their content would fill the memory."""
    names, open_now, most = [f"shop.example/{number:03}" for number in range(300)], 0, 0
    store = MemoryStore()
    async with memory_manager(store) as manager:
        for name in names:
            store.put(name, BrowserSession(name, storage_state=state_with_cookie()).export())
        runtime = await parts_of(manager)
        read = runtime.store.read

        async def counted(*args: Any, **options: Any) -> Any:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0)
            try:
                return await read(*args, **options)
            finally:
                open_now -= 1

        monkeypatch.setattr(runtime.store, "read", counted, raising=False)
        listed = [each.fingerprint async for each in manager.sessions()]
        opened = [each async for each in manager.sessions(cookies=True)]
        assert [each.fingerprint for each in opened] == listed
        assert sorted(listed) == names
        assert all(each.readable for each in opened)
        (one,) = [each async for each in manager.sessions("*/007")]
        assert (one.fingerprint, one.readable) == ("shop.example/007", None)  # it was not opened
        assert [each.fingerprint async for each in manager.sessions("*/007", cookies=True)] == ["shop.example/007"]
        assert 10 <= most <= 250
        monkeypatch.setattr(listing, "OPENED_BYTES", 1)
        most = 0
        assert len([each async for each in manager.sessions(cookies=True)]) == len(names)
        assert most == 1


def test_status_takes_a_pattern(cli: CommandLine, redis_server: RedisServer) -> None:
    """In the order of the names."""
    store(redis_server.url, "b/1", "a/2", "a/1")
    assert [line["fingerprint"] for line in cli("status", "a/*", "--json").lines] == ["a/1", "a/2"]
    assert cli("status", "nothing*").code == 0
    assert cli("status", "nothing*", "--check").code == 1


def dead(server: RedisServer) -> None:
    """Have a probe found it dead."""
    note(server, ALICE, Liveness.DEAD)


def damaged(server: RedisServer) -> None:
    """Damage it."""
    with server.client() as client:
        client.set(f"browser:session:{ALICE}", b"junk")


def flipped(server: RedisServer) -> None:
    """Damage its last byte: its header is whole."""
    key = f"browser:session:{ALICE}"
    with server.client() as client:
        value = client.get(key)
        client.set(key, value[:-1] + bytes([value[-1] ^ 1]))


def sealed(server: RedisServer) -> None:
    """Store it with a key that the command does not have."""
    with server.client() as client:
        client.flushdb()
    store(server.url, ALICE, encryption_keys=[bytes(32)])


def retired(server: RedisServer) -> None:
    """Mark it bad until it is retired."""

    async def run() -> None:
        async with SessionManager(server.url, registry=None) as manager:
            for _ in range(manager.config.retire_after_bad):
                async with reusable_session(ALICE, manager=manager) as session:
                    session.mark_bad("test")

    asyncio.run(run())


def expired(server: RedisServer) -> None:
    """Let its login cookie expire."""

    async def run() -> None:
        async with (
            SessionManager(server.url, registry=None) as manager,
            reusable_session(ALICE, manager=manager) as session,
        ):
            session.storage_state["cookies"][0]["expires"] = 1_000_000_000

    asyncio.run(run())


@pytest.mark.parametrize("spoil", [dead, damaged, flipped, sealed, retired, expired])
def test_check_fails_for_a_login_that_will_not_do(
    cli: CommandLine, alice: str, redis_server: RedisServer, spoil: Any
) -> None:
    """The exit code is for monitoring, and the reason stands in the row."""
    assert cli("status", "--check").code == 0
    spoil(redis_server)
    assert cli("status").code == 0
    answer = cli("status", alice, "--check", "--json")
    assert answer.code == 1
    assert answer.json["problem"] == ("unreadable" if spoil in {damaged, flipped, sealed} else spoil.__name__)


def test_a_verdict_is_about_one_login(cli: CommandLine, alice: str, redis_server: RedisServer) -> None:
    """It says nothing of a login that was made later, and DEAD nothing of what was saved since."""
    note(redis_server, alice, Liveness.LIVE, created_at=12345)
    assert cli("status", "--json").json["liveness"] == "unknown"
    note(redis_server, alice, Liveness.DEAD)
    assert cli("status", "--json").json["liveness"] == "dead"
    store(redis_server.url, alice)
    assert cli("status", "--json").json["liveness"] == "dead"  # nothing has changed
    expired(redis_server)
    assert cli("status", "--json").json["liveness"] == "unknown"


async def test_sessions_carries_the_same_facts(redis_server: RedisServer) -> None:
    """The listing of the manager is what the command prints. Opening the sessions is left to the caller."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        async with reusable_session("a", "agent-7", manager=manager, exclusive=True) as session:
            session.storage_state["cookies"].append(
                {"name": "sid", "value": "1", "domain": "a.example", "httpOnly": True, "expires": EXPIRY}
            )
            await session.checkpoint()
            (summary,) = [each async for each in manager.sessions(cookies=True)]
            assert (summary.used_by, summary.liveness) == ("agent-7", Liveness.UNKNOWN)
            assert summary.holder.startswith("agent-7-")
            assert summary.cookies_expire_at == pytest.approx(EXPIRY, abs=2)
        (summary,) = [each async for each in manager.sessions()]
        assert (summary.holder, summary.lease_left, summary.cookies_expire_at) == ("", 0.0, None)


def test_a_copy_is_a_session_of_its_own(cli: CommandLine, alice: str) -> None:
    """Data included. A copy replaces nothing unasked, and deleting one leaves the other."""
    assert cli("copy", alice, "bob", "--json").json["outcome"] == "saved"
    assert cli("copy", alice, "bob").code == 1
    assert cli("copy", alice, "bob", "--force").code == 0
    assert cli("copy", "nobody", "bob").code == 1
    assert cli("evict", alice).code == 0
    copied = cli("show", "bob", "--reveal", "--json").json
    assert [copied["cookies"][0]["value"], copied["data"][0]["value"]] == [CANARIES[0], CANARIES[3]]
