"""Selenium: a login survives the driver, in every tab, whoever quits it and however the browser ends."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from selenium.common import WebDriverException
from selenium.webdriver.chrome.options import Options

from session_reuse._browser.drivers.connection import CdpConnection
from session_reuse._browser.restorer import Restorer
from session_reuse.browsers import selenium as adapter
from session_reuse.browsers.selenium import default_options
from session_reuse.errors import AdapterError
from tests.browsers.patience import set_limit
from tests.browsers.probes import run_over
from tests.clients.keeper import StubKeeper
from tests.clients.visits import submit_driver, visit_driver
from tests.harness.polling import until, wait_until
from tests.harness.probes import capture_reason_of, captures_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from session_reuse import BrowserSession
    from tests.clients.site import Site

pytestmark = pytest.mark.browser


@contextmanager
def visiting(keeper: StubKeeper, **options: Any) -> Iterator[tuple[Any, BrowserSession]]:
    """Yield a driver, and the session in it."""
    session = keeper.enter()
    with adapter.open_driver(session, **options) as driver:
        yield driver, session


@pytest.mark.parametrize("option", ["", "attribute", "experimental option", "profile"])
def test_only_a_browser_that_is_started_for_the_session_counts_as_new(option: str) -> None:
    """What the tabs of a new one have stored before the restore is cleared. Nobody else's tab may be."""
    options = Options()
    if option == "attribute":
        options.debugger_address = "127.0.0.1:9222"
    elif option == "experimental option":
        options.add_experimental_option("debuggerAddress", "127.0.0.1:9222")
    elif option == "profile":
        options.add_argument("--user-data-dir=/home/alice/profile")
    assert adapter._starts_empty(options) is (option == "")


async def log_in(keeper: StubKeeper, site: Site) -> None:
    """Log in with the form, and save."""
    with visiting(keeper) as (driver, session):
        visit_driver(driver, site.url())
        submit_driver(driver)
    await keeper.leave(session)


def origin_of(keeper: StubKeeper, origin: str) -> dict[str, Any]:
    """Return the stored state of an origin."""
    assert keeper.stored is not None
    return next((entry for entry in keeper.stored["origins"] if entry["origin"] == origin), {})


def items(entry: dict[str, Any], section: str = "localStorage") -> dict[str, str]:
    """Return a web storage as a dict."""
    return {item["name"]: item["value"] for item in entry.get(section, [])}


async def test_whatever_leads_to_an_origin_finds_it_filled(keeper: StubKeeper, site: Site) -> None:
    """Tabs, links and popups of a new browser find the cookie and the storage of each of many origins, once."""
    await log_in(keeper, site)
    assert keeper.stored is not None
    (stored,) = keeper.stored["origins"]
    keeper.stored["origins"] += [{**stored, "origin": site.origin(f"other{number}")} for number in range(100)]
    with visiting(keeper) as (driver, session):
        assert visit_driver(driver, site.url()) == site.EVERYWHERE
        for number, script in enumerate(("location.href = arguments[0]", "open(arguments[0])")):
            driver.execute_script(script, site.url(host=f"other{number}"))
            driver.switch_to.window(driver.window_handles[-1])
            wait_until(lambda number=number: f"other{number}" in driver.current_url)
            assert {"local", "database"} <= set(visit_driver(driver).split())
        driver.execute_script("localStorage.clear()")
        assert "local" not in visit_driver(driver, site.url(host="other1")).split()
    assert session.reused
    assert session.problems == []
    assert site.logins == 1
    await keeper.leave(session)
    assert len(keeper.stored["origins"]) == 101


async def test_tabs_that_are_closed_at_once(keeper: StubKeeper, site: Site) -> None:
    """What a page stores while it loads is captured, however soon its tab is closed."""
    hosts = [f"brief{number}" for number in range(8)]
    with visiting(keeper) as (driver, session):
        home = driver.current_window_handle
        for host in hosts:
            driver.switch_to.new_window("tab")
            driver.get(site.url("/welcome", host=host))
            driver.close()
            driver.switch_to.window(home)
    await keeper.leave(session)
    for host in hosts:
        assert items(origin_of(keeper, site.origin(host))) == {"token": "local-nobody"}


