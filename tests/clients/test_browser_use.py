"""browser-use: what its own persistence loses, rolls back or brings back, done right. And every way in which it ends."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from session_reuse.errors import ConfigurationError
from tests.agents.runs import processes_with
from tests.browsers.probes import browser_of, connection_of, drop_connection
from tests.clients.agents import browser_options, run_agent
from tests.clients.visits import agent_title, submit_agent, visit_agent
from tests.harness.polling import until
from tests.harness.probes import captures_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from session_reuse import BrowserSession
    from tests.clients.keeper import StubKeeper
    from tests.clients.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("agent_leftovers")]


@asynccontextmanager
async def visiting(keeper: StubKeeper, **options: Any) -> AsyncIterator[tuple[Any, BrowserSession]]:
    """Yield a started browser-use session, and ours. Save at the end."""
    from session_reuse.browsers.browser_use import open_browser_session

    session = keeper.enter()
    async with open_browser_session(session, **browser_options(), **options) as browser_session:
        await browser_session.start()
        yield browser_session, session
    await keeper.leave(session)


def entry_of(keeper: StubKeeper, origin: str) -> dict[str, Any]:
    """Return the stored state of an origin."""
    stored = keeper.stored or {"origins": []}
    return next((entry for entry in stored["origins"] if entry["origin"] == origin), {})


def items(entry: dict[str, Any], section: str = "localStorage") -> dict[str, str]:
    """Return a web storage as a dict."""
    return {item["name"]: item["value"] for item in entry.get(section, [])}


async def test_several_origins_in_one_tab_are_all_kept(keeper: StubKeeper, site: Site) -> None:
    """Defects 1 and 6 of browser-use's own file: it keeps the last origin of a tab only, and never writes a state given as a dict."""
    site.sessions["s1"] = "alice"
    cookie = {"name": "sid", "value": "s1", "domain": "shop.localhost", "path": "/", "expires": -1}
    keeper.stored = {"cookies": [cookie], "origins": []}
    async with visiting(keeper) as (browser_session, _):
        assert await visit_agent(browser_session, site.url()) == "done cookie"
        for host in ("shop", "two"):
            await visit_agent(browser_session, site.url("/welcome", host=host))
    for host, user in (("shop", "alice"), ("two", "nobody")):
        assert items(entry_of(keeper, site.origin(host))) == {"token": f"local-{user}"}
        assert entry_of(keeper, site.origin(host))["indexedDBRich"]


async def test_refreshed_token_is_not_rolled_back(keeper: StubKeeper, site: Site) -> None:
    """Defect 2: a token that the page has refreshed is replaced by the restored one at each navigation."""
    for _ in range(2):
        async with visiting(keeper) as (browser_session, _):
            assert await visit_agent(browser_session, site.url("/rotate")) == "done fresh"
            await visit_agent(browser_session, site.url(host="other"))
            assert await visit_agent(browser_session, site.url("/rotate")) == "done fresh"
    assert items(entry_of(keeper, site.origin())) == {"refresh": site.refresh_token}


async def test_logout_is_not_undone(logged_in: StubKeeper, site: Site) -> None:
    """Defect 3: cookies that the site deleted at logout come back from the file."""
    async with visiting(logged_in) as (browser_session, _):
        await visit_agent(browser_session, site.url())
        await visit_agent(browser_session, site.url("/logout"))
    assert logged_in.stored is not None
    assert logged_in.stored["cookies"] == []
    assert items(entry_of(logged_in, site.origin())) == {}


async def test_two_holders_of_one_identity_lose_nothing(keeper: StubKeeper, site: Site) -> None:
    """Defect 4: two at once on one file lose saves. Here what each of them did is in the stored state."""
    async with visiting(keeper) as (one, _), visiting(keeper) as (two, _):
        await visit_agent(one, site.url("/welcome", host="one"))
        await visit_agent(two, site.url("/welcome", host="two"))
    assert items(entry_of(keeper, site.origin("one")))
    assert items(entry_of(keeper, site.origin("two")))


