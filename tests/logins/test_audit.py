"""The audit: each use of a session leaves one line, written with its save, and a refused line costs no save."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from session_reuse import Outcome, SaveOutcome, SessionManager, SessionUse, StoreError, blocking, reusable_session
from session_reuse._store.redis import audit
from session_reuse.testing import Fault, FaultyStore, MemoryStore, memory_manager, state_with_cookie
from tests.cli.conftest import ALICE, CANARIES, CommandLine
from tests.harness.probes import parts_of
from tests.harness.servers import RedisCluster, RedisServer
from tests.logins.states import SHOP


async def log_in(manager: SessionManager, name: str = ALICE, agent: str | None = "agent-1", **options: Any) -> None:
    """Use a session, and change it."""
    async with reusable_session(name, agent, manager=manager, **options) as session:
        session.storage_state = state_with_cookie(value=f"{CANARIES[0]} {time.monotonic()}")


async def uses(manager: SessionManager, name: str | None = ALICE) -> list[SessionUse]:
    """Return the lines about a session, the oldest first."""
    return [use async for use in manager.history(name)][::-1]


async def until(manager: SessionManager, count: int) -> list[SessionUse]:
    """Return the lines once there are so many: some are written in the background."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreError):  # a breaker that has opened needs a moment
                if len(found := await uses(manager)) >= count:
                    return found
            await asyncio.sleep(0.01)


def short(found: list[SessionUse]) -> list[tuple[str, str, str | None]]:
    """Return agent, outcome and save outcome of each use."""
    return [(use.agent_id, use.outcome.value, use.save_outcome and use.save_outcome.value) for use in found]


async def test_each_use_leaves_one_line(servers: RedisServer | RedisCluster) -> None:
    """Agent, time, session, both outcomes and the scope, on one server and over a Cluster, and no value."""
    async with SessionManager(
        servers.url, registry=None, audit=True, save_timeout=20.0, attempt_timeout=1.0
    ) as manager:
        await log_in(manager)
        async with reusable_session(ALICE, "agent-2", manager=manager) as session:
            await session.checkpoint()
        async with reusable_session(ALICE, manager=manager, allowed_domains=[SHOP], save="never"):
            pass
        async with reusable_session(ALICE, "agent-3", manager=manager, exclusive=True) as session:
            session.discard()
        async with reusable_session(ALICE, "agent-4", manager=manager) as session:
            session.mark_bad("test")
        await log_in(manager, "other")
        found = await until(manager, 5)
        assert {use.fingerprint for use in await uses(manager, None)} == {ALICE, "other"}
    assert short(found) == [
        ("agent-1", "missing", "saved"), ("agent-2", "reused", "unchanged"), ("", "reused", "skipped"),
        ("agent-3", "reused", "skipped"), ("agent-4", "reused", "skipped"),
    ]  # fmt: skip
    assert [use.allowed_domains for use in found] == [None, None, (SHOP,), None, None]
    assert [use.read_only for use in found] == [False, False, True, False, False]
    assert all(time.time() - 60 < use.used_at < time.time() + 5 for use in found)


async def test_a_line_costs_no_round_trip(redis_server: RedisServer) -> None:
    """A reuse stays one command, and the line goes out in the write of the save, which is a pipeline."""
    async with SessionManager(redis_server.url, registry=None, audit=True) as manager:
        await log_in(manager)
        async with redis_server.monitor() as monitor, reusable_session(ALICE, "agent-2", manager=manager):
            assert [line.split('"')[1] for line in await monitor.barrier()] == ["GETEX"]
        names = monitor.names
    assert names == ["GETEX", "SET", "XADD", "EVALSHA"]


async def test_without_the_setting_there_is_no_line(redis_server: RedisServer) -> None:
    """The stream is not made."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await log_in(manager)
    with redis_server.client() as client:
        assert not client.exists("browser:audit")


async def test_the_lines_do_not_grow_without_end(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go, a block of about a hundred at a time."""
    monkeypatch.setattr(audit, "LENGTH", 100)
    async with SessionManager(redis_server.url, registry=None, audit=True) as manager:
        for _ in range(400):
            async with reusable_session(ALICE, manager=manager, save="never"):
                pass
        with redis_server.client() as client:
            assert 100 <= client.xlen("browser:audit") < 300


