"""A store that cannot be used is said once, with where, why and what to do. Its recovery is said once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from session_reuse import Outcome, SessionManager, reusable_session
from session_reuse._telemetry import Event, Operation, StoreHealth, Telemetry
from session_reuse._telemetry.store_health import QUIET
from session_reuse.errors import StoreAuthError, StoreError, StoreUnavailableError
from session_reuse.testing import FaultyStore, MemoryStore, memory_manager
from tests.harness.polling import until

if TYPE_CHECKING:
    from session_reuse.pytest_plugin import LoggedEvent
    from tests.harness.servers import RedisServer

AGENTS = """
import asyncio
{configure}
from session_reuse import reusable_session
async def agent(name):
    async with reusable_session(name, "agent") as session:
        {body}
    return session.outcome.value
for number in range(4):
    outcome = asyncio.run(agent(f"shop/{{number}}"))
print(outcome)
"""
DEAD = "redis://user:hunter2@127.0.0.1:1/0"


def run(url: str, *, configure: str = "", body: str = "session.discard()") -> tuple[str, list[str]]:
    """Run four agents, each in its own event loop. Return the last outcome, and the lines on standard error."""
    finished = subprocess.run(
        [sys.executable, "-c", AGENTS.format(configure=configure, body=body)], capture_output=True, text=True,
        timeout=140, check=True, env={**os.environ, "SESSION_REUSE_URL": url, "SESSION_REUSE_CLOSE_TIMEOUT": "0.1"},
    )  # fmt: skip
    return finished.stdout.strip(), finished.stderr.splitlines()


def test_a_dead_store_is_said_once_without_any_logging() -> None:
    """A wrong URL must not look like a program that logs in afresh forever for no reason."""
    outcome, lines = run(DEAD)
    assert outcome == "unavailable"
    (line,) = lines
    for part in ("redis://***@127.0.0.1:1/0", "Connection refused", "session-reuse doctor"):
        assert part in line
    assert "hunter2" not in line


def test_a_wrong_password_is_said_once_without_any_logging(own_redis: RedisServer) -> None:
    """The commonest slip of all has its own line that names it."""
    with own_redis.client() as client:
        client.config_set("requirepass", "right")
    outcome, lines = run(own_redis.url)
    assert outcome == "auth"
    (line,) = [line for line in lines if "session_reuse.auth_failed" in line]
    assert "the store rejects the user or the password" in line


async def test_refused_credentials_stay_the_reason_while_the_breaker_is_open(own_redis: RedisServer) -> None:
    """`circuit_open` would lead to the troubleshooting of a slow store."""
    with own_redis.client() as client:
        client.config_set("requirepass", "right")
    async with SessionManager(own_redis.url, registry=None, close_timeout=0.1) as manager:
        for _ in range(4):
            async with reusable_session("shop", manager=manager) as session:
                session.discard()
            assert session.outcome is Outcome.AUTH
        with pytest.raises(StoreAuthError, match="rejects the user or the password"):
            async with reusable_session("shop", manager=manager, strict=True):
                pass


def test_work_that_is_lost_at_exit_is_said() -> None:
    """Each save that could not be kept is an error on standard error."""
    _, lines = run(DEAD, body="session.data['n'] = 1")
    assert len([line for line in lines if "session_reuse.save_lost" in line and "shop/" in line]) == 4
    assert len([line for line in lines if "session_reuse.store_unavailable" in line]) == 1


@pytest.mark.parametrize(
    "configure",
    [
        "import logging; logging.getLogger('session_reuse').addHandler(logging.NullHandler())",
        "import logging, sys; logging.basicConfig(stream=sys.stdout, format='')",
    ],
    ids=["silenced", "configured"],
)
def test_an_application_with_logging_has_nothing_on_standard_error(configure: str) -> None:
    """The lines go where the application sends them, and nowhere else."""
    assert run(DEAD, configure=configure)[1] == []


async def test_an_outage_is_one_warning_and_its_end_another(session_reuse_events: list[LoggedEvent]) -> None:
    """What single agents met is at DEBUG: an outage is one fact, however many meet it."""
    store = FaultyStore(MemoryStore(), fail="unavailable")
    async with memory_manager(store) as manager:
        for number in range(8):
            async with reusable_session(f"shop/{number}", "agent", manager=manager) as session:
                session.data["n"] = 1
        store.heal()
        await until(lambda: not manager.stats().pending)

        async def works() -> bool:
            async with reusable_session("shop/1", manager=manager) as session:
                session.discard()
            return not session.degraded

        await until(works)
    loud = [event for event in session_reuse_events if event.level >= logging.WARNING]
    names = [event.event for event in loud]
    assert names.count(Event.STORE_UNAVAILABLE) == 1
    assert names == [Event.STORE_UNAVAILABLE, Event.STORE_AVAILABLE]
    assert all(event.fields["store"] == "FaultyStore" for event in loud)
    assert "doctor" not in loud[0].fields["note"]  # which has no way to this store
    assert Event.BREAKER_CHANGED in [event.event for event in session_reuse_events if event.level == logging.INFO]


async def test_errors_of_operators_calls_name_the_store_and_the_remedy() -> None:
    """Whoever gets one has no outcome and no log line beside it."""
    async with SessionManager(DEAD, registry=None, close_timeout=0.1) as manager:
        pool = manager.pool("shop")

        async def listed() -> None:
            async for _ in manager.sessions():
                pass

        async def history() -> None:
            async for _ in manager.history():
                pass

        for call in (
            lambda: manager.evict("a"), listed, history, manager.cleanup_once, pool.members, lambda: pool.add("a"),
            lambda: manager.keep_alive(lambda _: True, once=True),
        ):  # fmt: skip
            with pytest.raises(StoreError) as raised:
                await call()
            told = str(raised.value)
            assert told.startswith("redis://***@127.0.0.1:1/0: ")
            assert told.endswith("To find the cause, run: session-reuse doctor --url 'redis://***@127.0.0.1:1/0'")
            assert "reads are" not in told


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at 1000 s."""
    return Clock()


