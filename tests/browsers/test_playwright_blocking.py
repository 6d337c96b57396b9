"""The synchronous API restores, follows and captures as the asynchronous one does, on its one thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

from session_reuse.browsers.checks import selector_present
from session_reuse.browsers.playwright_sync import attach_context, open_context
from session_reuse.errors import ConfigurationError, LifecycleError
from session_reuse.outcome import Outcome
from tests.browsers.patience import set_limit
from tests.browsers.probes import capture_now
from tests.browsers.visits import (
    LAUNCH,
    PLACES,
    Place,
    entry,
    fresh,
    items,
    kinds,
    next_session,
    reused,
    shown_blocking,
    storing,
)  # fmt: skip
from tests.harness.polling import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Playwright

    from tests.browsers.sites import Sites

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """One driver for this module: it holds the thread's event loop as long as it runs."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """One browser for this module, for tests to which it does not matter that others were there before."""
    launched = playwright.chromium.launch(**LAUNCH)
    yield launched
    launched.close()


@pytest.fixture
def launch(playwright: Playwright) -> Iterator[Callable[[], Browser]]:
    """Launch its own browser process, closed at the end of the test."""
    launched: list[Browser] = []

    def launch() -> Browser:
        launched.append(playwright.chromium.launch(**LAUNCH))
        return launched[-1]

    yield launch
    for each in launched:
        each.close()


def _visited(context: BrowserContext, url: str) -> str:
    page = context.new_page()
    page.goto(url)
    return shown_blocking(page)


def test_a_login_survives_the_browser(sites: Sites, browser: Any, launch: Any) -> None:
    """A login made by one agent is there for the next, in a fresh browser process. All places are tried asynchronously."""
    places = {place.name: Place(f"sync-{place.name}", place.login, place.check).urls(sites) for place in PLACES[::3]}
    session = fresh()
    with open_context(session, browser) as context:
        for login, _ in places.values():
            page = context.new_page()
            page.goto(login)
            page.wait_for_url(lambda url: "login" not in url or "framed" in url)
            assert shown_blocking(page) == "in"
    following = next_session(session)
    with open_context(following, launch()) as context:
        found = {name: _visited(context, check) for name, (_, check) in places.items()}
    assert found == dict.fromkeys(places, "in")
    assert (session.problems, following.problems) == ([], [])


def test_tokens_are_neither_refilled_nor_rolled_back(sites: Sites, browser: Any) -> None:
    """A stale token ends logged out, a rotated one survives the next agent."""
    sites.refresh_tokens["sync-rotating"] = "r1"
    entries = [
        storing(sites.origin("sync-stale"), token="stale")["origins"][0],
        storing(sites.origin("sync-rotating"), refresh="r1")["origins"][0],
    ]
    session = reused({"cookies": [], "origins": entries})
    for _ in range(2):
        with open_context(session, browser) as context:
            assert _visited(context, sites.url("sync-stale", "/stale/replace")) == "out"
            for _ in range(2):
                assert _visited(context, sites.url("sync-rotating", "/rotating")) == "in"
        session = next_session(session)
    assert entry(session, sites.origin("sync-stale")) == {}


def test_an_agent_that_closes_its_context_itself(sites: Sites, browser: Any) -> None:
    """`context.close()` inside the body captures first."""
    session = fresh()
    with open_context(session, browser) as context:
        _visited(context, sites.url("sync-own", "/cookie/login?kind=session"))
        context.close()
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["sid"]
    assert session.problems == []


@pytest.mark.parametrize(
    "then", ["console.log('done')", "setTimeout(console.log, 3, 'done')"], ids=["before", "during"]
)
def test_an_agent_that_closes_its_context_in_a_handler(sites: Sites, browser: Any, then: str) -> None:
    """The exit waits for the capture that has begun there, or the handler for that of the exit: nothing is missing."""
    session = fresh()
    with open_context(session, browser, checkpoint_after=None) as context:
        page = context.new_page()
        page.goto(sites.url("sync-handler", "/blank"))
        page.on("console", lambda message: message.text == "done" and context.close())
        page.evaluate("localStorage.setItem('token', 'T'); document.cookie = 'sid=1';" + then)
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["sid"]
    assert items(session, sites.origin("sync-handler")) == {"token": "T"}
    assert session.problems == []