async def test_killed_browser_loses_at_most_a_moment(keeper: StubKeeper, site: Site) -> None:
    """Defect 5: a killed Chromium costs up to a minute. Here what was there a moment before is saved."""
    async with visiting(keeper, checkpoint_after=None) as (browser_session, session):
        await visit_agent(browser_session, site.url())
        await submit_agent(browser_session)
        driver = browser_of(session)
        await until(lambda: _has_everything(driver.engine.keep_last_seen()), message="the login was not seen")
        port = urlsplit(browser_session.cdp_url).port
        os.kill(min(processes_with(f"--remote-debugging-port={port}")), signal.SIGKILL)
        await until(lambda: driver.is_gone, message="the end of the browser was not seen")
    assert keeper.stored is not None
    assert [cookie["name"] for cookie in keeper.stored["cookies"]] == ["sid"]
    assert items(entry_of(keeper, site.origin())) == {"token": "local-alice"}
    assert "browser_gone" in {problem.kind for problem in session.problems}


def _has_everything(state: dict[str, Any] | None) -> bool:
    entries = (state or {}).get("origins", [])
    return bool(state and state["cookies"] and any("indexedDBRich" in entry for entry in entries))


async def test_browser_started_again_is_restored_again(logged_in: StubKeeper, site: Site) -> None:
    """kill() and stop() replace the event bus. The next start() of the same session is logged in anyway."""
    async with visiting(logged_in) as (browser_session, _):
        assert await visit_agent(browser_session, site.url()) == site.EVERYWHERE
        for end in (browser_session.kill, browser_session.stop):
            await end()
            await browser_session.start()
            assert await visit_agent(browser_session, site.url()) == site.EVERYWHERE


async def test_agent_that_closes_its_browser_is_captured(keeper: StubKeeper, site: Site) -> None:
    """An agent that kills its browser at the end of its run has been captured, and saved, before."""
    from session_reuse.browsers.browser_use import open_browser_session

    session = keeper.enter()
    async with open_browser_session(session, **browser_options()) as browser_session:
        await run_agent(browser_session, site.url(), "alice")
        assert browser_session.cdp_url is None
        assert keeper.saves > 0
        assert items(entry_of(keeper, site.origin()), "sessionStorage") == {"note": "session-alice"}
    await keeper.leave(session)
    assert items(entry_of(keeper, site.origin())) == {"token": "local-alice"}


async def test_browser_kept_alive_is_followed_on(keeper: StubKeeper, site: Site) -> None:
    """With keep_alive an agent saves nothing at its end. What it did, and what comes after, is captured at exit."""
    from session_reuse.browsers.browser_use import open_browser_session

    session = keeper.enter()
    options = {**browser_options(), "keep_alive": True}
    async with open_browser_session(session, checkpoint_after=None, **options) as browser_session:
        await run_agent(browser_session, site.url(), "alice")
        assert browser_session.is_cdp_connected
        await visit_agent(browser_session, site.url("/welcome", host="other"))
    await keeper.leave(session)
    assert items(entry_of(keeper, site.origin())) == {"token": "local-alice"}
    assert items(entry_of(keeper, site.origin("other"))) == {"token": "local-nobody"}


async def test_connection_of_ours_that_drops_is_taken_up_again(logged_in: StubKeeper, site: Site) -> None:
    """When our own connection is lost, the browser is followed again, and nothing older is put over what it holds."""
    async with visiting(logged_in, checkpoint_after=None) as (browser_session, session):
        await visit_agent(browser_session, site.url())
        ended = connection_of(session).ended
        await drop_connection(session)
        await until(ended.is_set)
        await visit_agent(browser_session, site.url("/logout"))
        await session.checkpoint()
        assert logged_in.stored is not None
        assert logged_in.stored["cookies"] == []
        assert await visit_agent(browser_session, site.url()) == site.LOGGED_OUT
    assert items(entry_of(logged_in, site.origin())) == {}