async def test_new_tabs_and_popups_are_restored_too(logged_in: StubKeeper, site: Site) -> None:
    """A tab opened by the driver and a window opened by a page start logged in, even as the first page of their origin."""
    with visiting(logged_in) as (driver, _):
        driver.switch_to.new_window("tab")
        assert visit_driver(driver, site.url()) == site.EVERYWHERE
    with visiting(logged_in) as (driver, _):
        visit_driver_blank(driver, site.url("/blank", host="other"))
        driver.execute_script(f"window.open('{site.url()}', '_blank', 'noopener')")
        wait_until(lambda: len(driver.window_handles) == 2)
        driver.switch_to.window(driver.window_handles[-1])
        assert visit_driver(driver) == site.EVERYWHERE


def visit_driver_blank(driver: Any, url: str) -> None:
    """Open a page that does nothing."""
    driver.get(url)
    wait_until(lambda: driver.title == "blank")


async def test_tab_that_starts_with_a_url_is_filled(logged_in: StubKeeper, site: Site) -> None:
    """A tab that is created with a URL loads before any script of ours can. It is filled and loaded once more."""
    with visiting(logged_in) as (driver, _):
        driver.execute_cdp_cmd("Target.createTarget", {"url": site.url()})
        wait_until(lambda: len(driver.window_handles) == 2)
        driver.switch_to.window(driver.window_handles[-1])
        wait_until(lambda: driver.title == site.EVERYWHERE, message="the page finds its login")


async def test_logout_propagates(logged_in: StubKeeper, site: Site) -> None:
    """What the page deletes on logout is deleted from the stored state, and does not come back."""
    with visiting(logged_in) as (driver, session):
        visit_driver(driver, site.url())
        visit_driver(driver, site.url("/logout"))
    await logged_in.leave(session)
    assert logged_in.stored is not None
    assert logged_in.stored["cookies"] == []
    assert not origin_of(logged_in, site.origin()).keys() - {"origin", "localStorage"}
    with visiting(logged_in) as (driver, _):
        assert visit_driver(driver, site.url()) == site.LOGGED_OUT


async def test_refreshed_token_survives(keeper: StubKeeper, site: Site) -> None:
    """A token that works once is refreshed at each page load, within a run and over runs, and never rolled back."""
    for _ in range(2):
        with visiting(keeper) as (driver, session):
            assert visit_driver(driver, site.url("/rotate")) == "done fresh"
            visit_driver_blank(driver, site.url("/blank", host="other"))
            assert visit_driver(driver, site.url("/rotate")) == "done fresh"
        await keeper.leave(session)
    assert items(origin_of(keeper, site.origin())) == {"refresh": site.refresh_token}


async def test_page_that_clears_and_reloads_is_not_refilled(logged_in: StubKeeper, site: Site) -> None:
    """A page that clears its storage and loads itself again ends logged out, not in a loop."""
    with visiting(logged_in) as (driver, _):
        visit_driver(driver, site.url())
        driver.execute_script("localStorage.clear(); sessionStorage.clear(); document.title = 'cleared'")
        driver.refresh()
        assert visit_driver(driver) == "done cookie database"
        driver.switch_to.new_window("tab")
        assert visit_driver(driver, site.url()) == "done cookie database"


async def test_origins_that_were_left_and_never_visited_are_kept(keeper: StubKeeper, site: Site) -> None:
    """A tab that has gone from origin to origin, or not been there at all this time, costs no origin its storage."""
    for hosts in (("one", "two", "three"), ("three",)):
        with visiting(keeper) as (driver, session):
            for host in hosts:
                visit_driver(driver, site.url("/welcome", host=host))
        await keeper.leave(session)
    for host in ("one", "two", "three"):
        entry = origin_of(keeper, site.origin(host))
        assert items(entry) == {"token": "local-nobody"}
        assert items(entry, "sessionStorage") == {"note": "session-nobody"}
        assert [database["name"] for database in entry["indexedDBRich"]] == ["app"]