def test_changes_are_saved_while_the_agent_works(sites: Sites, browser: Any) -> None:
    """Without a timer a change is saved at one of the next requests."""
    session = fresh()
    with open_context(session, browser, checkpoint_after=0.05) as context:
        page = context.new_page()
        page.goto(sites.url("sync-saver", "/blank"))
        page.evaluate("localStorage.setItem('n', '1')")

        def saved() -> bool:
            page.evaluate("fetch('/blank').then((answer) => answer.text())")
            return items(session, sites.origin("sync-saver")) == {"n": "1"}

        wait_until(saved)


def test_another_thread_gets_what_was_last_seen(sites: Sites, browser: Any) -> None:
    """A capture asked for from another thread does not touch Playwright."""
    session, states = fresh(), []

    def seen() -> bool:
        context.pages[-1].evaluate("1")  # Playwright hands out events while it is called
        thread = threading.Thread(target=lambda: states.append(capture_now(session)))
        thread.start()
        thread.join()
        return bool(states[-1]["origins"])

    with open_context(session, browser) as context:
        _visited(context, sites.url("sync-thread", "/local/login"))
        wait_until(seen)
    assert states[-1]["origins"][0]["origin"] == sites.origin("sync-thread")


def test_a_persistent_context(sites: Sites, playwright: Any, tmp_path: Any) -> None:
    """A persistent context is filled and captured, and stays open."""
    session = reused(storing(sites.origin("sync-profile"), token="T"))
    context = playwright.chromium.launch_persistent_context(str(tmp_path), **LAUNCH)
    with attach_context(session, context):
        assert _visited(context, sites.url("sync-profile", "/inner")) == "in"
        context.pages[-1].evaluate("localStorage.setItem('token', 'newer')")
    assert context.pages
    context.close()
    assert items(session, sites.origin("sync-profile")) == {"token": "newer"}


@pytest.mark.parametrize(("shown", "outcome"), [("in", Outcome.REUSED), ("never", Outcome.UNVERIFIED)])
def test_a_check(shown: str, outcome: Outcome, sites: Sites, browser: Any) -> None:
    """The ready-made checks serve synchronous pages too."""
    url = sites.url("sync-checked", "/inner")
    session = reused(storing(sites.origin("sync-checked"), token="T"))
    check = selector_present(url, f"html[data-login={shown}]", timeout=60 if shown == "in" else 1)
    with open_context(session, browser, verify=check) as context:
        assert _visited(context, url) == ("in" if shown == "in" else "out")
    assert session.outcome is outcome


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_check_that_exits_leaves_no_context(error: type[BaseException], browser: Browser) -> None:
    """A check that ends the program leaves no context with the login in the browser."""
    before, stored = (
        len(browser.contexts),
        {"origin": "http://shop.localhost", "localStorage": [{"name": "a", "value": "1"}]},
    )

    def check(_: object) -> bool:
        raise error

    with pytest.raises(error), open_context(reused({"origins": [stored]}), browser, verify=check):
        pass
    assert len(browser.contexts) == before


def test_a_playwright_that_was_stopped_is_no_error() -> None:
    """An agent that stops Playwright itself gets no exception at the end of its `with`."""
    ends: list[BaseException | None] = []

    def act() -> None:  # in a thread: each has one Playwright at a time
        try:
            driver = sync_playwright().start()
            with open_context(fresh(), driver.chromium.launch(**LAUNCH)) as context:
                context.new_page()
                driver.stop()
        except BaseException as error:  # noqa: BLE001  (the test's subject)
            ends.append(error)
        else:
            ends.append(None)

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert ends == [None]


