"""`manager.keep_alive`: stored logins are probed, each by one process at a time, and saved after a good verdict only."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fakeredis import FakeRedis
from prometheus_client import CollectorRegistry

from session_reuse import (
    BrowserSession,
    ConfigurationError,
    Liveness,
    MissingExtraError,
    SessionManager,
    SessionSummary,
    StoreAuthError,
    StoreError,
    blocking,
    reusable_session,
)
from session_reuse._resilience.failure import AttemptFailed, FailureScope, Retry
from session_reuse._store.interface import SessionEntry
from session_reuse._telemetry import Event
from session_reuse.browsers.cdp import page_shows
from session_reuse.browsers.checks import selector_present, text_present
from session_reuse.browsers.probes import cdp_probe, http_probe, page_of, playwright_probe
from session_reuse.pytest_plugin import LoggedEvent
from session_reuse.testing import Fault, FaultyStore, MemoryStore, memory_manager, state_with_cookie
from tests.cli.conftest import CommandLine
from tests.harness.pages import PageHandler, serving
from tests.harness.polling import until
from tests.harness.probes import parts_of
from tests.harness.servers import RedisServer, free_port

NAME = "shop.example/alice"


async def log_in(manager: SessionManager, *names: str, **cookie: Any) -> None:
    """Store a login under each name."""
    for name in names or (NAME,):
        async with reusable_session(name, manager=manager) as session:
            session.storage_state = state_with_cookie(**cookie)


async def summary(manager: SessionManager, name: str = NAME) -> SessionSummary:
    """Return what we know of a login."""
    (found,) = [each async for each in manager.sessions() if each.fingerprint == name]
    return found


def renewing(verdict: Any) -> Any:
    """Return a probe that sees a renewed cookie and comes to a verdict, or raises it."""

    async def probe(session: BrowserSession) -> Any:
        session.storage_state["cookies"][0]["value"] = "renewed"
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    return probe


@pytest.mark.parametrize(
    ("verdict", "liveness", "stored"),
    [
        (True, Liveness.LIVE, "renewed"),
        (False, Liveness.DEAD, "test"),
        (None, Liveness.UNKNOWN, "test"),
        (OSError("the site is away"), Liveness.UNKNOWN, "test"),
    ],
)
async def test_a_verdict_is_kept_and_only_a_good_one_is_saved(verdict: Any, liveness: Liveness, stored: str) -> None:
    """The listing shows the verdict with its time. The counts and the metric too."""
    registry, changes = CollectorRegistry(), []
    async with memory_manager(MemoryStore(), registry=registry) as manager:
        await log_in(manager)
        counts = await manager.keep_alive(
            renewing(verdict), on_change=lambda *change: changes.append(change), once=True
        )
        found = await summary(manager)
        session = await manager.restore(NAME)
    assert (counts[liveness], found.liveness) == (1, liveness)
    assert found.checked_at is not None
    assert time.time() - 60 < found.checked_at < time.time() + 5
    assert session is not None
    assert session.storage_state["cookies"][0]["value"] == stored
    assert registry.get_sample_value("session_probes_total", {"verdict": liveness.value}) == 1
    assert changes == ([] if liveness is Liveness.UNKNOWN else [(NAME, Liveness.UNKNOWN, liveness)])


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_so_many_probes_run_at_once_and_no_more(concurrency: int) -> None:
    """Each may be a browser."""
    running, most = 0, 0

    async def probe(_session: BrowserSession) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return True

    async with memory_manager() as manager:
        await log_in(manager, *(f"shop.example/{number}" for number in range(9)))
        counts = await manager.keep_alive(probe, concurrency=concurrency, once=True)
    assert (counts[Liveness.LIVE], most) == (9, concurrency)


async def test_a_probe_that_hangs_is_given_up() -> None:
    """An async one is cancelled, a plain one is left to its thread. Neither holds up the others."""
    gate = threading.Event()

    async def hanging(_session: BrowserSession) -> bool:
        await asyncio.Event().wait()
        return True

    def hanging_thread(_session: BrowserSession) -> bool:
        gate.wait()
        return True

    async with memory_manager() as manager:
        await log_in(manager)
        for probe in (hanging, hanging_thread):
            counts = await manager.keep_alive(probe, probe_timeout=0.05, every=1e-6, once=True)
            assert counts == {Liveness.UNKNOWN: 1}
    gate.set()


class OutOfTime(BaseException):
    """As the time-outs of gevent and func_timeout, which no `except Exception` catches."""


@pytest.mark.parametrize("error", [StopIteration, SystemExit, asyncio.CancelledError, OutOfTime])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_probe_that_raises_anything_has_found_out_nothing(error: type[BaseException], is_async: bool) -> None:
    """At once: the session is not held until `probe_timeout`. The verdict is counted and kept."""

    def plain(_session: BrowserSession) -> bool:
        raise error

    async def asynchronous(_session: BrowserSession) -> bool:
        raise error

    async with memory_manager() as manager:
        await log_in(manager)
        probe = asynchronous if is_async else plain
        async with asyncio.timeout(60):
            assert await manager.keep_alive(probe, probe_timeout=600, once=True) == {Liveness.UNKNOWN: 1}
        assert (await summary(manager)).checked_at is not None


async def test_what_a_good_probe_has_renewed_is_saved_without_its_verdict() -> None:
    """A store that refuses the verdict costs no rotated token."""
    store = FaultyStore(MemoryStore(), only={"note_liveness"})
    async with memory_manager(store, save_timeout=2.0, attempt_timeout=0.5) as manager:  # the verdict is tried again
        await log_in(manager)
        store.fail = Fault.AUTH
        assert await manager.keep_alive(renewing(verdict=True), once=True) == {Liveness.LIVE: 1}
        session = await manager.restore(NAME)
    assert session is not None
    assert session.storage_state["cookies"][0]["value"] == "renewed"


async def test_a_session_that_cannot_be_read_does_not_end_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are probed: `before_expiry` reads each of them."""
    store, refused = MemoryStore(), []

    async def refuse(fingerprint: str, *, timeout: float) -> None:
        refused.append(fingerprint)
        raise AttemptFailed(StoreAuthError("no right"), "NOPERM", Retry.NEVER, FailureScope.REQUEST)

    async with memory_manager(store) as manager:
        await log_in(manager, "a/1", "a/2", "a/3")
        await manager.keep_alive(renewing(verdict=True), once=True)
        monkeypatch.setattr(store, "read", refuse)
        assert await manager.keep_alive(renewing(verdict=True), before_expiry=1e-6, once=True) == {}
    assert sorted(refused) == ["a/1", "a/2", "a/3"]


