"""The main job: enter, restore, body, save, exit. On a real server, through the public interface."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from session_reuse import (
    AlreadyEnteredError,
    BrowserSession,
    ConfigurationError,
    InvalidFingerprintError,
    InvalidStateError,
    ManagerClosedError,
    Outcome,
    SaveOutcome,
    SessionManager,
    StateTooLargeError,
    StoreUnavailableError,
    persist_session,
    reusable_session,
)
from session_reuse._session import fold
from session_reuse._state.merge import merge_documents
from session_reuse.testing import memory_manager, state_with_cookie
from tests.harness.servers import RedisServer

COOKIE = {"name": "sid", "value": "s3cret", "domain": "shop.example", "path": "/", "expires": -1}


async def logged_in(manager: SessionManager, fingerprint: str = "shop.example/alice", **data: Any) -> None:
    """Leave a stored, good session."""
    async with reusable_session(fingerprint, "agent-1", manager=manager) as session:
        session.storage_state = {"cookies": [dict(COOKIE)], "origins": []}
        session.data.update(data)
    assert session.save_outcome in {SaveOutcome.SAVED, SaveOutcome.MERGED}


async def test_an_agent_without_a_past_gets_a_session_of_its_own(manager: SessionManager) -> None:
    """An agent that never had a session starts one under its own name, and finds it again."""
    async with reusable_session(agent_id="newcomer", manager=manager) as session:
        session.data["first"] = True
    async with reusable_session(agent_id="newcomer", manager=manager) as session:
        assert session.reused
        assert session.data == {"first": True}


async def test_nothing_to_go_by_is_an_error(manager: SessionManager) -> None:
    """Neither fingerprint nor agent_id is a mistake in the call, not a session for everybody."""
    with pytest.raises(ConfigurationError, match="give a fingerprint, an agent_id or a pool"):
        await reusable_session(manager=manager).__aenter__()


@pytest.mark.parametrize("name", ["", "x" * 513, "é" * 257, "\ud800", 7, None, b"x", ["x"]])
async def test_a_bad_agent_name_is_told_at_once(manager: SessionManager, name: Any) -> None:
    """A wrong fingerprint or agent_id gets a clear error, and nothing is stored."""
    if name is not None:
        with pytest.raises(InvalidFingerprintError):
            await reusable_session(name, "agent", manager=manager).__aenter__()
        with pytest.raises(InvalidFingerprintError):
            await reusable_session("fine", name, manager=manager).__aenter__()
    assert [summary async for summary in manager.sessions()] == []


async def test_names_with_braces_and_spaces_stay_apart(manager: SessionManager) -> None:
    """Characters that could break out of a key are escaped, so that no two identities meet."""
    names = ["a b", "a%20b", "{a}b", "a\nb", "a:b", "ä", "a/../b", "*"]
    for name in names:
        async with reusable_session(name, name, manager=manager) as session:
            session.data["name"] = name
    for name in names:
        async with reusable_session(name, manager=manager) as session:
            assert session.data == {"name": name}
    assert sorted([summary.fingerprint async for summary in manager.sessions()]) == sorted(names)


async def test_entering_twice_is_refused(manager: SessionManager) -> None:
    """One object is one visit: a second enter would mix two of them."""
    visit = reusable_session("a", manager=manager)
    async with visit:
        pass
    with pytest.raises(AlreadyEnteredError):
        await visit.__aenter__()


async def test_a_closed_manager_says_so(redis_server: RedisServer) -> None:
    """A closed manager is not silently opened again."""
    manager = SessionManager(redis_server.url, registry=None)
    async with manager:
        pass
    await manager.aclose()
    with pytest.raises(ManagerClosedError):
        await reusable_session("a", manager=manager).__aenter__()


async def test_discard_leaves_the_stored_state_alone(manager: SessionManager) -> None:
    """What an agent wants forgotten is not saved."""
    await logged_in(manager)
    async with reusable_session("shop.example/alice", manager=manager) as session:
        session.storage_state["cookies"].clear()
        session.data["junk"] = 1
        session.discard()
    assert session.save_outcome is SaveOutcome.SKIPPED
    async with reusable_session("shop.example/alice", manager=manager) as session:
        assert session.storage_state["cookies"] == [COOKIE]
        assert session.data == {}


async def test_a_checkpoint_is_safe_before_the_exit(manager: SessionManager) -> None:
    """What was checkpointed is there for others while the body still runs, and later changes follow."""
    async with reusable_session("a", manager=manager) as session:
        session.data["n"] = 1
        assert await session.checkpoint() is SaveOutcome.SAVED
        async with reusable_session("a", manager=manager) as other:
            assert other.data == {"n": 1}
            other.data["other"] = True
        session.data["n"] = 2
        assert await session.checkpoint() is SaveOutcome.MERGED
        assert await session.checkpoint() is SaveOutcome.UNCHANGED
        session.data["n"] = 3
    async with reusable_session("a", manager=manager) as session:
        assert session.data == {"n": 3, "other": True}


async def test_the_same_state_captured_anew_is_not_written_again(manager: SessionManager) -> None:
    """Another order, or another time of capture, is no change: nothing but the time to live is refreshed."""
    cookies = [{**COOKIE, "name": name} for name in ("a", "b", "c")]
    for order in (1, -1):
        async with reusable_session("reordered", manager=manager) as session:
            session.storage_state = {"cookies": cookies[::order], "origins": []}
    assert session.save_outcome is SaveOutcome.UNCHANGED
    for captured_at in (1.5, 27.25, 9):
        async with reusable_session("captured", manager=manager) as session:
            block = {"v": 1, "captured_at": captured_at}
            session.storage_state = {"cookies": cookies, "origins": [], "session_reuse": block}
    assert session.save_outcome is SaveOutcome.UNCHANGED


async def test_a_hanging_capture_does_not_hang_the_agent(redis_server: RedisServer) -> None:
    """Reading a frozen browser ends at its budget."""
    async with SessionManager(redis_server.url, registry=None, capture_timeout=0.05) as manager:
        await logged_in(manager)
        async with reusable_session("shop.example/alice", manager=manager) as session:
            session.bind_capture(lambda: asyncio.sleep(60))  # type: ignore[arg-type,return-value]
        assert session.save_outcome is SaveOutcome.SKIPPED
        assert session.problems


@pytest.mark.parametrize(
    "state",
    [
        None, [], "x", {"cookies": {}}, {"cookies": [1]}, {"cookies": [{"name": "a"}]},
        {"cookies": [{"name": "a", "value": 1, "domain": "x"}]}, {"origins": [{"localStorage": []}]},
        {"origins": [{"origin": "https://x", "localStorage": [{"name": 1, "value": "x"}]}]},
    ],
)  # fmt: skip
async def test_what_is_no_storage_state_is_refused_on_assignment(manager: SessionManager, state: Any) -> None:
    """A wrong shape is told where it is made, and the stored state stays."""
    await logged_in(manager)
    async with reusable_session("shop.example/alice", manager=manager) as session:
        with pytest.raises(InvalidStateError):
            session.storage_state = state
        assert session.storage_state["cookies"] == [COOKIE]
    assert session.save_outcome is SaveOutcome.UNCHANGED


@pytest.mark.parametrize("value", [object(), {1: 2}, b"x", float("nan"), {1, 2}, {"deep": [object()]}])
async def test_what_json_cannot_hold_is_told_at_exit(manager: SessionManager, value: Any) -> None:
    """A value put in place that cannot be stored gets a clear error. The stored state stays."""
    await logged_in(manager, step=1)
    with pytest.raises(InvalidStateError):
        async with reusable_session("shop.example/alice", manager=manager) as session:
            session.data["bad"] = value
    assert session.save_outcome is SaveOutcome.SKIPPED
    with pytest.raises(KeyError):  # the body's own error wins over ours
        async with reusable_session("shop.example/alice", manager=manager) as session:
            session.data["bad"] = value
            raise KeyError
    async with reusable_session("shop.example/alice", manager=manager) as session:
        assert session.data == {"step": 1}


@pytest.mark.parametrize("value", [object(), "x" * 20_000], ids=["no JSON", "too large"])
@pytest.mark.parametrize("fails", [False, True])
async def test_notes_that_cannot_be_stored_do_not_cost_the_login(
    redis_server: RedisServer, value: Any, *, fails: bool
) -> None:
    """The new login is stored with the notes as they were, and the error says which note was wrong."""
    async with SessionManager(redis_server.url, registry=None, max_state_bytes=10_000) as manager:
        await logged_in(manager, step=1)
        with pytest.raises(KeyError if fails else InvalidStateError):
            async with reusable_session("shop.example/alice", manager=manager) as session:
                session.storage_state["cookies"][0]["value"] = "new"
                session.data.update(step=2, bad=value)
                with pytest.raises(InvalidStateError):
                    await session.checkpoint()
                session.storage_state["cookies"][0]["value"] = "newer"
                if fails:
                    raise KeyError
        assert session.save_outcome is SaveOutcome.SAVED
        async with reusable_session("shop.example/alice", manager=manager) as session:
            assert session.data == {"step": 1}
            assert session.storage_state["cookies"][0]["value"] == "newer"
            session.data["step"] = 2
        assert session.save_outcome is SaveOutcome.SAVED


async def test_a_state_over_the_limit_is_refused(redis_server: RedisServer) -> None:
    """A session over max_state_bytes gets a clear error. The stored one stays."""
    async with SessionManager(redis_server.url, registry=None, max_state_bytes=10_000) as manager:
        await logged_in(manager)
        with pytest.raises(StateTooLargeError, match="max_state_bytes"):
            async with reusable_session("shop.example/alice", manager=manager) as session:
                session.data["big"] = "x" * 20_000
        async with reusable_session("shop.example/alice", manager=manager) as session:
            assert session.reused
            assert session.data == {}


async def test_large_states_come_back_whole(manager: SessionManager) -> None:
    """Megabytes are coded in a thread and travel on their own lane, unharmed."""
    big = {"origin": "https://x.example", "localStorage": [{"name": f"k{n}", "value": "v" * 9_999} for n in range(300)]}
    async with reusable_session("big", manager=manager) as session:
        session.storage_state["origins"].append(big)
    assert session.save_outcome is SaveOutcome.SAVED
    async with reusable_session("big", manager=manager) as session:
        assert session.storage_state["origins"] == [big]


async def test_what_two_agents_have_deleted_is_merged_in_a_thread(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merge reads the megabytes from before as well, and would hold up the event loop."""
    threads: list[threading.Thread] = []

    def watched(*documents: Any) -> Any:
        threads.append(threading.current_thread())
        return merge_documents(*documents)

    monkeypatch.setattr(fold, "merge_documents", watched)
    await logged_in(manager, "big", notes=["x" * 100] * 10_000)
    async with reusable_session("big", manager=manager) as session:
        async with reusable_session("big", manager=manager) as other:
            del other.data["notes"]
            other.data["other"] = 1
        del session.data["notes"]
    assert session.save_outcome is SaveOutcome.MERGED
    assert threads
    assert threading.main_thread() not in threads


