"""What holds for Playwright's contexts holds over a DevTools connection of our own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver

from session_reuse.browsers.selenium import attach_driver, chromedriver, default_options, open_driver
from tests.browsers.probes import capture_now
from tests.browsers.visits import entry, fresh, items, next_session
from tests.harness.chromium import plain_chromium
from tests.harness.polling import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browsers.sites import Sites

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def plain_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a browser with pages of its address bar, which are none of the agent's."""
    monkeypatch.setenv("SESSION_REUSE_CHROMIUM", plain_chromium())


def shown_by(driver: Any) -> str:
    """Return what a page thinks of its visitor, `in` or `out`."""
    return wait_until(lambda: driver.execute_script("return document.documentElement.dataset.login"))


@contextmanager
def started() -> Iterator[Any]:
    """Start a driver that is not ours."""
    driver = webdriver.Chrome(default_options(), chromedriver())
    try:
        yield driver
    finally:
        driver.quit()


def test_a_frame_with_a_process_of_its_own_is_restored_and_captured(sites: Sites) -> None:
    """A token that a frame of the login server rotates is captured, its database too."""
    session = fresh()
    with open_driver(session, checkpoint_after=None) as driver:
        driver.get(sites.url("login.raw", "/idb-plain/login"))
        assert shown_by(driver) == "in"
    session = next_session(session)
    with open_driver(session, checkpoint_after=None) as driver:
        driver.get(sites.url("app.raw", f"/isolated/framed?{sites.url('login.raw', '/isolated/renew')}"))
        assert shown_by(driver) == "in"
    assert items(session, sites.origin("login.raw")) == {"renewed": "1"}
    assert "alice" in str(entry(session, sites.origin("login.raw")))
    assert session.problems == []


def test_a_popup_of_an_attached_browser_is_filled_though_nothing_waits(sites: Sites) -> None:
    """New tabs of a browser that others use are not paused: one that was faster than our script is loaded once more."""
    session = fresh()
    with open_driver(session, checkpoint_after=None) as driver:
        driver.get(sites.url("popped", "/idb-plain/login"))
        assert shown_by(driver) == "in"
    session = next_session(session)
    with started() as driver, attach_driver(session, driver, checkpoint_after=None):
        driver.get(sites.url("elsewhere", "/blank"))
        driver.execute_script("window.open(arguments[0])", sites.url("popped", "/idb-plain"))
        wait_until(lambda: len(driver.window_handles) == 2)
        driver.switch_to.window(driver.window_handles[-1])
        wait_until(lambda: shown_by(driver) == "in")
    assert session.problems == []


def test_session_storage_of_two_tabs_is_merged(sites: Sites) -> None:
    """A second tab does not replace what the first one has stored."""
    session = fresh()
    with open_driver(session, checkpoint_after=None) as driver:
        for key in ("token", "tab"):
            driver.get(sites.url("merged", "/blank"))
            driver.execute_script(f"sessionStorage.setItem('{key}', '1')")
            driver.switch_to.new_window("tab")
    assert items(session, sites.origin("merged"), "sessionStorage") == {"token": "1", "tab": "1"}


def test_a_logout_that_the_browser_carries_out_counts(sites: Sites) -> None:
    """`Clear-Site-Data` sends no event for a page that was left."""
    session = fresh()
    with open_driver(session, checkpoint_after=None) as driver:
        for path in ("/cookie/login?kind=httponly", "/local/login"):
            driver.get(sites.url("wiped", path))
            assert shown_by(driver) == "in"
        capture_now(session)
        driver.get(sites.url("elsewhere", "/blank"))
        clear = "return fetch(arguments[0], { mode: 'no-cors', credentials: 'include' }).then(() => true)"
        driver.execute_script(clear, sites.url("wiped", "/clear"))
    assert entry(session, sites.origin("wiped")) == {}