async def test_what_a_good_probe_has_renewed_is_saved_where_the_keeper_is_cancelled_then() -> None:
    """The verdict counts, not what comes after it. A rotated token would be used up, and its successor gone."""
    called = asyncio.Event()

    async def on_change(*_: object) -> None:
        called.set()
        await asyncio.Event().wait()

    async with memory_manager() as manager:
        await log_in(manager)
        job = asyncio.create_task(manager.keep_alive(renewing(verdict=True), on_change=on_change))
        await called.wait()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        session = await manager.restore(NAME)
    assert session is not None
    assert session.storage_state["cookies"][0]["value"] == "renewed"


async def test_closing_the_manager_ends_the_keeper() -> None:
    """Its probe too, whose session is left, and whose lease is released. It went on, with a manager that was closed."""
    began, store = asyncio.Event(), MemoryStore()

    async def probe(_session: BrowserSession) -> bool:
        began.set()
        await asyncio.Event().wait()
        return True

    async with memory_manager(store) as other:
        await log_in(other)
        manager = memory_manager(store)
        job = asyncio.create_task(manager.keep_alive(probe))
        await began.wait()
        await manager.aclose()
        async with asyncio.timeout(5):
            assert await job == {}
        async with reusable_session(NAME, manager=other, exclusive=True) as session:
            assert session.reused


async def test_a_login_does_not_end_between_two_rounds() -> None:
    """Rounds are as close as `before_expiry` needs them, however long `every` is."""
    probes = []

    async def probe(session: BrowserSession) -> bool:
        probes.append(session)
        return True

    async with memory_manager(ttl=3.0) as manager:
        await log_in(manager)
        job = asyncio.create_task(manager.keep_alive(probe, every=3600.0, before_expiry=2.5))
        async with asyncio.timeout(10):
            while len(probes) < 2:
                await asyncio.sleep(0.01)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        assert await manager.restore(NAME) is not None