async def test_a_lone_surrogate_in_local_storage_survives(manager: SessionManager) -> None:
    """JavaScript strings that UTF-8 cannot carry are stored anyway, and merge with others."""
    async with reusable_session("a", manager=manager) as session:
        session.data["odd"] = "\ud83d"
    async with reusable_session("a", manager=manager) as session:
        assert session.data == {"odd": "\ud83d"}
        async with reusable_session("a", manager=manager) as other:
            other.data["even"] = "é"
        session.data["third"] = 3
    assert session.save_outcome is SaveOutcome.MERGED
    async with reusable_session("a", manager=manager) as session:
        assert session.data == {"odd": "\ud83d", "even": "é", "third": 3}


async def test_one_day_is_not_zero_seconds(redis_server: RedisServer) -> None:
    """A timedelta of days keeps the session for days."""
    async with SessionManager(redis_server.url, registry=None, ttl=timedelta(days=1)) as manager:
        await logged_in(manager)
        (summary,) = [summary async for summary in manager.sessions()]
        assert summary.ttl is not None
        assert 86_000 < summary.ttl <= 86_400


async def test_a_hand_made_session_replaces_what_is_stored(manager: SessionManager) -> None:
    """`save` of a session made by hand stores exactly that, and `restore` gives it back."""
    await logged_in(manager, step=1)
    made = BrowserSession("shop.example/alice", "agent-9", data={"by": "hand"})
    made.storage_state = {"cookies": [{**COOKIE, "name": "only"}], "origins": []}
    assert await manager.save(made) is SaveOutcome.SAVED
    restored = await manager.restore("shop.example/alice", "agent-9")
    assert restored is not None
    assert restored.reused
    assert restored.data == {"by": "hand"}
    assert [cookie["name"] for cookie in restored.storage_state["cookies"]] == ["only"]
    restored.data["again"] = 1
    assert await manager.save(restored) is SaveOutcome.SAVED
    assert await manager.save(restored) is SaveOutcome.UNCHANGED
    assert await manager.affinity("agent-9") == "shop.example/alice"
    assert await manager.restore("nobody") is None


