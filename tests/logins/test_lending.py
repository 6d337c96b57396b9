"""`allowed_domains` and `save="never"`: what is outside is not handed out, and stays in the store unchanged."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from session_reuse import (
    BrowserSession,
    ConfigurationError,
    Outcome,
    SaveOutcome,
    SessionManager,
    persist_session,
    reusable_session,
)
from session_reuse.testing import MemoryStore, assert_reused, memory_manager
from tests.harness.servers import RedisServer
from tests.lifecycle.faces import AsyncFace, BlockingFace
from tests.lifecycle.worlds import NAME, Process, processes, stored
from tests.logins.states import MAIL, PAY, SHOP, cookie, of_site, origin, sites_of, state, there

KEY = bytes(range(32))


async def log_in(process: Process, **data: Any) -> None:
    """Leave a session that is logged in at three sites."""
    async with process.enter() as session:
        session.storage_state = state(SHOP, PAY, MAIL)
        session.data.update(data)


def outside(memory: MemoryStore, *sites: str) -> str:
    """Return the stored state of sites, byte by byte, and the rest of the top level."""
    found = there(memory)
    rest = {
        key: value for key, value in found.storage_state.items() if key not in {"cookies", "origins", "session_reuse"}
    }
    return json.dumps([[of_site(found, site) for site in sites], rest])


async def test_only_what_is_inside_is_handed_out_and_saved() -> None:
    """The agent sees one site, whatever it brings along of others is left out, and the rest stays byte for byte."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await log_in(one, note=1)
        before = outside(memory, PAY, MAIL)
        async with one.enter(allowed_domains=[SHOP]) as session:
            assert_reused(session)
            assert session.allowed_domains == (SHOP,)
            assert sites_of(session) == {SHOP}
            assert "credentials" not in session.storage_state
            assert [loss["origin"] for loss in session.storage_state["session_reuse"]["lost"]] == [f"https://{SHOP}"]
            session.storage_state = state(SHOP, PAY, "evil.example", value="second")
            session.data["note"] = 2
        assert session.save_outcome is SaveOutcome.SAVED
    assert outside(memory, PAY, MAIL) == before
    assert of_site(there(memory), SHOP)[0][0]["value"] == "second"
    assert sites_of(there(memory)) == {SHOP, PAY, MAIL}
    assert there(memory).data == {"note": 2}


async def test_a_logout_inside_leaves_the_logins_outside() -> None:
    """What was seen to be deleted is deleted, of its own site alone."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await log_in(one)
        before = outside(memory, PAY, MAIL)
        async with one.enter(allowed_domains=[SHOP]) as session:
            session.bind_capture(lambda: {"cookies": [], "origins": []})
        assert session.save_outcome is SaveOutcome.SAVED
    assert outside(memory, PAY, MAIL) == before
    assert sites_of(there(memory)) == {PAY, MAIL}


async def test_an_unchanged_part_is_unchanged() -> None:
    """Nothing is sent for what only others could have changed."""
    async with processes(MemoryStore(), 1) as (one,):
        await log_in(one)
        async with one.enter(allowed_domains=[SHOP]) as session:
            session.storage_state = state(SHOP, PAY, value="first")
        assert session.save_outcome is SaveOutcome.UNCHANGED


async def test_two_disjoint_parts_each_keep_their_own() -> None:
    """Both agents bring all of a shared context, and neither touches the other's site."""
    memory = MemoryStore()
    async with processes(memory) as (one, two):
        await log_in(one)
        before = outside(memory, PAY)
        async with one.enter(allowed_domains=[SHOP]) as shop, two.enter(allowed_domains=[MAIL]) as mail:
            shop.storage_state = {"cookies": [cookie(SHOP, "new"), cookie(MAIL, "seen by shop")], "origins": []}
            mail.storage_state = {"cookies": [cookie(SHOP, "seen by mail"), cookie(MAIL, "new")], "origins": []}
        assert {shop.save_outcome, mail.save_outcome} == {SaveOutcome.SAVED, SaveOutcome.SAVED}
    assert [of_site(there(memory), site)[0][0]["value"] for site in (SHOP, MAIL)] == ["new", "new"]
    assert outside(memory, PAY) == before