async def test_an_asynchronous_on_change_is_awaited() -> None:
    """One that raises costs nothing."""
    changes = []

    async def changed(*change: Any) -> None:
        changes.append(change)
        raise OSError

    async with memory_manager() as manager:
        await log_in(manager)
        assert await manager.keep_alive(renewing(verdict=True), on_change=changed, once=True) == {Liveness.LIVE: 1}
    assert changes == [(NAME, Liveness.UNKNOWN, Liveness.LIVE)]


async def test_a_server_whose_clock_is_behind_does_not_stop_the_probes(redis_server: RedisServer) -> None:
    """After a fail-over the last probe may lie hours in the future."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await log_in(manager)
        assert await manager.keep_alive(renewing(verdict=True), once=True) == {Liveness.LIVE: 1}
        client, key = redis_server.client(), f"browser:liveness:{{browser:session:{NAME}}}"
        at, _, rest = client.get(key).decode().partition(" ")
        client.set(key, f"{int(at) + 36_000_000_000:020} {rest}")
        assert await manager.keep_alive(renewing(verdict=True), once=True) == {Liveness.LIVE: 1}
        assert await manager.keep_alive(renewing(verdict=True), once=True) == {}


async def test_plain_probes_run_beside_the_event_loop() -> None:
    """A probe that waits does not hold up the loop."""
    here, threads = threading.current_thread(), []

    def plain(_session: BrowserSession) -> bool:
        threads.append(threading.current_thread())
        return True

    async with memory_manager() as manager:
        await log_in(manager)
        assert await manager.keep_alive(plain, once=True) == {Liveness.LIVE: 1}
    assert here not in threads


async def test_a_login_is_probed_once_in_its_time() -> None:
    """By however many processes. Only what matches, is ours, and is not in exclusive use."""
    store, probed = MemoryStore(), []

    async def probe(session: BrowserSession) -> bool:
        probed.append(session.fingerprint)
        await asyncio.sleep(0.02)
        return True

    async with memory_manager(store) as one, memory_manager(store) as two, memory_manager(store) as three:
        await log_in(one, "a/1", "a/2", "a/3", "b/1")
        store.put("a/damaged", b"junk")
        async with reusable_session("a/3", manager=one, exclusive=True):
            await asyncio.gather(*(each.keep_alive(probe, "a/*", once=True) for each in (one, two, three)))
        assert sorted(probed) == ["a/1", "a/2"]
        await two.keep_alive(probe, "a/*", once=True)
        assert sorted(probed) == ["a/1", "a/2", "a/3"]
        await asyncio.sleep(0.01)
        assert await three.keep_alive(probe, "b/*", every=1e-3, once=True) == {Liveness.LIVE: 1}


@pytest.mark.parametrize("life", [100, 10_000])
async def test_a_login_that_ends_soon_is_probed_sooner(life: int) -> None:
    """By its cookies or its time to live. Not more often than a tenth of that time."""
    store = MemoryStore()
    async with memory_manager(store, ttl=3000.0 if life > 1000 else 86400.0) as manager:
        await log_in(manager, expires=int(time.time()) + life)
        assert await manager.keep_alive(renewing(verdict=True), once=True) == {Liveness.LIVE: 1}
        assert await manager.keep_alive(renewing(verdict=True), once=True) == {}
        assert await manager.keep_alive(renewing(verdict=True), before_expiry=3600, once=True) == {}
        note = f"{round((time.time() - 1000) * 1e6):020d} {await created_at(manager)} live"
        FakeRedis(server=store.server).set(f"browser:liveness:{{browser:session:{NAME}}}", note)
        assert await manager.keep_alive(renewing(verdict=True), before_expiry=3600, once=True) == {Liveness.LIVE: 1}


async def created_at(manager: SessionManager) -> int:
    """Return the login's time of creation."""
    return round(((await summary(manager)).created_at or 0) * 1000)


async def test_a_dead_login_is_not_kept_by_its_probes(redis_server: RedisServer) -> None:
    """Only a live one has its time to live started again."""
    async with SessionManager(redis_server.url, registry=None) as manager:
        await log_in(manager)
        with redis_server.client() as client:
            client.pexpire(f"browser:session:{NAME}", 500_000)
            await manager.keep_alive(renewing(verdict=False), once=True)
            assert client.pttl(f"browser:session:{NAME}") <= 500_000
            await manager.keep_alive(renewing(verdict=True), every=1e-6, once=True)
            assert client.pttl(f"browser:session:{NAME}") > 500_000


