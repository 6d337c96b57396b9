"""The testing kit itself: what users' tests lean on must hold."""

from __future__ import annotations

import base64
import inspect
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from session_reuse import (
    BrowserSession,
    Outcome,
    SaveOutcome,
    SessionManager,
    StoreTimeoutError,
    blocking,
    reusable_session,
)
from session_reuse._resilience.failure import AttemptFailed
from session_reuse._store.interface import Busy, Lease
from session_reuse._store.redis.store import RedisStore
from session_reuse.testing import (
    OPERATIONS,
    Fault,
    FaultyStore,
    MemoryStore,
    assert_fresh,
    assert_reused,
    assert_saved,
    memory_manager,
    state_with_cookie,
)
from tests.harness.polling import until

ROOT = Path(__file__).parents[2]
NAME = "shop.example/alice"


async def use(store: Any, **config: Any) -> BrowserSession:
    """Enter and leave once, adding a note."""
    async with (
        memory_manager(store, **config) as manager,
        reusable_session(NAME, "agent-1", manager=manager) as session,
    ):
        session.storage_state = state_with_cookie()
        session.data["uses"] = session.data.get("uses", 0) + 1
    return session


async def test_a_day_passes_in_no_time() -> None:
    """Expiry of sessions and affinities can be tested without waiting."""
    store = MemoryStore()
    await use(store)
    store.advance(86_399)
    assert_reused(await use(store))
    store.advance(86_401)
    assert store.peek(NAME) is None
    assert await store.affinity("agent-1", timeout=1) is None
    assert_fresh(await use(store), Outcome.MISSING)


async def test_the_environments_saves_on_disk_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session_reuse_manager: SessionManager
) -> None:
    """They are those of a real store: a test must not deliver them to one of memory, nor add to them."""
    monkeypatch.setenv("SESSION_REUSE_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("SESSION_REUSE_ENCRYPTION_KEYS", base64.b64encode(b"k" * 32).decode())
    for manager in (memory_manager(), session_reuse_manager):
        async with manager, reusable_session("a", manager=manager) as session:
            session.data["n"] = 1
        assert manager.config.spool_dir is None
    assert not (tmp_path / "spool").exists()


async def test_a_lease_ends_in_no_time() -> None:
    """The take-over after a dead holder can be tested without waiting."""
    store = MemoryStore()
    await store.acquire(NAME, "dead", 30.0, timeout=1)
    store.advance(29)
    assert isinstance(await store.acquire(NAME, "next", 30.0, timeout=1), Busy)
    store.advance(2)
    assert isinstance(await store.acquire(NAME, "next", 30.0, timeout=1), Lease)


async def test_a_cooldown_ends_in_no_time() -> None:
    """The way of a member back into its pool can be tested without waiting."""
    store = MemoryStore()
    async with memory_manager(store) as manager:
        await manager.pool("shop.example").add("alice")
        async with reusable_session(pool="shop.example", manager=manager) as session:
            session.mark_bad("captcha", cooldown=600)
    for seconds, fingerprint in (599, "shop.example"), (2, "shop.example/alice"):
        store.advance(seconds)
        async with memory_manager(store) as manager, reusable_session(pool="shop.example", manager=manager) as session:
            assert session.fingerprint == fingerprint


async def test_times_inside_of_values_stay() -> None:
    """As the docstring and the page say: a probe is as old as before, whatever time has passed for the session."""
    store = MemoryStore()
    await use(store)
    await store.note_liveness(NAME, "alive", 1, 86_400.0, timeout=1)
    before = await store.facts(NAME, timeout=1)
    store.advance(3_600)
    after = await store.facts(NAME, timeout=1)
    assert before is not None
    assert after is not None
    assert (before.liveness, before.head) == (after.liveness, after.head)
    assert after.ttl == pytest.approx(before.ttl - 3_600, abs=60)
    page = (ROOT / "docs" / "how-to" / "test-your-agent.md").read_text()
    for text in (page, MemoryStore.advance.__doc__ or ""):
        assert "the time of sessions, leases and pools" in text


def test_what_was_put_in_place_is_found_as_it_is() -> None:
    """A test plants a damaged value."""
    store = MemoryStore()
    store.put(NAME, b"damaged")
    assert store.peek(NAME) == b"damaged"


async def test_a_large_session_is_stored_as_any_other() -> None:
    """Sites with much in their storage are tested, too."""
    memory = MemoryStore()
    large = random.Random(1).randbytes(100_000).hex()
    async with memory_manager(memory) as manager, reusable_session(NAME, manager=manager) as session:
        session.data["large"] = large
    assert_saved(session)
    value = memory.peek(NAME)
    assert value is not None
    assert BrowserSession.import_(value).data == {"large": large}


async def test_what_is_stored_can_be_looked_at() -> None:
    """A test sees what its agent has left, in the stored form, without a manager."""
    store = MemoryStore()
    await use(store)
    value = store.peek(NAME)
    assert value is not None
    assert BrowserSession.import_(value).data == {"uses": 1}
    assert store.peek("nobody") is None


def test_synchronous_agents_are_tested_with_the_same_store() -> None:
    """The blocking twin runs over the store in memory as well."""
    store = MemoryStore()
    with blocking.SessionManager(store, registry=None) as manager:
        for number in range(2):
            with blocking.reusable_session(NAME, manager=manager) as session:
                assert session.reused == bool(number)
                session.data["number"] = number


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [(Fault.UNAVAILABLE, Outcome.UNAVAILABLE), (Fault.TIMEOUT, Outcome.TIMEOUT), (Fault.AUTH, Outcome.AUTH)],
)
async def test_an_outage_can_be_played_through(fault: Fault, outcome: Outcome) -> None:
    """An agent under test meets each kind of trouble, starts fresh, and its work waits."""
    store = FaultyStore(MemoryStore(), fail=fault)
    async with memory_manager(store, close_timeout=0.05) as manager:
        async with reusable_session(NAME, manager=manager) as session:
            assert_fresh(session, outcome)
            assert session.degraded
            session.data["note"] = 1
        assert_saved(session, SaveOutcome.PENDING)
        assert manager.stats().pending == 1
    assert manager.stats().lost == 1


