"""One behaviour, two faces: asynchronous and blocking code get the same promises."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from session_reuse import (
    AdapterError,
    AlreadyEnteredError,
    InvalidFingerprintError,
    InvalidStateError,
    LifecycleError,
    ManagerClosedError,
    Outcome,
    SaveOutcome,
    SessionBusyError,
    SessionManager,
    StoreUnavailableError,
    blocking,
    persist_session,
    reusable_session,
)
from session_reuse.testing import MemoryStore
from tests.conftest import PATIENT_BUDGETS
from tests.harness.servers import RedisServer
from tests.lifecycle.faces import AsyncFace, BlockingFace

Face = AsyncFace | BlockingFace
COOKIE = {"name": "sid", "value": "1", "domain": "shop.example", "path": "/", "expires": -1}


@pytest.fixture(params=[AsyncFace, BlockingFace])
def face(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Face]:
    """Each of the two faces over a real server."""
    face = request.param(redis_server.url)
    yield face
    face.close()


def test_it_comes_back(face: Face) -> None:
    """Saved on exit, restored on enter, followed by affinity."""
    with face.visit("a", "agent") as session:
        assert session.outcome is Outcome.MISSING
        assert type(session) is face.session_class
        session.storage_state["cookies"].append(dict(COOKIE))
    assert session.save_outcome is SaveOutcome.SAVED
    with face.visit(None, "agent") as session:
        assert session.reused
        assert session.storage_state["cookies"] == [COOKIE]
    assert session.save_outcome is SaveOutcome.UNCHANGED
    assert face.manager("affinity", "agent") == "a"


def test_concurrent_saves_are_merged(face: Face) -> None:
    """Two holders at once both keep their changes."""
    with face.visit("a") as one:
        with face.visit("a") as two:
            two.data["two"] = 2
        one.data["one"] = 1
        assert face.run(one.checkpoint()) is SaveOutcome.MERGED
    restored = face.manager("restore", "a")
    assert restored.data == {"one": 1, "two": 2}
    restored.data["three"] = 3
    assert face.manager("save", restored) is SaveOutcome.SAVED


def test_captures_are_asked_before_each_save(face: Face) -> None:
    """An adapter's capture gives the state that is saved. In blocking code it runs in the caller's thread."""
    threads = []

    def capture() -> dict[str, Any]:
        threads.append(threading.current_thread())
        return {"cookies": [dict(COOKIE)], "origins": []}

    with face.visit("a") as session:
        unbind = session.bind_capture(capture)
        assert face.run(session.checkpoint()) is SaveOutcome.SAVED
    unbind()
    assert session.storage_state["cookies"] == [COOKIE]
    assert set(threads) == {threading.current_thread()}
    with face.visit("a") as session:
        session.bind_capture(lambda: 1 / 0)
    assert session.save_outcome is SaveOutcome.SKIPPED
    assert session.problems[0].kind == "capture_failed"


def test_verify_is_asked_at_both_ends(face: Face) -> None:
    """False or raising means a fresh start, and a stored state that stays."""
    with face.visit("a") as session:
        session.data["n"] = 1
    with face.visit("a", verify=lambda _: False) as session:
        assert session.outcome is Outcome.UNVERIFIED
        assert session.data == {}
        session.data["n"] = 2
    assert session.save_outcome is SaveOutcome.SKIPPED
    with face.visit("a", verify=lambda _: 1 / 0) as session:  # type: ignore[arg-type,return-value]
        assert session.outcome is Outcome.UNVERIFIED
    with face.visit("a", verify=lambda session: session.data == {"n": 1}) as session:
        assert session.reused


def test_a_check_that_cannot_tell_leaves_the_login(face: Face) -> None:
    """A site that is away proves nothing: the agent keeps its login, and what it leaves unverified is not saved."""

    def cannot_tell(_session: object) -> bool:
        raise AdapterError("the site answered 503")

    with face.visit("a") as session:
        session.data["n"] = 1
    with face.visit("a", verify=cannot_tell) as session:
        assert (session.outcome, session.data) == (Outcome.REUSED, {"n": 1})
        assert [(each.kind, each.reason) for each in session.problems] == [("verify_failed", "the site answered 503")]
        session.data["n"] = 2
    assert session.save_outcome is SaveOutcome.SKIPPED
    with face.visit("a") as session:
        assert session.data == {"n": 1}


def test_a_check_at_the_enter_may_use_its_session(face: Face) -> None:
    """It may save, for example after it has logged in again."""
    with face.visit("a") as session:
        session.data["n"] = 1
    saved = []

    def check(session: Any) -> Any:
        async def wait() -> bool:
            saved.append(await session.checkpoint())
            return True

        session.data["n"] += 1
        if isinstance(face, AsyncFace):
            return wait()
        saved.append(session.checkpoint())
        return True

    with face.visit("a", verify=check) as session:
        assert (session.reused, session.data, saved) == (True, {"n": 2}, [SaveOutcome.SAVED])


def test_an_imported_session_has_the_face_of_its_class(face: Face) -> None:
    """Else its `invalidate` would be a coroutine that nobody awaits."""
    with face.visit("a") as session:
        session.data["n"] = 1
    found = face.session_class.import_(session.export())
    assert type(found) is face.session_class
    assert found.data == {"n": 1}


def test_a_session_keeps_its_name(face: Face) -> None:
    """Under another one, it would be merged into another login."""
    with face.visit("a") as session, pytest.raises(AttributeError, match="fingerprint"):
        session.fingerprint = "b"


@pytest.mark.parametrize("config", [{}, {"pending_max": 0}, {"pending_max_bytes": 100}], ids=str)
def test_a_strict_agent_hears_of_work_that_is_lost_at_once(own_redis: RedisServer, config: dict[str, Any]) -> None:
    """Where nothing may wait, too."""
    face = AsyncFace(own_redis.url, strict=True, **config)
    with suppress(StoreUnavailableError):
        with own_redis.client() as client, face.visit("a") as session:
            session.data["n"] = "1" * 200
            client.config_set("maxmemory", "1")
        pytest.fail("nothing was raised")
    assert session.save_outcome == ("lost" if config else "pending")
    face.close()


@pytest.mark.parametrize("way", ["save_on_error", "discard", "never", "bad"])
def test_the_browser_is_not_verified_for_a_save_that_is_not_made(face: Face, way: str) -> None:
    """The hook of a session that is dropped would only delay the exit, and may use a browser that has failed."""
    calls: list[str] = []
    options: dict[str, Any] = {"save_on_error": False} if way == "save_on_error" else {}
    if way == "never":
        options["save"] = "never"
    with (
        suppress(ZeroDivisionError),
        face.visit("a", verify=lambda _: calls.append("verify") or True, **options) as session,
    ):
        session.bind_capture(lambda: calls.append("capture") or {"cookies": [], "origins": []})
        if way == "discard":
            session.discard()
        elif way == "bad":
            session.mark_bad()
        elif way == "save_on_error":
            raise ZeroDivisionError
    assert "verify" not in calls
    assert way == "bad" or not calls
    assert session.save_outcome is SaveOutcome.SKIPPED


def test_an_error_of_the_body_comes_out(face: Face) -> None:
    """The body's exception is the one that is seen. The work is saved, unless told not to."""
    with pytest.raises(ZeroDivisionError), face.visit("a") as session:
        session.data["n"] = 1
        raise ZeroDivisionError
    assert session.save_outcome is SaveOutcome.SAVED
    with pytest.raises(ZeroDivisionError), face.visit("a", save_on_error=False) as session:
        session.data["n"] = 2
        raise ZeroDivisionError
    assert session.save_outcome is SaveOutcome.SKIPPED
    assert face.manager("restore", "a").data == {"n": 1}