async def test_the_clock_of_the_keeper_does_not_matter(redis_server: RedisServer) -> None:
    """A host that is days off probes neither forever nor never."""
    for off in (-200_000.0, 200_000.0):
        async with SessionManager(redis_server.url, registry=None) as manager:
            await log_in(manager, f"clock/{off}")
            (await parts_of(manager)).clock.wall = lambda off=off: time.time() + off
            assert await manager.keep_alive(renewing(verdict=True), f"clock/{off}", once=True) == {Liveness.LIVE: 1}
            assert await manager.keep_alive(renewing(verdict=True), f"clock/{off}", once=True) == {}


async def test_trouble_of_the_store_ends_one_round_not_the_job() -> None:
    """Once: it raises. In the background: it goes on when the store is back."""
    way = FaultyStore(MemoryStore())
    async with memory_manager(way) as manager:
        await log_in(manager)
        way.fail = Fault.UNAVAILABLE
        with pytest.raises(StoreError):
            await manager.keep_alive(renewing(verdict=True), once=True)
        job = asyncio.create_task(manager.keep_alive(renewing(verdict=True), every=0.1))
        calls = len(way.calls)
        async with asyncio.timeout(60):
            while len(way.calls) < calls + 2:
                await asyncio.sleep(0.01)
            way.heal()
            while (await summary(manager)).liveness is not Liveness.LIVE:
                await asyncio.sleep(0.01)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


async def test_an_error_of_any_kind_ends_one_round_not_the_job(
    monkeypatch: pytest.MonkeyPatch, session_reuse_events: list[LoggedEvent]
) -> None:
    """Logged once for each kind. The next round tries again."""
    store, rounds = MemoryStore(), 0

    async def listing(*, timeout: float) -> AsyncIterator[SessionEntry]:
        nonlocal rounds
        rounds += 1
        raise (UnicodeError, KeyError)[rounds % 2]("no reply of Redis")
        yield

    async with memory_manager(store) as manager:
        await log_in(manager)
        with monkeypatch.context() as patch:
            patch.setattr(store, "sessions", listing, raising=False)
            job = asyncio.create_task(manager.keep_alive(renewing(verdict=True), every=0.1))
            await until(lambda: rounds > 4, message="the rounds go on")
        async with asyncio.timeout(60):
            while (await summary(manager)).liveness is not Liveness.LIVE:
                await asyncio.sleep(0.01)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    loud = [event for event in session_reuse_events if event.level >= logging.WARNING]
    assert {event.event for event in loud} == {Event.CLEANUP_FAILED}
    assert sorted(str(event.fields["error"]) for event in loud) == ["KeyError", "UnicodeError"]


async def test_the_end_of_an_outage_is_said_where_no_login_is_due(session_reuse_events: list[LoggedEvent]) -> None:
    """A keeper that has nothing to do never told it, and so it was silent about the next outage."""
    way = FaultyStore(MemoryStore(), fail=Fault.UNAVAILABLE)
    async with memory_manager(way) as manager:
        job = asyncio.create_task(manager.keep_alive(renewing(verdict=True), every=0.1))
        await until(lambda: len(way.calls) > 1)
        way.heal()
        await until(lambda: Event.STORE_AVAILABLE in [event.event for event in session_reuse_events])
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    assert [event.event for event in session_reuse_events if event.level >= logging.WARNING] == [
        Event.STORE_UNAVAILABLE, Event.STORE_AVAILABLE,
    ]  # fmt: skip


async def test_a_probe_is_no_enter_of_an_agent() -> None:
    """Each counted as a reuse, or as a miss where another keeper was faster, which hid the rate of the agents."""
    memory = MemoryStore()
    async with memory_manager(memory) as one, memory_manager(memory) as other:
        await log_in(one, "a/1", "a/2", "a/3")
        entered = one.stats().entered

        async def slow(_session: BrowserSession) -> bool:
            await asyncio.sleep(0.05)
            return True

        counts = await asyncio.gather(*(each.keep_alive(slow, once=True) for each in (one, other)))
        assert counts[0] + counts[1] == {Liveness.LIVE: 3}
        assert (one.stats().entered, other.stats().entered) == (entered, {})