async def test_large_origins_are_restored(keeper: StubKeeper, site: Site) -> None:
    """An origin too large for an init script is there before the first page as well."""
    with visiting(keeper) as (driver, session):
        visit_driver_blank(driver, site.url("/blank"))
        driver.execute_script("localStorage.big = 'x'.repeat(600000); localStorage.token = 't'")
    await keeper.leave(session)
    with visiting(keeper) as (driver, session):
        visit_driver_blank(driver, site.url("/blank"))
        assert driver.execute_script("return [localStorage.big.length, localStorage.token]") == [600000, "t"]
    assert [problem.kind for problem in session.problems] == ["restored_early"]


async def test_cookies_come_back_as_they_were(keeper: StubKeeper, site: Site) -> None:
    """Cookies of a partition, with an expiry, and of a whole domain. One that Chromium refuses is reported by its name."""
    plain = {"name": "a", "value": "1", "domain": "shop.localhost", "path": "/", "expires": -1, "httpOnly": True}
    plain |= {"secure": True, "sameSite": "None"}
    partitioned = {**plain, "name": "b", "partitionKey": "https://top.example", "_crHasCrossSiteAncestor": True}
    persistent = {**plain, "name": "c", "domain": ".shop.localhost", "path": "/p", "expires": 4102444800}
    bad = {**plain, "name": "refused", "value": "hush", "partitionKey": "not a site"}
    keeper.stored = {"cookies": [bad, plain, partitioned, persistent], "origins": []}
    with visiting(keeper) as (driver, session):
        visit_driver_blank(driver, site.url("/blank"))
    found = {cookie["name"]: cookie for cookie in session.storage_state["cookies"]}
    assert found.pop("refused", bad) == bad
    assert found["c"].pop("expires") > time.time()
    assert found.pop("c").items() <= persistent.items()
    assert found == {"a": plain, "b": partitioned}
    assert [problem.kind for problem in session.problems] == ["cookie_rejected"]
    assert "refused" in session.problems[0].detail
    assert "hush" not in session.problems[0].detail


async def test_agent_that_quits_itself_is_captured(keeper: StubKeeper, site: Site) -> None:
    """A driver that is quit inside the `with` is captured before it goes, and quits."""
    with visiting(keeper) as (driver, session):
        visit_driver(driver, site.url())
        submit_driver(driver)
        driver.quit()
        assert driver.service.process is None or driver.service.process.poll() is not None
    await keeper.leave(session)
    assert items(origin_of(keeper, site.origin())) == {"token": "local-alice"}
    assert session.problems == []


async def test_agent_that_closes_its_last_window_is_captured(keeper: StubKeeper, site: Site) -> None:
    """A driver whose only window is closed, which ends the browser, has been captured."""
    with visiting(keeper) as (driver, session):
        visit_driver(driver, site.url())
        submit_driver(driver)
        driver.close()
    await keeper.leave(session)
    assert items(origin_of(keeper, site.origin()), "sessionStorage") == {"note": "session-alice"}


async def test_killed_browser_loses_at_most_a_moment(keeper: StubKeeper, site: Site) -> None:
    """Chromium and chromedriver killed outright: what was there a moment before is saved."""
    with visiting(keeper) as (driver, session):
        visit_driver(driver, site.url())
        submit_driver(driver)
        await until(lambda: has_all(session), message="the login was not seen")
        for pid in (driver.service.process.pid, *children(driver.service.process.pid)):
            os.kill(pid, signal.SIGKILL)
    await keeper.leave(session)
    assert has_all(session)
    assert [problem.kind for problem in session.problems] == ["browser_gone"]


def has_all(session: BrowserSession) -> bool:
    """Return whether the session has seen all that a login leaves."""
    state = session.storage_state
    entries = [set(entry) for entry in state["origins"] if items(entry).get("token")]
    return bool(state["cookies"] and entries and {"sessionStorage", "indexedDBRich"} <= entries[0])


def children(pid: int) -> list[int]:
    """Return the processes below a process."""
    import psutil

    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