async def test_overlapping_parts_are_merged_by_item() -> None:
    """Both change something of the site that both may change, and nothing of it is lost."""
    memory = MemoryStore()
    async with processes(memory) as (one, two):
        await log_in(one)
        async with one.enter(allowed_domains=[SHOP, PAY]) as first, two.enter(allowed_domains=[PAY, MAIL]) as second:
            first.storage_state["cookies"].append(cookie(PAY, "1", "of the first"))
            second.storage_state["cookies"].append(cookie(PAY, "2", "of the second"))
            second.storage_state["origins"] = [origin(f"https://{MAIL}", "new")]
        assert first.save_outcome is SaveOutcome.MERGED
    names = {each["name"] for each in of_site(there(memory), PAY)[0]}
    assert names == {"sid", "of the first", "of the second"}
    assert [len(of_site(there(memory), site)[1]) for site in (SHOP, PAY, MAIL)] == [1, 0, 1]


async def test_a_part_that_waits_is_written_later_as_a_part() -> None:
    """What others have saved outside meanwhile stays."""
    memory = MemoryStore()
    async with processes(memory) as (one, two):
        await log_in(one)
        async with two.enter(allowed_domains=[SHOP]) as session:
            two.cut()
            session.storage_state = state(SHOP, MAIL, value="late")
        assert session.save_outcome is SaveOutcome.PENDING
        async with one.enter() as other:
            other.storage_state["cookies"][2]["value"] = "changed meanwhile"
        two.heal()
        assert await session.settled() is SaveOutcome.SAVED
    assert [of_site(there(memory), site)[0][0]["value"] for site in (SHOP, MAIL)] == ["late", "changed meanwhile"]


async def test_a_part_on_disk_is_still_a_part(tmp_path: Path, own_redis: RedisServer) -> None:
    """A new process delivers it within its domains."""
    settings: dict[str, Any] = {"spool_dir": str(tmp_path / "spool"), "encryption_keys": [KEY], "close_timeout": 0.2}
    async with SessionManager(own_redis.url, registry=None, **settings) as manager:
        async with reusable_session(NAME, manager=manager) as session:
            session.storage_state = state(SHOP, MAIL)
        async with reusable_session(NAME, manager=manager, allowed_domains=[SHOP], verify=refuse_once()) as session:
            own_redis.stop()
            session.storage_state = state(SHOP, value="new login")
        assert session.save_outcome is SaveOutcome.SPOOLED
    own_redis.start()
    async with SessionManager(own_redis.url, registry=None, **settings) as manager:
        async with asyncio.timeout(60):
            while await logins(manager) != {SHOP: "new login", MAIL: "first"}:
                await asyncio.sleep(0.02)


async def test_a_session_that_the_store_has_lost_comes_back_as_a_whole() -> None:
    """A part alone would be taken for the session, and the items outside for deleted ones."""
    memory = MemoryStore()
    async with processes(memory) as (one, two):
        await log_in(one)
        before = outside(memory, PAY)
        async with one.enter() as other:
            async with two.enter(allowed_domains=[SHOP]) as session:
                memory.advance(90_000)
                assert memory.peek(NAME) is None
                session.storage_state = state(SHOP, value="second")
            assert session.save_outcome is SaveOutcome.SAVED
            assert outside(memory, PAY) == before
            other.storage_state["cookies"][2]["value"] = "changed"
    assert [of_site(there(memory), site)[0][0]["value"] for site in (SHOP, MAIL)] == ["second", "changed"]


async def test_a_part_on_disk_brings_the_rest_back(tmp_path: Path, own_redis: RedisServer) -> None:
    """The server comes back with nothing in it, after the process that held the session has ended."""
    settings: dict[str, Any] = {"spool_dir": str(tmp_path / "spool"), "encryption_keys": [KEY], "close_timeout": 0.2}
    async with SessionManager(own_redis.url, registry=None, **settings) as manager:
        async with reusable_session(NAME, manager=manager) as session:
            session.storage_state = state(SHOP, MAIL)
        async with reusable_session(NAME, manager=manager, allowed_domains=[SHOP]) as session:
            own_redis.stop()
            session.storage_state = state(SHOP, value="second")
        assert session.save_outcome is SaveOutcome.SPOOLED
    own_redis.restart(empty=True)
    async with SessionManager(own_redis.url, registry=None, **settings) as manager:
        async with asyncio.timeout(60):
            while await logins(manager) != {SHOP: "second", MAIL: "first"}:
                await asyncio.sleep(0.02)