@pytest.fixture
def health(clock: Clock) -> StoreHealth:
    """What we know of a store that was healthy up to now."""
    return StoreHealth("redis://shop:6379/0", clock)


def loud(events: list[LoggedEvent]) -> list[str]:
    """Return the events that are warnings or worse."""
    return [event.event for event in events if event.level >= logging.WARNING]


REFUSED = StoreUnavailableError("the store cannot be reached")


def test_writes_that_fail_alone_are_not_ended_by_reads_that_work(
    health: StoreHealth, session_reuse_events: list[LoggedEvent]
) -> None:
    """A full disk: each enter succeeds and each save fails, which is one outage and no flapping."""
    for _ in range(3):
        health.worked("read")
        health.failed("write", REFUSED, "ConnectionError", "save")
    assert loud(session_reuse_events) == [Event.STORE_UNAVAILABLE]
    assert "Saves wait in memory" in session_reuse_events[0].fields["note"]
    health.worked("write")
    assert loud(session_reuse_events) == [Event.STORE_UNAVAILABLE, Event.STORE_AVAILABLE]


def test_a_flaky_store_is_said_once_a_minute_at_most(
    health: StoreHealth, clock: Clock, session_reuse_events: list[LoggedEvent]
) -> None:
    """One time-out an hour is worth a line each. One in ten of all calls is not."""
    for _ in range(100):
        health.failed("read", REFUSED, "ConnectionError", "restore")
        health.worked("read")
        clock.now += 0.1
    assert loud(session_reuse_events) == [Event.STORE_UNAVAILABLE, Event.STORE_AVAILABLE]
    clock.now += QUIET
    health.failed("read", REFUSED, "ConnectionError", "restore")
    assert loud(session_reuse_events)[2:] == [Event.STORE_UNAVAILABLE]


def test_an_outage_soon_after_a_recovery_is_said_with_its_end(
    health: StoreHealth, clock: Clock, session_reuse_events: list[LoggedEvent]
) -> None:
    """The quiet minute holds back single failures, not a second outage."""
    health.failed("read", REFUSED, "ConnectionError", "restore")
    health.worked("read")
    session_reuse_events.clear()
    clock.now += 1
    health.failed("read", REFUSED, "ConnectionError", "restore")
    assert loud(session_reuse_events) == []
    for old, new in (("closed", "open"), ("open", "half_open"), ("half_open", "open")):
        health.breaker_changed("", "read", old, new)
        health.breaker_changed("", "write", old, new)
    assert loud(session_reuse_events) == []
    health.failed("read", REFUSED, "CircuitOpenError", "restore")
    health.worked("read")
    assert loud(session_reuse_events) == [Event.STORE_UNAVAILABLE, Event.STORE_AVAILABLE]