async def test_the_stored_form_is_portable(manager: SessionManager, redis_server: RedisServer) -> None:
    """`import_` reads `export`'s bytes and what stands in Redis alike."""
    await logged_in(manager, step=1)
    session = await manager.restore("shop.example/alice")
    assert session is not None
    with redis_server.client() as client:
        stored = client.get("browser:session:shop.example/alice")
        assert isinstance(stored, bytes)
        assert client.ttl("browser:session:shop.example/alice") > 86_000
    for form in (session.export(), stored, BrowserSession.import_(stored).export()):
        found = BrowserSession.import_(form)
        assert found.fingerprint == "shop.example/alice"
        assert found.data == {"step": 1}
        assert found.storage_state["cookies"] == [COOKIE]


async def test_the_default_manager_survives_several_event_loops(redis_server: RedisServer) -> None:
    """`asyncio.run` after `asyncio.run`, each with its own manager, closed with its loop."""

    def run(url: str) -> list[Outcome]:
        async def once() -> Outcome:
            async with reusable_session("a", "b") as session:
                session.data["n"] = session.data.get("n", 0) + 1
            return session.outcome

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SESSION_REUSE_URL", url)
            return [asyncio.run(once()) for _ in range(3)]

    outcomes = await asyncio.to_thread(run, redis_server.url)
    assert outcomes == [Outcome.MISSING, Outcome.REUSED, Outcome.REUSED]


