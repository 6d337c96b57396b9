# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded,playwright]"]
# ///
"""Log in with Playwright once. Every later browser starts logged in.

The site is a small one on loopback (`login_site.py`). Chromium runs headless: the one of `playwright install chromium`,
or the system's.
"""

from __future__ import annotations

import asyncio
import time

from login_site import LoginSite
from playwright.async_api import Browser, Page, async_playwright

from session_reuse import reusable_session
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.browsers.playwright import open_context


async def log_in(page: Page, user: str) -> None:
    """Fill in the form."""
    await page.fill("#user", user)
    await page.click("#submit")


async def visit(browser: Browser, site: LoginSite, agent: str) -> None:
    """Run one agent: open the page, and log in if there is a form."""
    began = time.perf_counter()
    async with (
        reusable_session("playwright-login/alice", agent_id=agent) as session,
        open_context(session, browser) as context,
    ):
        page = await context.new_page()
        await page.goto(site.url)
        if await page.query_selector("#user"):
            await log_in(page, "alice")
        await page.wait_for_selector("h1")
        heading = await page.inner_text("h1")
        print(f"{agent}: {heading!r} after {time.perf_counter() - began:.2f} s, reused={session.reused}")
    print(f"{agent}: left, {session.save_outcome}")


async def main() -> None:
    """Run one agent after the other, each in a new browser."""
    with LoginSite() as site:
        async with async_playwright() as playwright:
            for agent in ("agent-1", "agent-2"):
                browser = await playwright.chromium.launch(executable_path=find_chromium(), args=launch_arguments())
                await visit(browser, site, agent)
                await browser.close()
        print(f"the form was filled in {site.logins} time(s)")


asyncio.run(main())