async def test_a_late_merge_and_a_refused_save_are_noted_as_such() -> None:
    """The line names the outcome of the save, not what was attempted."""
    async with memory_manager(audit=True) as manager:
        await log_in(manager)
        async with reusable_session(ALICE, "slow", manager=manager) as session:
            session.data["slow"] = True
            await log_in(manager, agent="fast")
        async with reusable_session(ALICE, "late", manager=manager) as session:
            session.data["late"] = True
            await manager.evict(ALICE)
        found = await until(manager, 4)
    assert short(found)[1:] == [("fast", "reused", "saved"), ("slow", "reused", "merged"), ("late", "reused", "stale")]


async def test_a_save_that_waits_takes_its_line_along() -> None:
    """The time in the line is that of the use."""
    way = FaultyStore(MemoryStore())
    async with memory_manager(way, audit=True) as manager:
        clock = await clock_of(manager)
        await log_in(manager)
        way.fail = Fault.UNAVAILABLE
        for _ in range(12):  # more than wait one by one
            await log_in(manager, agent="while away")
        clock[0] += 1000
        way.heal()
        found = await until(manager, 13)
    assert short(found)[1:] == [("while away", "reused", "saved")] * 12
    assert all(900 < found[0].used_at - use.used_at < 1100 for use in found[1:])


async def clock_of(manager: SessionManager) -> list[float]:
    """Return a number of seconds that is added to the clock of this host."""
    added = [0.0]
    (await parts_of(manager)).clock.wall = lambda: time.time() + added[0]
    return added


async def test_the_line_of_a_save_on_disk_is_written_by_the_next_process(tmp_path: Path) -> None:
    """With all that it says."""
    way = FaultyStore(MemoryStore())
    options: dict[str, Any] = {"audit": True, "spool_dir": tmp_path, "encryption_keys": "ab" * 32}
    async with memory_manager(way, **options) as manager:
        await log_in(manager)
        way.fail = Fault.UNAVAILABLE
        await log_in(manager, agent="while away", allowed_domains=[SHOP])
    way.heal()
    async with memory_manager(way, **options) as manager:
        (_, use) = await until(manager, 2)
    assert (use.agent_id, use.outcome, use.save_outcome) == ("while away", Outcome.REUSED, SaveOutcome.SAVED)
    assert use.allowed_domains == (SHOP,)


@pytest.fixture
def without_xadd(redis_server: RedisServer) -> Iterator[str]:
    """The address of the store for a user who may not write the audit."""
    with redis_server.client() as client:
        client.acl_setuser(
            "weak", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@all"], commands=["-xadd"]
        )
        yield redis_server.url.replace("redis://", "redis://weak:pw@")
        client.acl_deluser("weak")


async def test_a_refused_line_costs_no_save(without_xadd: str, caplog: pytest.LogCaptureFixture) -> None:
    """A user without the right to XADD saves as before. One warning names the cause."""
    async with SessionManager(without_xadd, registry=None, audit=True) as manager:
        for _ in range(3):
            async with reusable_session(ALICE, "agent-1", manager=manager) as session:
                session.data["at"] = time.monotonic()
            assert session.save_outcome == "saved"
        async with reusable_session(ALICE, manager=manager, save="never") as session:
            assert session.reused
        assert await uses(manager) == []
    assert caplog.text.count("session_reuse.audit_failed") == 1


@pytest.mark.parametrize("words", [("show", ALICE, "--reveal"), ("export", ALICE, "-o", "-"), ("copy", ALICE, "b")])
def test_a_command_notes_that_its_line_was_refused(
    cli: CommandLine, without_xadd: str, alice: str, words: tuple[str, ...]
) -> None:
    """The session is shown all the same, and a person learns that the audit does not know of it."""
    answer = cli(*words, url=without_xadd, SESSION_REUSE_AUDIT="1")
    assert (answer.code, "the audit has no line about this use" in answer.err) == (0, True)


def test_doctor_names_the_right_that_the_audit_needs_and_leaves_no_line(cli: CommandLine, without_xadd: str) -> None:
    """Without the audit nothing lacks. A trial is no use of a session."""
    answer = cli("doctor", "--json", url=without_xadd, SESSION_REUSE_AUDIT="1")
    rights = next(each for each in answer.json["checks"] if each["check"] == "rights")
    assert (answer.code, rights["status"], "audit: XADD" in rights["found"]) == (1, "fail", True)
    assert "+xadd" in rights["remedy"]
    assert cli("doctor", "--json", url=without_xadd).code == 0
    assert cli("doctor", "--json", SESSION_REUSE_AUDIT="1").code == 0
    assert cli("history", "--json").lines == []