@pytest.mark.parametrize(
    ("store", "environment", "remedy"),
    [
        ("redis://shop:6379/0", None, "session-reuse doctor --url redis://shop:6379/0"),
        ("redis://***@shop:6379/0", None, "session-reuse doctor --url 'redis://***@shop:6379/0'"),
        ("redis://***@shop:6379/0", "redis://me:secret@shop:6379/0", "session-reuse doctor"),
        ("embedded://", None, "session-reuse doctor"),
        ("embedded://", "redis://shop", "session-reuse doctor --url embedded://"),
        ("Redis shop:6379", None, None),
    ],
)
def test_the_remedy_leads_to_the_store_that_failed(
    monkeypatch: pytest.MonkeyPatch, session_reuse_events: list[LoggedEvent],
    store: str, environment: str | None, remedy: str | None,
) -> None:  # fmt: skip
    """The doctor would check the store of the environment, and call it healthy."""
    monkeypatch.delenv("SESSION_REUSE_URL", raising=False)
    if environment is not None:
        monkeypatch.setenv("SESSION_REUSE_URL", environment)
    StoreHealth(store).failed("read", REFUSED, "ConnectionError", "restore")
    note = session_reuse_events[0].fields["note"]
    assert note.endswith(f"To find the cause, run: {remedy}" if remedy else "else empty, meanwhile")


def test_a_cleanup_that_goes_on_failing_is_repeated_rarely(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, session_reuse_events: list[LoggedEvent]
) -> None:
    """At once, then once in ten minutes. After a success, at once again."""
    monkeypatch.setattr("session_reuse._telemetry.telemetry.monotonic", clock)
    telemetry = Telemetry()
    for _ in range(1000):
        telemetry.cleanup_failed("reconcile", "ConnectionError")
        clock.now += 1
    assert loud(session_reuse_events) == [Event.CLEANUP_FAILED] * 2
    telemetry.cleanup_worked("reconcile")
    telemetry.cleanup_failed("reconcile", "ConnectionError")
    assert loud(session_reuse_events) == [Event.CLEANUP_FAILED] * 3


async def test_an_invalidation_ends_the_outage_that_another_has_met(session_reuse_events: list[LoggedEvent]) -> None:
    """A process that only evicts, such as a page for operators, never told the end."""
    way = FaultyStore(MemoryStore(), fail="unavailable")
    async with memory_manager(way) as manager:
        with pytest.raises(StoreUnavailableError):
            await manager.evict("shop/alice")
        way.heal()
        await manager.evict("shop/alice")
    assert loud(session_reuse_events) == [Event.STORE_UNAVAILABLE, Event.STORE_AVAILABLE]


def test_an_operation_is_logged_by_its_word(caplog: pytest.LogCaptureFixture) -> None:
    """A line for people showed `operation=<Operation.SAVE: 'save'>`."""
    with caplog.at_level(logging.DEBUG, "session_reuse"):
        Telemetry().degraded(Operation.SAVE, REFUSED)
    assert "operation='save'" in caplog.text
    assert "<Operation" not in caplog.text


def test_refused_credentials_are_an_error(health: StoreHealth, session_reuse_events: list[LoggedEvent]) -> None:
    """They do not heal by themselves."""
    health.failed("read", StoreAuthError("the store rejects the user or the password"), "WRONGPASS", "restore")
    (event,) = session_reuse_events
    assert (event.event, event.level) == (Event.AUTH_FAILED, logging.ERROR)


def test_a_password_that_is_refused_during_an_outage_is_said(
    health: StoreHealth, session_reuse_events: list[LoggedEvent]
) -> None:
    """Waiting would have mended the outage. One key without rights among others is not repeated."""
    refused = StoreAuthError("the store rejects the user or the password")
    for error, code in ((REFUSED, "ConnectionError"), (refused, "WRONGPASS"), (REFUSED, "ConnectionError")):
        for _ in range(3):
            health.failed("read", error, code, "restore")
    assert loud(session_reuse_events) == [Event.STORE_UNAVAILABLE, Event.AUTH_FAILED]
    for _ in range(100):
        health.worked("read")
        health.failed("read", refused, "NOPERM", "restore")
    assert loud(session_reuse_events)[2:] == [Event.STORE_AVAILABLE]