async def test_the_decorator_passes_the_session_and_leaves_no_trace(
    manager: SessionManager,
) -> None:
    """Calls of one decorated function, overlapping ones too, share nothing but the store."""
    seen: list[tuple[str, str | None, bool]] = []

    class Shop:
        @persist_session("shop.example/{account}", "{agent}", manager=manager)
        async def checkout(self, account: str, agent: str = "anna", *, session: BrowserSession) -> str:
            """Buy."""
            await asyncio.sleep(0.01)
            seen.append((session.fingerprint, session.agent_id, session.reused))
            session.data["bought"] = account
            return account

    assert Shop.checkout.__name__ == "checkout"
    assert Shop.checkout.__doc__ == "Buy."
    shop = Shop()
    results = await asyncio.gather(*(shop.checkout(name) for name in ("x", "y")), shop.checkout("z", agent="zoe"))  # type: ignore[call-arg]
    assert results == ["x", "y", "z"]
    assert sorted(seen) == [
        ("shop.example/x", "anna", False), ("shop.example/y", "anna", False), ("shop.example/z", "zoe", False),
    ]  # fmt: skip
    await shop.checkout("x")  # type: ignore[call-arg]
    assert seen[-1] == ("shop.example/x", "anna", True)


async def test_metrics_tell_errors_from_misses(manager: SessionManager, registry: CollectorRegistry) -> None:
    """Reuses, misses by reason and saves are counted, under the names everybody expects."""
    await logged_in(manager)
    async with reusable_session("shop.example/alice", manager=manager):
        pass
    assert registry.get_sample_value("session_reused_total") == 1
    assert registry.get_sample_value("session_miss_total", {"reason": "missing"}) == 1
    assert registry.get_sample_value("session_saved_total", {"outcome": "saved"}) == 1
    assert registry.get_sample_value("session_saved_total", {"outcome": "unchanged"}) == 1
    assert registry.get_sample_value("session_restore_seconds_count") == 2
    assert registry.get_sample_value("session_save_seconds_count") == 2
    assert registry.get_sample_value("session_breaker_state", {"breaker": "read", "state": "closed"}) == 1
    stats = manager.stats()
    assert stats.entered == {"missing": 1, "reused": 1}
    assert stats.reuse_rate == 0.5