async def logins(manager: SessionManager) -> dict[str, str]:
    """Return the value of each stored cookie by its domain."""
    session = await manager.restore(NAME)
    return {} if session is None else {each["domain"]: each["value"] for each in session.storage_state["cookies"]}


def refuse_once() -> Any:
    """Return a hook that does not accept what it sees first."""
    verdicts = iter([False])
    return lambda _session: next(verdicts, True)


async def test_a_new_login_replaces_the_part_alone() -> None:
    """A login that was not accepted is replaced as a whole within its domains. The others stay."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await log_in(one)
        before = outside(memory, PAY, MAIL)
        async with one.enter(allowed_domains=[SHOP], verify=refuse_once()) as session:
            assert session.outcome is Outcome.UNVERIFIED
            session.storage_state = {"cookies": [cookie(SHOP, "new login")], "origins": []}
        assert session.save_outcome is SaveOutcome.SAVED
    assert outside(memory, PAY, MAIL) == before
    assert of_site(there(memory), SHOP) == ([cookie(SHOP, "new login")], [])


async def test_nothing_inside_does_not_replace_a_login() -> None:
    """A login that was not accepted stays, where the agent found no other."""
    memory = MemoryStore()
    async with processes(memory, 1) as (one,):
        await log_in(one)
        async with one.enter(allowed_domains=[SHOP], verify=refuse_once()) as session:
            session.storage_state = state(MAIL, value="elsewhere")
        assert session.save_outcome is SaveOutcome.SKIPPED
    assert [each["value"] for each in there(memory).storage_state["cookies"]] == ["first"] * 3


@pytest.fixture(params=[AsyncFace, BlockingFace])
def face(request: pytest.FixtureRequest, redis_server: RedisServer) -> Any:
    """Each of the two faces over a real server."""
    face = request.param(redis_server.url)
    yield face
    face.close()


def test_never_writes_nothing(face: Any, redis_server: RedisServer) -> None:
    """No payload, no time to live, no use, no affinity, no mark: each key stays as it was."""
    with face.visit("a", "agent") as session:
        session.storage_state = state(SHOP)
    with redis_server.client() as client:
        client.pexpire("browser:session:a", 5_000_000)
        before = {key: client.dump(key) for key in client.scan_iter()}
        with face.visit("a", "borrower", save="never", max_uses=5) as session:
            assert session.reused
            session.storage_state = state(SHOP, value="changed")
            session.data["x"] = 1
            assert face.run(session.checkpoint()) is SaveOutcome.SKIPPED
            session.mark_bad("broken")
        assert session.save_outcome is SaveOutcome.SKIPPED
        assert {key: client.dump(key) for key in client.scan_iter()} == before
        assert client.pttl("browser:session:a") <= 5_000_000


def test_both_faces_lend_a_part(face: Any) -> None:
    """Blocking code gets the same."""
    with face.visit("a") as session:
        session.storage_state = state(SHOP, MAIL)
    with face.visit("a", allowed_domains=[MAIL]) as session:
        assert sites_of(session) == {MAIL}
        session.storage_state = state(SHOP, value="not mine")
    restored = face.manager("restore", "a")
    assert [each["value"] for each in restored.storage_state["cookies"]] == ["first"]
    assert sites_of(restored) == {SHOP}


async def test_the_decorator_takes_both_options() -> None:
    """`persist_session` has the options of `reusable_session`."""
    memory = MemoryStore()
    async with memory_manager(memory) as manager:
        async with reusable_session(NAME, manager=manager) as session:
            session.storage_state = state(SHOP, MAIL)

        @persist_session(NAME, manager=manager, allowed_domains=[SHOP], save="never")
        async def buy(session: BrowserSession) -> set[str]:
            session.storage_state = state()
            return sites_of(session)

        await buy()
    assert stored(memory) is not None
    assert sites_of(there(memory)) == {SHOP, MAIL}


@pytest.mark.parametrize(
    "options", [{"allowed_domains": ["co.uk"]}, {"allowed_domains": SHOP}, {"allowed_domains": []}, {"save": "later"}]
)
async def test_a_wrong_option_is_refused_before_anything_is_handed_out(options: dict[str, Any]) -> None:
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        async with memory_manager() as manager, reusable_session(NAME, manager=manager, **options):
            pass