@pytest.mark.parametrize("operation", ["enter", "facts"])
async def test_a_login_that_the_store_refuses_is_unknown(operation: str) -> None:
    """A store that is full gives no lease. A round without a verdict looked like one without logins."""
    way = FaultyStore(MemoryStore(), only={operation})
    async with memory_manager(way) as manager:
        await log_in(manager, "a/1", "a/2")
        way.fail = Fault.UNAVAILABLE
        assert await manager.keep_alive(renewing(verdict=True), once=True) == {Liveness.UNKNOWN: 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0}, {"every": "1h"}, {"concurrency": 0}, {"concurrency": 2.5}, {"probe_timeout": -1}, {"before_expiry": 0},
        {"probe": None}, {"relogin": 1}, {"pattern": None},
    ],
)  # fmt: skip
async def test_a_wrong_argument_is_named(wrong: dict[str, Any]) -> None:
    """Before anything is probed."""
    async with memory_manager() as manager:
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            await manager.keep_alive(**{"probe": renewing(verdict=True), **wrong})


async def test_the_times_of_the_keeper_may_be_timedeltas() -> None:
    """As in the settings."""
    times = {"every": timedelta(hours=1), "before_expiry": timedelta(minutes=5), "probe_timeout": timedelta(minutes=1)}
    async with memory_manager() as manager:
        await log_in(manager, "a/1")
        assert await manager.keep_alive(renewing(verdict=True), once=True, **times) == {Liveness.LIVE: 1}


class Site(PageHandler):
    """Greets those with the right cookie. Trouble on request."""

    def respond(self) -> None:
        """Answer."""
        is_in = "sid=test" in self.headers.get("Cookie", "")
        status = 503 if self.path.endswith("/trouble") else 200
        self.answer("<p>Hello Alice</p>" if is_in else "<p>Log in</p>", status=status)


@pytest.fixture
def site() -> Iterator[str]:
    """A site of one page."""
    with serving(Site) as port:
        yield f"http://127.0.0.1:{port}"


async def test_a_page_is_probed_over_http(site: str) -> None:
    """In, out, and trouble of the site, which says nothing about the login."""
    async with memory_manager() as manager:
        await log_in(manager, "in/a", "in/trouble", domain="127.0.0.1")
        await log_in(manager, "in/b", domain="127.0.0.1", value="old")
        await manager.keep_alive(http_probe(f"{site}/{{account}}", text="Hello"), once=True)
        found = {each.fingerprint: each.liveness async for each in manager.sessions()}
    assert found == {"in/a": Liveness.LIVE, "in/b": Liveness.DEAD, "in/trouble": Liveness.UNKNOWN}


def test_a_template_names_parts_of_the_fingerprint() -> None:
    """Site and account."""
    assert (
        page_of("https://{site}/u/{account}?f={fingerprint}", "a.example/b/c")
        == "https://a.example/u/b/c?f=a.example/b/c"
    )


@pytest.mark.parametrize(
    ("url", "text", "remedy"),
    [
        ("shop.example/account", "Sign out", "must begin with http"),
        ("https://{host}/account", "Sign out", "{account}"),
        ("https://{}/account", "Sign out", "{account}"),
        ("https://shop.example/{", "Sign out", "{account}"),
        ("https://shop.example/account", "", "every page has it"),
    ],
)
def test_a_wrong_probe_is_refused_when_it_is_made(url: str, text: str, remedy: str, cli: CommandLine) -> None:
    """An empty text made every login live, and a wrong address made every login unknown, with exit code 0."""
    with pytest.raises(ConfigurationError, match=re.escape(remedy)):
        http_probe(url, text=text)
    answer = cli("keep", "--url", url, "--expect-text", text, "--once")
    assert (answer.code, answer.err.startswith("error:")) == (2, True), "before a store is looked for"