async def test_an_error_names_the_store_without_its_password() -> None:
    """Who asked for errors learns which store is meant, for there may be several."""
    async with SessionManager("redis://user:secret@127.0.0.1:1/0", registry=None) as manager:
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1") as refused:
            await reusable_session("a", manager=manager, strict=True).__aenter__()
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("fault", ["hangs", "raises"])
async def test_a_service_for_keys_that_does_not_work_is_named(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds up neither the agent for long, nor other agents, nor the end of the process."""
    monkeypatch.setattr("session_reuse._session.composition._KEYS_LIMIT", 0.2)

    def keys() -> list[bytes]:
        if fault == "hangs":
            time.sleep(30.0)
        raise OSError("no way to the service")

    async with asyncio.timeout(10.0):
        with pytest.raises(
            ConfigurationError, match=r"encryption_keys: the callable has (not answered|raised OSError)"
        ):
            async with reusable_session("a", manager=memory_manager(encryption_keys=keys)):
                pytest.fail("the agent began without keys")


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
async def test_an_entered_session_is_not_copied(manager: SessionManager, duplicate: Callable[[Any], object]) -> None:
    """A copy shared the wiring, so that what was done to it was done to the session. The error names `export`."""
    async with reusable_session("shop.example/alice", manager=manager) as session:
        with pytest.raises(TypeError, match=r"session\.export\(\)"):
            duplicate(session)


@pytest.mark.parametrize("duplicate", [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy])
async def test_a_copy_of_a_session_made_by_hand_is_another_one(
    manager: SessionManager, duplicate: Callable[[BrowserSession], BrowserSession]
) -> None:
    """Each is saved, or discarded, for itself."""
    made = BrowserSession("shop.example/alice", "agent", storage_state=state_with_cookie(), data={"n": 1})
    copied = duplicate(made)
    copied.discard()
    assert (copied.fingerprint, copied.agent_id, copied.storage_state, copied.data) == (
        made.fingerprint, made.agent_id, made.storage_state, made.data,
    )  # fmt: skip
    assert await manager.save(copied) is SaveOutcome.SKIPPED
    assert await manager.save(made) is SaveOutcome.SAVED


@pytest.mark.parametrize("wrong", [None, {"cookies": [], "origins": []}, b"SRS1", "shop.example/alice"])
async def test_what_is_no_session_is_not_saved(manager: SessionManager, wrong: Any) -> None:
    """The error names what is wanted."""
    with pytest.raises(ConfigurationError, match=r"takes a BrowserSession, not .*: the one of restore"):
        await manager.save(wrong)


async def test_a_closed_manager_leaves_no_task_behind() -> None:
    """Nor does the garbage collector begin one when it comes across the manager."""
    before = asyncio.all_tasks()
    async with memory_manager() as manager, reusable_session("a", manager=manager) as session:
        session.data["n"] = 1
    del manager, session
    gc.collect()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