def test_exclusive_invalidate_and_discard(face: Face) -> None:
    """Leases keep others out, an invalidated session stays dead, a discarded one is not saved."""
    with face.visit("a", exclusive=True) as session:
        session.data["n"] = 1
        with pytest.raises(SessionBusyError), face.visit("a", exclusive=True, on_busy="raise"):
            pass
    with face.visit("a") as late:
        with face.visit("a") as session:
            face.run(session.invalidate("stolen"))
        late.data["n"] = 2
    assert late.save_outcome is SaveOutcome.STALE
    with face.visit("a") as session:
        assert session.outcome is Outcome.MISSING
        session.data["n"] = 3
        session.discard()
    assert session.save_outcome is SaveOutcome.SKIPPED
    assert face.manager("evict", "a") is False


def test_misuse_is_told(face: Face) -> None:
    """Wrong names and wrong values get their error in both."""
    with pytest.raises(InvalidFingerprintError), face.visit(""):
        pass
    with pytest.raises(InvalidStateError), face.visit("a") as session:
        session.data["x"] = object()
    assert session.save_outcome is SaveOutcome.SKIPPED


@pytest.mark.parametrize("kind", [AsyncFace, BlockingFace])
def test_a_dead_store_is_an_outcome(kind: type[Face]) -> None:
    """Nothing listens: the body runs with a fresh session, the save waits, strict callers hear of it."""
    face = kind("redis://127.0.0.1:1", close_timeout=0.1)
    with face.visit("a") as session:
        assert session.outcome is Outcome.UNAVAILABLE
        assert session.degraded
        session.data["n"] = 1
    assert session.save_outcome is SaveOutcome.PENDING
    with face.visit("a") as session:
        assert session.reused
        assert session.data == {"n": 1}
    face.close()
    face = kind("redis://127.0.0.1:1", close_timeout=0.1)  # a new one: its breaker is closed
    with pytest.raises(StoreUnavailableError), face.visit("b", strict=True):
        pass
    face.close()