async def test_changes_are_saved_while_the_agent_works(keeper: StubKeeper, site: Site) -> None:
    """A blocking session is saved some time after a change, so that an agent that dies loses little."""
    session = keeper.enter_blocking()
    with adapter.open_driver(session, checkpoint_after=0.05) as driver:
        visit_driver(driver, site.url())
        submit_driver(driver)
        await until(lambda: keeper.stored and items(origin_of(keeper, site.origin())), message="nothing was saved")


async def test_attached_driver_is_left_open(logged_in: StubKeeper, site: Site) -> None:
    """A driver that exists is restored, captured and left as it was. What it holds is not removed."""
    with visiting(StubKeeper()) as (driver, _):
        visit_driver_blank(driver, site.url("/blank", host="other"))
        driver.add_cookie({"name": "theirs", "value": "1"})
        session = logged_in.enter()
        with adapter.attach_driver(session, driver) as same:
            assert same is driver
            assert visit_driver(driver, site.url()) == site.EVERYWHERE
        assert visit_driver(driver, site.url()) == site.EVERYWHERE
        assert {cookie["name"] for cookie in session.storage_state["cookies"]} == {"sid", "theirs"}
        assert "quit" in vars(driver)


@pytest.mark.parametrize("size", [1, 200_000])
async def test_tab_with_storage_of_its_own_is_left_alone(size: int, logged_in: StubKeeper, site: Site) -> None:
    """An origin that is open and not empty when we come keeps its storage, and that is reported. Whatever its size."""
    padding = {"name": "padding", "value": "x" * size}
    origin_of(logged_in, site.origin())["localStorage"].append(padding)
    with visiting(StubKeeper()) as (driver, _):
        visit_driver_blank(driver, site.url("/blank"))
        driver.execute_script("localStorage.token = 'newer'")
        session = logged_in.enter()
        with adapter.attach_driver(session, driver):
            assert driver.execute_script("return localStorage.token") == "newer"
        assert "origin_open" in {problem.kind for problem in session.problems}
    await logged_in.leave(session)
    assert items(origin_of(logged_in, site.origin())) == {"token": "newer", "padding": "x" * size}


@pytest.mark.parametrize("size", [1, 600_000])
async def test_tab_with_empty_storage_is_filled(size: int, logged_in: StubKeeper, site: Site) -> None:
    """An origin that is open and empty when we come is filled in its tab. Whatever its size."""
    origin_of(logged_in, site.origin())["localStorage"].append({"name": "padding", "value": "x" * size})
    with visiting(StubKeeper()) as (driver, _):
        visit_driver_blank(driver, site.url("/blank"))
        session = logged_in.enter()
        with adapter.attach_driver(session, driver):
            assert driver.execute_script("return localStorage.token") == "local-alice"
        assert session.problems == []


async def test_other_contexts_of_the_browser_are_other_peoples(logged_in: StubKeeper, site: Site) -> None:
    """A tab in another context of the same browser gets nothing of ours, and nothing of it is captured."""
    with visiting(StubKeeper()) as (driver, _):
        session = logged_in.enter()
        with adapter.attach_driver(session, driver):
            context = run_over(session, "Target.createBrowserContext")
            run_over(session, "Target.createTarget", {"url": site.url("/blank"), **context})
            wait_until(lambda: len(driver.window_handles) == 2)
            driver.switch_to.window(driver.window_handles[-1])
            wait_until(lambda: driver.title == "blank")
            assert driver.execute_script("return Object.keys(localStorage)") == []
            driver.execute_script("localStorage.theirs = 'secret'")
            visit_driver(driver, site.url("/welcome", host="other"))
            driver.close()
            driver.switch_to.window(driver.window_handles[0])
            assert visit_driver(driver, site.url()) == site.EVERYWHERE
    await logged_in.leave(session)
    assert items(origin_of(logged_in, site.origin())) == {"token": "local-alice"}
    assert origin_of(logged_in, site.origin("other")) == {}


async def test_a_first_document_that_is_none_uses_nothing_up(logged_in: StubKeeper, site: Site) -> None:
    """After a network error and a sandboxed document the next page finds the login, and it stays stored."""
    with visiting(logged_in) as (driver, session):
        for first in ("/dropped", "/sandboxed"):
            with suppress(WebDriverException):
                driver.get(site.url(first))
            await asyncio.sleep(0.2)
        assert visit_driver(driver, site.url()) == site.EVERYWHERE
    await logged_in.leave(session)
    assert has_all(session)


