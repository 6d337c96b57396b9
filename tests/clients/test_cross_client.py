"""One login, whoever made it, is reused by every other client: of one stored state, all that each of them can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from session_reuse.browsers.http_clients import open_httpx
from session_reuse.browsers.selenium import open_driver
from tests.clients.agents import browser_options
from tests.clients.visits import agent_title, submit_agent, submit_driver, visit_agent, visit_driver, visit_page
from tests.harness.polling import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse import BrowserSession
    from tests.clients.keeper import StubKeeper
    from tests.clients.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("agent_leftovers")]


async def _http(session: BrowserSession, site: Site, *, log_in: bool) -> str:
    with open_httpx(session, follow_redirects=True) as client:
        if log_in:
            client.post(site.url("/login"), data={"user": "alice"})
        return "done cookie" if client.get(site.url("/me")).json()["user"] == "alice" else "done"


async def _selenium(session: BrowserSession, site: Site, *, log_in: bool) -> str:
    with open_driver(session) as driver:
        words = visit_driver(driver, site.url())
        if log_in:
            submit_driver(driver)
        return words


async def _browser_use(session: BrowserSession, site: Site, *, log_in: bool) -> str:
    from session_reuse.browsers.browser_use import open_browser_session

    async with open_browser_session(session, **browser_options()) as browser_session:
        await browser_session.start()
        words = await visit_agent(browser_session, site.url())
        if log_in:
            await submit_agent(browser_session)
            assert await agent_title(browser_session) == "done welcome"
        return words


async def _playwright(session: BrowserSession, site: Site, *, log_in: bool) -> str:
    from playwright.async_api import async_playwright

    from session_reuse.browsers.chromium import find_chromium, launch_arguments
    from session_reuse.browsers.playwright import open_context

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=launch_arguments())
        async with open_context(session, browser) as context:
            page = await context.new_page()
            words = await visit_page(page, site.url())
            if log_in:
                await page.click("#submit")
                await until(lambda: _is_welcome(page))
        await browser.close()
        return words


async def _is_welcome(page: Any) -> bool:
    return await page.title() == "done welcome"


CLIENTS: dict[str, Callable[..., Any]] = {
    "http": _http, "selenium": _selenium, "browser_use": _browser_use, "playwright": _playwright,
}  # fmt: skip


@pytest.mark.parametrize("maker", CLIENTS)
async def test_login_is_reused_by_every_other_client(maker: str, keeper: StubKeeper, site: Site) -> None:
    """A login made in one client is found by each other one, with all that the two of them can hold."""
    session = keeper.enter()
    await CLIENTS[maker](session, site, log_in=True)
    await keeper.leave(session)
    for name in CLIENTS.keys() - {maker}:
        session = keeper.enter()
        words = await CLIENTS[name](session, site, log_in=False)
        expected = "done cookie" if "http" in {name, maker} else site.EVERYWHERE
        assert (name, words, session.problems) == (name, expected, [])
    assert site.logins == 1