async def test_a_healed_store_gets_what_waited() -> None:
    """The way back from an outage can be tested too."""
    memory = MemoryStore()
    store = FaultyStore(memory, fail="unavailable")
    async with memory_manager(store) as manager:
        async with reusable_session(NAME, manager=manager) as session:
            session.data["note"] = 1
        store.heal()
        await until(lambda: manager.stats().flushed == 1)
        async with reusable_session(NAME, manager=manager) as session:
            assert session.data == {"note": 1}


async def test_a_read_only_store_still_restores() -> None:
    """A full or demoted server serves restores while saves wait."""
    memory = MemoryStore()
    await use(memory)
    store = FaultyStore(memory, fail=Fault.READ_ONLY)
    session = await use(store, close_timeout=0.05)
    assert_reused(session)
    assert_saved(session, SaveOutcome.PENDING)


async def test_a_slow_store_times_out_and_a_little_latency_does_not() -> None:
    """Latency below the limit is only latency."""
    memory = MemoryStore()
    await use(memory)
    assert_reused(await use(FaultyStore(memory, latency=0.01)))
    session = await use(FaultyStore(memory, latency=60.0), attempt_timeout=0.02, save_timeout=0.05, close_timeout=0.05)
    assert_fresh(session, Outcome.TIMEOUT)


async def test_faults_end_by_themselves_after_so_many_times() -> None:
    """One lost reply is repaired by a second attempt, and the save counts once."""
    memory = MemoryStore()
    store = FaultyStore(memory, fail=Fault.TIMEOUT, times=1, only={"commit"}, after=True)
    session = await use(store)
    assert_saved(session, SaveOutcome.SAVED)
    assert store.calls.count("commit") == 2
    assert BrowserSession.import_(memory.peek(NAME) or b"").data == {"uses": 1}