@pytest.mark.parametrize("kind", [AsyncFace, BlockingFace])
@pytest.mark.parametrize("by", ["call", "manager", "environment"])
def test_strict_agents_hear_of_trouble_whoever_asks_for_it(
    kind: type[Face], by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the enter and at the exit. A save that is refused waits all the same."""
    if by == "environment":
        monkeypatch.setenv("SESSION_REUSE_STRICT", "1")
    options = {"strict": True} if by == "call" else {}
    with RedisServer() as server:
        face = kind(server.url, close_timeout=0.1, **({"strict": True} if by == "manager" else {}))
        with pytest.raises(StoreUnavailableError), face.visit("a", **options) as session:
            session.data["n"] = 1
            server.kill()
        assert session.save_outcome is SaveOutcome.PENDING
        with pytest.raises(StoreUnavailableError), face.visit("b", **options):
            pytest.fail("it was entered")
        face.close()


@pytest.mark.parametrize("kind", [AsyncFace, BlockingFace])
def test_a_call_that_is_not_strict_hears_of_no_trouble(kind: type[Face]) -> None:
    """What the call says counts more than the setting."""
    face = kind("redis://127.0.0.1:1/0", close_timeout=0.1, strict=True)
    with face.visit("a", strict=False) as session:
        assert session.outcome is Outcome.UNAVAILABLE
        session.discard()
    face.close()


def test_a_mark_after_the_end_is_refused(face: Face) -> None:
    """The state is stored already, and the pool has the member back: a mark would be lost without a word."""
    with face.visit("a") as session:
        session.mark_good()
        session.data["n"] = 1
    for mark in (session.mark_good, session.mark_bad):
        with pytest.raises(LifecycleError, match="was left before"):
            mark()


def test_the_blocking_manager_has_what_the_asynchronous_one_has(redis_server: RedisServer) -> None:
    """All its public members, under the same names but `close`."""
    names = {name for name in dir(SessionManager) if not name.startswith("_")} - {"aclose", "session_class"}
    assert names <= set(dir(blocking.SessionManager))
    with blocking.SessionManager(redis_server.url, registry=None) as manager:
        assert manager.config.url == redis_server.url
        assert manager.cleanup_once().expired == 0
        assert not manager.closed
    assert manager.closed


def test_blocking_inside_a_coroutine_is_refused() -> None:
    """Blocking a running event loop would freeze everything on it: the message names the other face."""

    async def main() -> None:
        blocking.reusable_session("a").__enter__()

    import asyncio

    with pytest.raises(LifecycleError, match=r"session_reuse\.blocking"):
        asyncio.run(main())


def test_entering_a_blocking_session_twice_is_refused(redis_server: RedisServer) -> None:
    """One object is one visit."""
    with blocking.SessionManager(redis_server.url, registry=None) as manager:
        visit = blocking.reusable_session("a", manager=manager)
        with visit:
            pass
        with pytest.raises(AlreadyEnteredError):
            visit.__enter__()
        assert [summary.fingerprint for summary in manager.sessions()] == ["a"]
        assert manager.stats().entered == {"missing": 1}


def test_plain_functions_are_decorated_too(redis_server: RedisServer) -> None:
    """`persist_session` on a plain function, from many threads at once."""
    with blocking.SessionManager(redis_server.url, registry=None) as manager:

        @persist_session("shop/{account}", "{account}", manager=manager)
        def work(account: str, *, session: blocking.BrowserSession | None = None) -> bool:
            assert session is not None
            session.data["by"] = account
            return session.reused

        results: list[bool] = []
        for _ in range(2):
            threads = [threading.Thread(target=lambda n=n: results.append(work(f"t{n}"))) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(results) == [False] * 8 + [True] * 8


SCRIPT = """
import sys
from session_reuse.blocking import reusable_session
with reusable_session("a", "b") as session:
    session.data["n"] = session.data.get("n", 0) + 1
    if "interrupt" in sys.argv:
        raise KeyboardInterrupt
print(session.outcome, session.data["n"], session.save_outcome)
"""


def test_a_script_ends_by_itself(redis_server: RedisServer) -> None:
    """The background loop never keeps a process alive, and closes what it opened."""
    environment = {"SESSION_REUSE_URL": redis_server.url, "PYTHONPATH": ".", "PATH": "", **PATIENT_BUDGETS}
    outputs = []
    for arguments in ([], ["interrupt"], []):
        run = subprocess.run(
            [sys.executable, "-X", "dev", "-c", SCRIPT, *arguments],
            env=environment, capture_output=True, text=True, timeout=140, check=False,
        )  # fmt: skip
        outputs.append(run.stdout.strip())
        assert "Warning" not in run.stderr
    assert outputs == ["missing 1 saved", "", "reused 3 saved"]


async def test_a_manager_that_is_closed_while_it_starts_leaves_nothing_open(tmp_path: Path) -> None:
    """The enters are refused, its gauges are gone, and another manager delivers what waits in `spool_dir`."""
    is_asked, may_answer, registry = threading.Event(), threading.Event(), CollectorRegistry()
    calls: list[str] = []

    def keys() -> list[bytes]:
        calls.append("keys")
        is_asked.set()
        may_answer.wait(60)
        return [bytes(32)]

    manager = SessionManager(MemoryStore(), encryption_keys=keys, registry=registry, spool_dir=tmp_path)
    entering = [asyncio.create_task(reusable_session("a", manager=manager).__aenter__()) for _ in range(2)]
    await asyncio.to_thread(is_asked.wait, 60)
    await manager.aclose()
    may_answer.set()
    errors = await asyncio.gather(*entering, return_exceptions=True)
    assert [type(error) for error in errors] == [ManagerClosedError] * 2
    assert calls == ["keys"]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("session_reuse:")]
    closed = {"breaker": "read", "state": "closed"}
    assert registry.get_sample_value("session_breaker_state", closed) == 0