async def test_what_a_document_stores_last_is_read(keeper: StubKeeper, site: Site) -> None:
    """A page that stores something while it is left, or closed, is read again afterwards."""
    with visiting(keeper) as (driver, session):
        visit_driver(driver, site.url("/last", host="left"))
        await asyncio.sleep(0.2)
        visit_driver_blank(driver, site.url("/blank"))
        driver.switch_to.new_window("tab")
        visit_driver(driver, site.url("/last", host="closed"))
        await asyncio.sleep(0.2)
        driver.close()
        driver.switch_to.window(driver.window_handles[0])
    await keeper.leave(session)
    for host in ("left", "closed"):
        assert items(origin_of(keeper, site.origin(host))) == {"token": "last"}
    assert session.problems == []


async def test_a_popup_that_stores_something_and_closes(keeper: StubKeeper, site: Site) -> None:
    """What a page stores in its last moment is saved, as a login popup does it."""
    with visiting(keeper) as (driver, session):
        visit_driver_blank(driver, site.url("/blank"))
        opened = "const popup = window.open(arguments[0]); window.closed_again = () => popup.closed"
        driver.execute_script(opened, site.url("/brief", host="login"))
        wait_until(lambda: driver.execute_script("return closed_again()"))
    await keeper.leave(session)
    assert items(origin_of(keeper, site.origin("login"))) == {"token": "brief"}


async def test_a_start_that_takes_too_long_leaves_no_connection(
    logged_in: StubKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that could not be restored in time is not followed either: no one would let its new tabs go."""

    def wait(_: Restorer) -> Any:
        yield asyncio.Event().wait()

    monkeypatch.setattr(Restorer, "add_cookies", wait)
    set_limit(monkeypatch, "START", 3.0)  # a busy machine needs a second of it for the connection
    closed = []
    close = CdpConnection.close
    monkeypatch.setattr(CdpConnection, "close", lambda self: closed.append(self) or close(self))
    with visiting(logged_in) as (_, session):
        wait_until(lambda: [connection.ended.is_set() for connection in closed] == [True])
    assert [problem.kind for problem in session.problems] == ["restore_failed", "capture_failed"]
    assert capture_reason_of(session) is not None


async def test_dead_driver_does_not_replace_the_stored_state(logged_in: StubKeeper, site: Site) -> None:
    """A browser that ended before anything was read from it leaves the stored state unchanged, and says so."""
    before = logged_in.stored
    with visiting(StubKeeper()) as (driver, _):
        driver.quit()
        session = logged_in.enter()
        with adapter.attach_driver(session, driver):
            pass
    assert capture_reason_of(session) is not None
    await logged_in.leave(session)
    assert logged_in.stored == before


def test_driver_of_another_browser_is_refused(session: BrowserSession) -> None:
    """A driver without DevTools is refused by its name, and nothing stays bound."""

    class Firefox:
        def __init__(self) -> None:
            self.capabilities = {"browserName": "firefox"}

        def quit(self) -> None: ...

        def close(self) -> None: ...

    driver = Firefox()
    with pytest.raises(AdapterError, match="firefox"), adapter.attach_driver(session, driver):
        pass
    assert captures_of(session) == []
    assert set(vars(driver)) == {"capabilities"}


@pytest.mark.parametrize("flag", ["--incognito", "--guest"])
async def test_a_private_window_is_restored_and_captured(flag: str, keeper: StubKeeper, site: Site) -> None:
    """A driver whose windows are in their own context is followed there."""
    options = default_options()
    options.add_argument(flag)
    session = keeper.enter()
    with adapter.open_driver(session, options, checkpoint_after=None) as driver:
        visit_driver(driver, site.url())
        submit_driver(driver)
    await keeper.leave(session)
    assert has_all(session)
    session = keeper.enter()
    options = default_options()
    options.add_argument(flag)
    with adapter.open_driver(session, options, checkpoint_after=None) as driver:
        assert visit_driver(driver, site.url()) == site.EVERYWHERE
    assert session.problems == []