def test_a_probe_without_its_extra_is_refused_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each login would be unknown instead."""
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match="http"):
        http_probe("https://shop.example/account", text="Sign out")


async def test_a_session_that_may_not_be_read_ends_no_round(redis_server: RedisServer) -> None:
    """The others are probed."""
    with redis_server.client() as client:
        patterns = ("~browser:session:b", "~browser:[^s]*")
        client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", *patterns)
        try:
            async with SessionManager(redis_server.url, registry=None) as manager:
                await log_in(manager, "a", "b", "c")
            url = redis_server.url.replace("://", "://limited:pw@")
            async with SessionManager(url, registry=None) as manager:
                found = await manager.keep_alive(renewing(verdict=True), once=True)
            assert found == {Liveness.LIVE: 1, Liveness.UNKNOWN: 2}
        finally:
            client.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_is_probed_by_playwright(site: str, browser: Any) -> None:
    """With the checks that `verify` takes. A page without the text is that of a dead login, other errors prove nothing."""
    checks = {
        "in/a": text_present(site, "Hello Alice", timeout=60),
        "out/a": text_present(site, "Hello Alice", timeout=5),
        "away/a": text_present(f"http://127.0.0.1:{free_port()}", "Hello Alice"),
        "wrong/a": selector_present(site, "a["),
    }
    async with memory_manager() as manager:
        await log_in(manager, *checks, domain="127.0.0.1")
        await log_in(manager, "out/a", domain="127.0.0.1", value="old")
        await manager.keep_alive(playwright_probe(browser, checks.__getitem__), once=True)
        found = {each.fingerprint: each.liveness async for each in manager.sessions()}
    unknown = dict.fromkeys(("away/a", "wrong/a"), Liveness.UNKNOWN)
    assert found == {"in/a": Liveness.LIVE, "out/a": Liveness.DEAD, **unknown}


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_an_error_of_a_page_does_not_replace_a_cancellation(browser: Any) -> None:
    """A probe that is cancelled while its page cannot be closed ends as cancelled."""
    looking = asyncio.Event()

    async def look(page: Any) -> bool:
        page.close = lambda: 1 / 0
        looking.set()
        await asyncio.Event().wait()
        return True

    probe = playwright_probe(browser, lambda _: look)(BrowserSession(NAME))
    task: asyncio.Future[bool] = asyncio.ensure_future(probe)
    async with asyncio.timeout(60):
        await looking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.browser
async def test_a_page_is_probed_by_address(site: str) -> None:
    """In, out, and a site that is away, which says nothing about the login."""
    away = f"http://127.0.0.1:{free_port()}"
    async with memory_manager() as manager:
        await log_in(manager, "in/a", "away/a", domain="127.0.0.1")
        await log_in(manager, "in/b", domain="127.0.0.1", value="old")
        probe = cdp_probe(
            lambda name: page_shows(
                away if name == "away/a" else site, "Hello Alice", timeout=60 if name == "in/a" else 5
            ),
            headless=True,
        )
        await manager.keep_alive(probe, concurrency=1, once=True)
        found = {each.fingerprint: each.liveness async for each in manager.sessions()}
    assert found == {"in/a": Liveness.LIVE, "in/b": Liveness.DEAD, "away/a": Liveness.UNKNOWN}


@pytest.mark.parametrize(
    ("succeeds", "probed", "liveness", "stored"),
    [
        (True, [False, True], Liveness.LIVE, "new login"),
        (True, [False, False], Liveness.DEAD, "test"),
        (False, [False], Liveness.DEAD, "test"),
        (None, [False], Liveness.DEAD, "test"),
        (OSError("no captcha was solved"), [False], Liveness.DEAD, "test"),
    ],
)
async def test_a_dead_login_is_made_again(
    succeeds: Any, probed: list[bool], liveness: Liveness, stored: str, session_reuse_events: list[LoggedEvent]
) -> None:
    """The probe has the last word. What a failed login has left is not saved."""
    verdicts = iter(probed)

    async def probe(_session: BrowserSession) -> bool:
        return next(verdicts)

    async def relogin(session: BrowserSession) -> Any:
        session.storage_state = state_with_cookie(value="new login")
        if isinstance(succeeds, Exception):
            raise succeeds
        return succeeds

    async with memory_manager() as manager:
        await log_in(manager)
        assert await manager.keep_alive(probe, relogin=relogin, once=True) == {liveness: 1}
        session = await manager.restore(NAME)
    failed = [event.fields["callback"] for event in session_reuse_events if event.event == Event.CALLBACK_FAILED]
    assert failed == (["relogin"] if isinstance(succeeds, Exception) else [])
    assert next(verdicts, None) is None
    assert session is not None
    assert session.storage_state["cookies"][0]["value"] == stored


@pytest.mark.parametrize("is_async", [False, True])
def test_blocking_code_keeps_logins_too(redis_server: RedisServer, is_async: bool) -> None:
    """Plain probes get a session of the blocking API. Ready-made ones, which are asynchronous, one of theirs."""
    given = []

    def plain(session: BrowserSession) -> bool:
        given.append(session)
        session.data["seen"] = True
        return True

    async def asynchronous(session: BrowserSession) -> bool:
        return plain(session)

    with blocking.SessionManager(redis_server.url, registry=None) as manager:
        with blocking.reusable_session(NAME, manager=manager) as session:
            session.storage_state = state_with_cookie()
        assert manager.keep_alive(asynchronous if is_async else plain, once=True) == {Liveness.LIVE: 1}
        found = manager.restore(NAME)
    assert isinstance(given[0], blocking.BrowserSession) is not is_async
    assert found is not None
    assert found.data == {"seen": True}


def test_probe_and_relogin_of_blocking_code_are_of_one_kind() -> None:
    """They get one session: the second function had one whose methods it could not call, and the login was lost."""

    def plain(_session: BrowserSession) -> bool:
        return True

    with blocking.SessionManager(MemoryStore(), registry=None) as manager:
        for probe, relogin in ((plain, renewing(verdict=True)), (renewing(verdict=True), plain)):
            with pytest.raises(ConfigurationError, match="both plain functions, or both `async def`"):
                manager.keep_alive(probe, relogin=relogin, once=True)


def test_on_change_of_blocking_code_may_use_its_manager(redis_server: RedisServer) -> None:
    """It was called in the event loop of all threads, where blocking methods raise, and where it held up all agents."""
    with blocking.SessionManager(redis_server.url, registry=None) as manager:
        with blocking.reusable_session(NAME, manager=manager) as session:
            session.storage_state = state_with_cookie()
        evicted = []
        manager.keep_alive(lambda _: False, once=True, on_change=lambda name, *_: evicted.append(manager.evict(name)))
        assert evicted == [True]
        assert manager.restore(NAME) is None


def test_closing_a_blocking_manager_ends_its_keeper(redis_server: RedisServer) -> None:
    """The thread of the keeper held up the end of the process for ever."""
    manager = blocking.SessionManager(redis_server.url, registry=None)
    began = threading.Event()

    def probe(_session: BrowserSession) -> bool:
        began.set()
        return True

    with blocking.reusable_session(NAME, manager=manager) as session:
        session.storage_state = state_with_cookie()
    keeper = threading.Thread(target=manager.keep_alive, args=(probe,), daemon=True)
    keeper.start()
    assert began.wait(60)
    manager.close()
    keeper.join(10)
    assert not keeper.is_alive()


def test_the_command_ends_with_its_reader(redis_server: RedisServer, site: str) -> None:
    """The error of the write was one of the callback, so that the command went on forever."""

    async def store() -> None:
        async with SessionManager(redis_server.url, registry=None) as manager:
            await log_in(manager, "in/a", domain="127.0.0.1")

    asyncio.run(store())
    page = ("--url", f"{site}/{{account}}", "--pattern", "*", "--expect-text", "Hello")
    words = ["keep", *page, "--store", redis_server.url, "--json"]
    command = [sys.executable, "-m", "session_reuse", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()
        try:
            assert process.wait(90) == 130
        finally:
            process.kill()


def test_the_command_keeps_logins(cli: CommandLine, redis_server: RedisServer, site: str) -> None:
    """It prints what has changed, and `status` shows it."""

    async def store() -> None:
        async with SessionManager(redis_server.url, registry=None) as manager:
            await log_in(manager, "in/a", domain="127.0.0.1")
            await log_in(manager, "in/b", domain="127.0.0.1", value="old")

    asyncio.run(store())
    words = ("keep", "--url", f"{site}/{{account}}", "--pattern", "*", "--expect-text", "Hello", "--once")
    answer = cli(*words, "--json")
    assert (answer.code, answer.lines[-1]) == (1, {"live": 1, "dead": 1, "unknown": 0})
    assert {line["fingerprint"]: line["liveness"] for line in answer.lines[:-1]} == {"in/a": "live", "in/b": "dead"}
    assert cli(*words).code == 0
    assert cli("status", "in/b", "--json").json["liveness"] == "dead"
    assert cli(*words, "--every", "soon").code == 2
