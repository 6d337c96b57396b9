"""Opening a page with any client and reading its title once it has finished: `Site`'s words."""

from __future__ import annotations

from typing import Any

from tests.harness.polling import until, wait_until

LIMIT = 60.0


def _ended(title: Any) -> str:
    return title if isinstance(title, str) and title.startswith("done") else ""


async def visit_agent(browser_session: Any, url: str) -> str:
    """Return the words of a page opened in the current tab of a browser-use session."""
    await browser_session.navigate_to(url)
    return await agent_title(browser_session)


async def agent_title(browser_session: Any) -> str:
    """Return the words of the page in the current tab of a browser-use session."""

    async def words() -> str:
        page = await browser_session.get_current_page()
        return _ended(await page.evaluate("() => document.title"))

    return await until(words, timeout=LIMIT, message="the page did not come to its end")


async def submit_agent(browser_session: Any) -> str:
    """Log in with the form in the current tab of a browser-use session."""
    page = await browser_session.get_current_page()
    await page.evaluate("() => document.getElementById('submit').click()")

    async def welcomed() -> bool:
        page = await browser_session.get_current_page()
        return await page.evaluate("() => document.title") == "done welcome"

    await until(welcomed, timeout=LIMIT, message="the login did not come to its end")
    return "done welcome"


def visit_driver(driver: Any, url: str | None = None) -> str:
    """Return the words of a page opened in the current window of a driver."""
    if url is not None:
        driver.get(url)
    return wait_until(lambda: _ended(driver.title), timeout=LIMIT, message="the page did not come to its end")


def submit_driver(driver: Any) -> None:
    """Log in with the form in the current window of a driver."""
    driver.find_element("id", "submit").click()
    wait_until(lambda: driver.title == "done welcome", timeout=LIMIT, message="the login did not come to its end")


async def visit_page(page: Any, url: str) -> str:
    """Return the words of a page opened in a page of Playwright."""
    await page.goto(url)

    async def words() -> str:
        return _ended(await page.title())

    return await until(words, timeout=LIMIT, message="the page did not come to its end")
