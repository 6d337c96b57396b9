"""The work of one agent between enter and exit, in Chromium or with an HTTP client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from examples.demo.site import PASSWORD
from session_reuse import BrowserSession
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.browsers.http_clients import open_httpx_async
from session_reuse.errors import AdapterError, MissingExtraError

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

_PAGE_LIMIT: Final = 20.0
_ITEMS: Final = 2
_WORK: Final = 0.2
"""Seconds of work for each item put into the basket."""


class Phase(StrEnum):
    """The activity of an agent."""

    WAITING = "between two runs"
    ENTERING = "entering its session"
    OPENING = "opening the shop"
    LOGGING_IN = "logging in"
    WORKING = "working, logged in"
    SAVING = "saving its session"
    DONE = "done"


Report = Callable[[Phase], None]


class Agent(Protocol):
    """An agent that works on the site with a session.

    Attributes:
        name: the client that it drives, for people.
    """

    name: str

    def fingerprint(self, account: str) -> str:
        """Return the name under which the account's session is kept."""

    async def work(self, session: BrowserSession, account: str, report: Report) -> None:
        """Open the account page, log in if needed, and work."""


class ChromiumAgent:
    """An agent in a separate browser context of one shared Chromium."""

    def __init__(self, browser: Browser, site: str) -> None:
        self.name = f"Chromium {browser.version.split('.')[0]}"
        self._browser = browser
        self._site = site

    def fingerprint(self, account: str) -> str:
        """Return the name under which the account's session is kept."""
        return f"shop.demo/{account}"

    async def work(self, session: BrowserSession, account: str, report: Report) -> None:
        """Open the account page. Fill in the form if the site redirects to it."""
        from session_reuse.browsers.playwright import open_context

        async with open_context(session, self._browser) as context:
            context.set_default_timeout(_PAGE_LIMIT * 1000)
            report(Phase.OPENING)
            page = await context.new_page()
            await page.goto(f"{self._site}/account")
            await page.wait_for_selector("body[data-ready], form#login", state="attached")
            if await page.query_selector("form#login"):
                report(Phase.LOGGING_IN)
                await self._log_in(page, account)
            report(Phase.WORKING)
            for _ in range(_ITEMS):
                await page.click("#add")
                await asyncio.sleep(_WORK)
            report(Phase.SAVING)

    async def _log_in(self, page: Page, account: str) -> None:
        await page.fill("[name=user]", account)
        await page.fill("[name=password]", PASSWORD)
        await page.click("button")
        await page.wait_for_selector("body[data-ready]", state="attached")


class HttpAgent:
    """An agent with an HTTP client: cookies are in the storage state, the token is in `data`."""

    name = "HTTP client (httpx)"

    def __init__(self, site: str) -> None:
        self._site = site

    def fingerprint(self, account: str) -> str:
        """Return a name that differs from the browser's, because the two cannot use each other's state."""
        return f"shop.demo/{account}@http"

    async def work(self, session: BrowserSession, account: str, report: Report) -> None:
        """Request the account page and the API. Log in if either is refused."""
        options: dict[str, Any] = {"base_url": self._site, "timeout": _PAGE_LIMIT, "trust_env": False}
        async with open_httpx_async(session, **options) as client:
            report(Phase.OPENING)
            if not await self._is_logged_in(client, session):
                report(Phase.LOGGING_IN)
                await client.get("/login")
                form = {"user": account, "password": PASSWORD}
                answer = await client.post("/login", data=form, headers={"Accept": "application/json"})
                session.data["token"] = answer.json()["token"]
                await self._is_logged_in(client, session)
            report(Phase.WORKING)
            for _ in range(_ITEMS):
                session.data["basket"] = session.data.get("basket", 0) + 1
                await asyncio.sleep(_WORK)
            report(Phase.SAVING)

    @staticmethod
    async def _is_logged_in(client: Any, session: BrowserSession) -> bool:
        page = await client.get("/account")
        if page.status_code != 200 or "token" not in session.data:
            return False
        answer = await client.get("/api/me", headers={"Authorization": f"Bearer {session.data['token']}"})
        return bool(answer.status_code == 200)


@asynccontextmanager
async def open_agent(site: str, *, http: bool, note: Callable[[str], None]) -> AsyncIterator[Agent]:
    """Open Chromium, or an HTTP client if there is no Chromium.

    Args:
        site: URL of the site.
        http: whether to use the HTTP client in any case.
        note: called with the reason why Chromium is not used.
    """
    if http:
        yield HttpAgent(site)
        return
    async with _browser(note) as browser:
        yield HttpAgent(site) if browser is None else ChromiumAgent(browser, site)


@asynccontextmanager
async def _browser(note: Callable[[str], None]) -> AsyncIterator[Browser | None]:
    try:
        executable = find_chromium()
        from playwright.async_api import Error, async_playwright
    except ImportError:
        note(f"no browser: {MissingExtraError('playwright', 'driving Chromium')}")
        yield None
        return
    except AdapterError as error:
        note(f"no browser: {error}")
        yield None
        return
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=executable, args=launch_arguments())
        except Error as error:
            note(f"{executable} does not start: {str(error).splitlines()[0]}")
            browser = None
        try:
            yield browser
        finally:
            if browser is not None:
                with suppress(Error):  # a Ctrl-C reaches Playwright's driver as well, which then closes it itself
                    await browser.close()