async def test_another_server_of_the_cluster_that_hangs_delays_no_save(cluster: RedisCluster) -> None:
    """The line is lost. The saves of sessions on the other servers take no longer."""
    async with SessionManager(cluster.url, registry=None, audit=True) as manager:
        frozen = cluster.primary_of("browser:audit")
        name = next(
            name for name in (f"user-{number}" for number in range(1000))
            if cluster.primary_of(f"browser:session:{name}") is not frozen
        )  # fmt: skip
        await log_in(manager, name, None)
        frozen.pause()
        services = await parts_of(manager)
        commits: list[float] = []
        commit = services.store.commit

        async def timed(*args: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return await commit(*args, **options)
            finally:
                commits.append(time.monotonic() - began)

        services.store.commit = timed  # type: ignore[method-assign]
        for _ in range(3):
            async with reusable_session(name, manager=manager) as session:
                session.data["at"] = time.monotonic()
            assert session.save_outcome == "saved"
        assert min(commits) < manager.config.attempt_timeout
        frozen.resume()


@pytest.fixture
async def restored() -> AsyncIterator[SessionManager]:
    """A manager with a session."""
    async with memory_manager(audit=True) as manager:
        await log_in(manager)
        yield manager


async def test_a_session_without_a_with_leaves_a_line_too(restored: SessionManager) -> None:
    """`restore` and `save` of one session are one use."""
    session = await restored.restore(ALICE, "by hand")
    assert short(await until(restored, 2))[1:] == [("by hand", "reused", None)]
    assert session is not None
    session.data["changed"] = True
    await restored.save(session)
    async with asyncio.timeout(60):
        while short(await uses(restored))[1:] != [("by hand", "reused", "saved")]:
            await asyncio.sleep(0.01)


async def test_a_probe_is_named(restored: SessionManager) -> None:
    """As `keep_alive`."""
    await restored.keep_alive(lambda _: True, once=True)
    assert short(await until(restored, 2))[1:] == [("keep_alive", "reused", "unchanged")]


def test_blocking_code_leaves_lines_too(redis_server: RedisServer) -> None:
    """And lists them."""
    with blocking.SessionManager(redis_server.url, registry=None, audit=True) as manager:
        with blocking.reusable_session(ALICE, "agent-1", manager=manager) as session:
            session.data["a"] = 1
        assert [use.agent_id for use in manager.history(ALICE)] == ["agent-1"]


def test_the_command_prints_the_history(cli: CommandLine, redis_server: RedisServer) -> None:
    """The latest first, for people and for programs. Reading a session by hand is a use."""
    assert "SESSION_REUSE_AUDIT" in cli("history", ALICE).err

    async def use() -> None:
        async with SessionManager(redis_server.url, registry=None, audit=True) as manager:
            await log_in(manager)
            await log_in(manager, agent="agent-2", allowed_domains=[SHOP], save="never")

    asyncio.run(use())
    assert cli("copy", ALICE, "copied", SESSION_REUSE_AUDIT="1").code == 0
    lines = cli("history", ALICE, "--json").lines
    assert [line["agent_id"] for line in lines] == ["session-reuse copy", "agent-2", "agent-1"]
    assert (lines[1]["allowed_domains"], lines[1]["read_only"], lines[2]["save_outcome"]) == ([SHOP], True, "saved")
    assert len(cli("history", "--limit", "1", "--json").lines) == 1
    text = cli("history", ALICE).out
    assert "agent-2" in text
    assert f"{SHOP}, read only" in text
    assert CANARIES[0] not in text + str(lines)


def test_a_key_of_another_type_is_named(cli: CommandLine, redis_server: RedisServer) -> None:
    """An operator finds what another program has written there."""
    with redis_server.client() as client:
        client.set("browser:audit", "x")
        client.set("browser:pools", "x")
    answer = cli("history", "--json")
    assert (answer.code, "browser:audit holds another type" in answer.json["message"]) == (3, True), answer.json
    assert "browser:pools holds another type" in cli("pool", "ls").err