async def test_what_was_not_visited_is_restored_over_a_new_connection(logged_in: StubKeeper, site: Site) -> None:
    """Our first connection takes what it has armed with it. The next one brings the rest."""
    assert logged_in.stored is not None
    other = {"origin": site.origin("other"), "localStorage": [{"name": "token", "value": "T"}]}
    logged_in.stored["origins"].append(other)
    async with visiting(logged_in, checkpoint_after=None) as (browser_session, session):
        await visit_agent(browser_session, site.url())
        ended = connection_of(session).ended
        await drop_connection(session)
        await until(ended.is_set)
        await session.checkpoint()
        assert await visit_agent(browser_session, site.url(host="other")) == "done local"
        assert await visit_agent(browser_session, site.url()) == site.EVERYWHERE
    assert items(entry_of(logged_in, site.origin("other"))) == {"token": "T"}


async def test_attached_session_is_left_running(logged_in: StubKeeper, site: Site) -> None:
    """A browser-use session that runs already is restored at once, and goes on after the end of ours."""
    from browser_use import BrowserSession as AgentBrowser

    from session_reuse.browsers.browser_use import attach_browser_session

    browser_session = AgentBrowser(**browser_options())
    await browser_session.start()
    try:
        session = logged_in.enter()
        async with attach_browser_session(session, browser_session):
            assert await visit_agent(browser_session, site.url()) == site.EVERYWHERE
        assert captures_of(session) == []
        assert await agent_title(browser_session) == site.EVERYWHERE
    finally:
        await browser_session.kill()


async def test_a_start_that_is_cancelled_leaves_nothing_bound(
    session: BrowserSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is cancelled while it attaches is followed by no one afterwards."""
    from browser_use import BrowserSession as AgentBrowser

    from session_reuse.browsers import browser_use as adapter

    listening = asyncio.Event()

    async def listen(_: Any) -> None:
        listening.set()
        await asyncio.sleep(30)

    async def agent() -> None:
        async with adapter.attach_browser_session(session, AgentBrowser(**browser_options())):
            raise AssertionError("it does not come so far")

    monkeypatch.setattr(adapter._Binding, "listen", listen)
    task = asyncio.create_task(agent())
    await listening.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert captures_of(session) == []


async def test_new_tabs_are_restored(logged_in: StubKeeper, site: Site) -> None:
    """A tab that the agent opens starts logged in, even as the first page of its origin."""
    async with visiting(logged_in) as (browser_session, _):
        await visit_agent(browser_session, site.url(host="other"))
        await browser_session.navigate_to(site.url(), new_tab=True)
        assert await agent_title(browser_session) == site.EVERYWHERE


async def test_unreachable_browser_does_not_stop_the_agent(logged_in: StubKeeper, site: Site) -> None:
    """When we cannot connect, the agent works without a login, the stored state stays, and the session says so.

    The browser is not restored when it connects again: the agent may have logged in anew.
    """
    from browser_use.browser.events import BrowserReconnectedEvent

    from session_reuse.browsers import _devtools_address

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("refused")

    before = logged_in.stored
    async with AsyncExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_devtools_address, "open_websocket", refuse)
            browser_session, session = await stack.enter_async_context(visiting(logged_in))
        address = str(browser_session.cdp_url)
        again = BrowserReconnectedEvent(cdp_url=address, attempt=1, downtime_seconds=0.1)
        await browser_session.event_bus.dispatch(again)
        assert await visit_agent(browser_session, site.url()) == site.LOGGED_OUT
    assert [problem.kind for problem in session.problems] == ["restore_failed"]
    assert logged_in.stored == before


async def test_endpoint_that_leads_elsewhere_is_noticed(
    logged_in: StubKeeper, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that gives each connection its own browser is not taken for the agent's. Nothing is captured of it."""
    from session_reuse.browsers._attachment import Attachment

    before = logged_in.stored
    monkeypatch.setattr(Attachment, "has_tab", lambda *_: False)
    async with visiting(logged_in) as (browser_session, session):
        await visit_agent(browser_session, site.url("/logout"))
    assert "a browser of its own" in session.problems[0].detail
    assert logged_in.stored == before


async def test_a_second_source_of_state_is_refused(session: BrowserSession) -> None:
    """A storage_state of browser-use's own would load and write beside ours, so it is refused with the remedy."""
    from session_reuse.browsers.browser_use import open_browser_session

    with pytest.raises(ConfigurationError, match=r"session\.storage_state"):
        async with open_browser_session(session, storage_state="state.json"):
            pass