async def test_strict_agents_get_the_error() -> None:
    """With `strict` the fault comes out as the error that the real store would raise."""
    async with memory_manager(FaultyStore(MemoryStore(), fail="timeout"), attempt_timeout=0.05) as manager:
        with pytest.raises(StoreTimeoutError):
            await reusable_session(NAME, manager=manager, strict=True).__aenter__()


def test_unknown_faults_and_operations_are_told() -> None:
    """A typing error in a test does not make it pass."""
    with pytest.raises(ValueError, match="explode"):
        FaultyStore(MemoryStore(), fail="explode")
    with pytest.raises(ValueError, match="comit"):
        FaultyStore(MemoryStore(), only={"comit"})
    store = FaultyStore(MemoryStore())
    with pytest.raises(ValueError, match=r"tmieout.*timeout"):
        store.fail = "tmieout"
    with pytest.raises(ValueError, match="comit"):
        store.only = {"comit"}
    assert (store.fail, store.only) == (None, OPERATIONS)


@pytest.mark.parametrize("fault", Fault)
async def test_a_fault_may_be_named_by_its_value(fault: Fault) -> None:
    """In the constructor and afterwards alike. As an attribute, any text was a store that is away."""
    outcomes = []
    for store in (FaultyStore(MemoryStore(), fail=fault.value), FaultyStore(MemoryStore())):
        store.fail = store.fail or fault.value
        outcomes.append((await use(store, attempt_timeout=0.05, close_timeout=0.05)).outcome)
    assert store.fail is fault
    assert outcomes[0] == outcomes[1]


async def test_stores_for_tests_have_all_operations() -> None:
    """An operation added to the store for Redis is there too, and can fail."""
    methods = inspect.getmembers(RedisStore, inspect.isfunction)
    timed = {name for name, method in methods if "timeout" in inspect.signature(method).parameters and name[0] != "_"}
    assert timed - {"send", "fingerprints"} == OPERATIONS  # those two are for the clean-up, which needs a real Redis
    for name in OPERATIONS - {"sessions"}:
        assert callable(getattr(MemoryStore(), name))
        with pytest.raises(AttemptFailed):
            await getattr(FaultyStore(MemoryStore(), fail="unavailable"), name)("a", timeout=1.0)


async def test_assertions_say_what_was_there_instead() -> None:
    """A failing test names the outcome, and never a cookie's value."""
    session = await use(MemoryStore())
    with pytest.raises(AssertionError, match="missing") as reused:
        assert_reused(session)
    with pytest.raises(AssertionError, match="corrupt"):
        assert_fresh(session, Outcome.CORRUPT)
    with pytest.raises(AssertionError, match="saved, not pending"):
        assert_saved(session, "pending")
    assert "test" not in str(reused.value)


PLUGIN_TEST = """
    import asyncio
    from session_reuse import reusable_session
    from session_reuse.testing import assert_reused

    def test_my_agent(session_reuse_manager, session_reuse_store, session_reuse_events):
        async def agent():
            async with reusable_session("a", "agent-1", manager=session_reuse_manager) as session:
                session.data["n"] = 1
            return session

        async def main():
            await agent()
            assert_reused(await agent())

        asyncio.run(main())
        assert session_reuse_store.peek("a") is not None
        names = [event.event for event in session_reuse_events]
        assert names == ["session_reuse.missed", "session_reuse.saved", "session_reuse.restored", "session_reuse.saved"]
        assert session_reuse_events[0].fields["fingerprint"] == "a"
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as a user does, with the plugin that an installed package would bring."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "session_reuse.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=140, check=False
    )


def test_the_fixtures_serve_a_users_test(tmp_path: Path) -> None:
    """A user's test gets a store, a manager over it, and the log, without any set-up."""
    (tmp_path / "test_agent.py").write_text(textwrap.dedent(PLUGIN_TEST))
    finished = run_pytest(tmp_path, "-W", "error")
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_plugin_costs_nothing_until_it_is_used(tmp_path: Path) -> None:
    """Every test run of every project with this package loads the plugin: it must not import the package's rest."""
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\ndef test_nothing():\n"
        "    heavy = {'redis', 'structlog', 'prometheus_client', 'orjson', 'session_reuse._manager'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    finished = run_pytest(tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