@pytest.mark.usefixtures("default_limits")
def test_a_page_that_hangs_does_not_hold_up_the_exit(sites: Sites, browser: Any) -> None:
    """A page in an endless loop costs a time limit, and what it wrote before is captured."""
    session = fresh()
    with open_context(session, browser) as context:
        _visited(context, sites.url("sync-hang", "/local/login"))
        (page,) = context.pages
        capture_now(session)  # a checkpoint: the event of the write may come after the page hangs
        page.evaluate("setTimeout(() => { for (;;) {} }, 0)")
    assert items(session, sites.origin("sync-hang"))


@pytest.mark.parametrize("leave", ["goto", "close"])
def test_a_page_that_hangs_does_not_hold_up_an_agent_that_leaves_it(
    leave: str, sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs a short limit, once, however much is asked of it. What it wrote before is captured."""
    set_limit(monkeypatch, "COMMAND", 20.0)
    set_limit(monkeypatch, "CLOSE", 1.0)
    session, host = fresh(), f"sync-leave-{leave}"
    with open_context(session, browser, checkpoint_after=None) as context:
        _visited(context, sites.url(host, "/local/login"))
        (page,) = context.pages
        page.wait_for_load_state()
        page.evaluate("setTimeout(() => { for (;;) {} }, 0)")
        page.context.cookies()
        began = time.monotonic()
        if leave == "goto":
            page.goto(sites.url("elsewhere", "/blank"))
        else:
            page.close()
        assert time.monotonic() - began < 20.0
    assert items(session, sites.origin(host))


def test_misuse_is_named(browser: Any) -> None:
    """Entering twice and passing a storage state are errors that say what to do."""
    with pytest.raises(ConfigurationError, match=r"session\.storage_state"):
        open_context(fresh(), browser, storage_state={})
    bound = open_context(fresh(), browser)
    with bound, pytest.raises(LifecycleError):
        bound.__enter__()


def test_an_empty_visit_reports_nothing(browser: Any) -> None:
    """An agent that opens no page leaves no problem behind."""
    session = fresh()
    with open_context(session, browser):
        pass
    assert kinds(session) == []


def test_whatever_leads_to_an_origin_finds_it_filled(sites: Sites, browser: Browser) -> None:
    """New tabs, redirects and popups meet a filled storage. What they have cleared stays clear."""
    hosts = ("first", "redirected", "popped")
    session = reused(
        {"cookies": [], "origins": [storing(sites.origin(host), token=host)["origins"][0] for host in hosts]}
    )
    with open_context(session, browser) as context:
        page = context.new_page()
        page.goto(sites.url("first", "/inner"))
        assert shown_blocking(page) == "in"
        page.goto(sites.url("elsewhere", f"/redirect?to={sites.url('redirected', '/inner')}"))
        assert shown_blocking(page) == "in"
        with context.expect_page() as opened:
            page.evaluate("(url) => void window.open(url)", sites.url("popped", "/inner"))
        assert shown_blocking(opened.value) == "in"
        page.evaluate("localStorage.clear()")
        page.goto(sites.url("first", "/inner"))
        page.goto(sites.url("redirected", "/inner"))
        assert shown_blocking(page) == "out"
    assert [entry["origin"] for entry in session.storage_state["origins"]] == [
        sites.origin("first"),
        sites.origin("popped"),
    ]
    assert session.problems == []


def test_an_agent_that_waits_for_a_popup_gets_its_own(sites: Sites, browser: Any) -> None:
    """A checkpoint that comes in the same call opens no page that the agent could take for it."""
    session = reused(storing(sites.origin("waiting"), token="T"))
    opened: list[Any] = []
    with open_context(session, browser, checkpoint_after=0.05) as context:
        page = context.new_page()
        page.goto(sites.url("waiting", "/idb-plain/login"))
        assert shown_blocking(page) == "in"
        page.goto(sites.url("elsewhere", "/blank"))
        context.on("page", lambda page: opened.append(page))  # noqa: PLW0108 - Playwright writes on it
        with context.expect_page() as caught:
            page.wait_for_timeout(1000)
            page.evaluate(f"open({sites.url('elsewhere', '/inner')!r}), 0")
        assert caught.value.url.endswith(("/inner", "about:blank"))
        caught.value.wait_for_url("**/inner")
        assert opened == [caught.value]
    assert session.problems == []
