"""An agent may leave at any moment, whichever client it uses."""

from __future__ import annotations

import time

import pytest

from session_reuse.browsers.playwright_sync import open_context
from tests.browsers.leave_moments import DRIVERS, started_playwright
from tests.browsers.sites import serve_sites
from tests.browsers.visits import entry, fresh

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_agent_may_leave_at_any_moment(driver: str) -> None:
    """Nothing that the page knew to be stored 300 ms before is missing, and nothing older replaces it."""
    with serve_sites() as sites:
        assert DRIVERS[driver](sites, 2, 7, 1) == []


def test_an_agent_may_close_the_last_page_of_its_browser() -> None:
    """Chromium without a page opens no hidden one, so another page of ours has to keep it open, unseen by the agent."""
    with serve_sites() as sites, started_playwright() as browser:
        session, opened = fresh(), []
        with open_context(session, browser) as context:
            page = context.new_page()
            context.on("page", lambda each: opened.append(each))  # noqa: PLW0108 - Playwright marks its handlers
            page.goto(sites.url("last", "/idb-plain/login"))
            page.wait_for_url("**/idb-plain")
            page.close()
            time.sleep(0.7)  # Chromium notices half a second later that it has no page
        assert opened == []
        assert entry(session, sites.origin("last"))["indexedDB"]
        assert [problem.kind for problem in session.problems] == []
