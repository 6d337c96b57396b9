"""An agent leaves at a random moment, over a page that writes cookies, both storages and a database.

    python -m tests.browsers.leave_moments --moments 1000 [--driver playwright] [--seed 1] [--at-once 4]

What the page knew to be stored 300 ms before must be in the state, nothing older may replace it, and the exit raises nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from playwright.async_api import async_playwright
from playwright.sync_api import sync_playwright
from selenium import webdriver

from session_reuse.browsers import playwright, playwright_sync
from session_reuse.browsers.selenium import attach_driver, chromedriver, default_options
from tests.browsers.patience import scale_limits
from tests.browsers.sites import serve_sites
from tests.browsers.visits import LAUNCH, entry, fresh, items, next_session
from tests.harness.polling import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from session_reuse import BrowserSession
    from tests.browsers.sites import Sites

CHECKPOINT_AFTER = 0.1
_BATCH = 50
"""Agents that share a browser, one after the other."""
BEGUN = "window.confirmed?.length > 3"
KNOWN = "Math.max(0, ...confirmed.filter(([at]) => at < performance.now() - 300).map(([, n]) => n))"
"""The last number that the page knew to be stored 300 ms ago."""


class Moment(NamedTuple):
    """One agent's leave.

    Attributes:
        number: of the moment. Names the site.
        pause: seconds until the agent leaves.
        way: how it leaves: `end`, `error`, `navigate`, `close_page`, `close_context`, `cancel`.
    """

    number: int
    pause: float
    way: str


class LeavingError(Exception):
    """What an agent that fails raises."""


def moments(count: int, seed: int, ways: tuple[str, ...]) -> list[Moment]:
    """Return random moments, the same for the same seed."""
    chance = random.Random(seed)
    return [Moment(number, chance.random() * 0.6, chance.choice(ways)) for number in range(count)]


def faults(session: BrowserSession, sites: Sites, moment: Moment, least: int) -> list[str]:
    """Return which parts of the state that an agent has left are missing or too old."""
    origin, domain = sites.origin(_host(moment)), f"{_host(moment)}.localhost"
    stores = [store for each in entry(session, origin).get("indexedDB", ()) for store in each["stores"]]
    records = [each["value"]["n"] for store in stores for each in store["records"] if store["name"] == "users"]
    found = {
        "cookie": [each["value"] for each in session.storage_state["cookies"] if each["domain"] == domain],
        "localStorage": [items(session, origin).get("n", 0)],
        "sessionStorage": [items(session, origin, "sessionStorage").get("n", 0)],
        "database": records,
    }
    newest = {place: max(map(int, values), default=0) for place, values in found.items()}
    reports = [str(problem) for problem in session.problems]
    return [f"{moment}: {place} holds {n}, known {least} {reports}" for place, n in newest.items() if n < least]


def _host(moment: Moment) -> str:
    return f"counting{moment.number}"


async def leave_playwright(browser: Any, sites: Sites, moment: Moment) -> list[str]:
    """Have an agent of Playwright's asynchronous API leave, twice: the second one starts from what the first has left."""
    session, found = fresh(), []
    for _ in range(2):
        known: list[int] = []
        agent = asyncio.create_task(_work(session, browser, sites, moment, known))
        if moment.way == "cancel":
            while not known and not agent.done():
                await asyncio.sleep(0.01)
            agent.cancel()
        with contextlib.suppress(LeavingError, asyncio.CancelledError):
            await agent
        found += faults(session, sites, moment, known[-1])
        session = next_session(session)
    return found


async def _work(session: BrowserSession, browser: Any, sites: Sites, moment: Moment, known: list[int]) -> None:
    async with playwright.open_context(session, browser, checkpoint_after=CHECKPOINT_AFTER) as context:
        page = await context.new_page()
        await page.goto(sites.url(_host(moment), "/counting"), timeout=120_000)
        await page.wait_for_function(BEGUN, timeout=120_000)
        await asyncio.sleep(moment.pause)
        known.append(await page.evaluate(KNOWN))
        if moment.way == "cancel":
            await asyncio.sleep(60)
        elif moment.way == "navigate":
            await page.goto(sites.url("elsewhere", "/blank"), timeout=120_000)
        elif moment.way == "close_page":
            await page.close()
        elif moment.way == "close_context":
            await context.close()
        elif moment.way == "error":
            raise LeavingError


def leave_playwright_sync(browser: Any, sites: Sites, moment: Moment) -> list[str]:
    """Have an agent of Playwright's synchronous API leave, twice."""
    session, found = fresh(), []
    for _ in range(2):
        known = [0]
        with (
            contextlib.suppress(LeavingError),
            playwright_sync.open_context(session, browser, checkpoint_after=CHECKPOINT_AFTER) as context,
        ):
            page = context.new_page()
            page.goto(sites.url(_host(moment), "/counting"), timeout=120_000)
            page.wait_for_function(BEGUN, timeout=120_000)
            page.wait_for_timeout(moment.pause * 1000)
            known.append(page.evaluate(KNOWN))
            if moment.way == "navigate":
                page.goto(sites.url("elsewhere", "/blank"), timeout=120_000)
            elif moment.way == "close_page":
                page.close()
            elif moment.way == "close_context":
                context.close()
            elif moment.way == "error":
                raise LeavingError
        found += faults(session, sites, moment, known[-1])
        session = next_session(session)
    return found


def leave_devtools(driver: Any, sites: Sites, moment: Moment) -> list[str]:
    """Have an agent of Selenium leave a browser that goes on: it is followed over a DevTools connection of our own."""
    session, known = fresh(), [0]
    driver.switch_to.new_window("tab")
    with contextlib.suppress(LeavingError), attach_driver(session, driver, checkpoint_after=None):
        driver.get(sites.url(_host(moment), "/counting"))
        wait_until(lambda: driver.execute_script(f"return {BEGUN}"), timeout=120)
        time.sleep(moment.pause)
        known.append(int(driver.execute_script(f"return {KNOWN}")))
        if moment.way == "navigate":
            driver.get(sites.url("elsewhere", "/blank"))
        elif moment.way == "close_page":
            driver.close()
        elif moment.way == "error":
            raise LeavingError
    if moment.way != "close_page":
        driver.close()
    driver.switch_to.window(driver.window_handles[0])
    return faults(session, sites, moment, known[-1])


@contextlib.contextmanager
def started_playwright() -> Iterator[Any]:
    """Start a browser of Playwright's synchronous API."""
    with sync_playwright() as running:
        yield running.chromium.launch(**LAUNCH)


@contextlib.contextmanager
def started_selenium() -> Iterator[Any]:
    """Start a driver that is not ours."""
    driver = webdriver.Chrome(default_options(), chromedriver())
    try:
        yield driver
    finally:
        driver.quit()


def in_threads(
    start: Any, leave: Callable[..., list[str]], sites: Sites, todo: list[Moment], at_once: int
) -> list[str]:
    """Have agents of a synchronous client leave, in threads with a browser each. Return the faults."""
    done = Counter[str]()

    def work(mine: list[Moment]) -> list[str]:
        found = []
        with start() as browser:
            for moment in mine:
                try:
                    part = leave(browser, sites, moment)
                except Exception as error:  # noqa: BLE001 - that is a fault, too
                    part = [f"{moment}: {type(error).__name__}: {str(error)[:100]!r}"]
                _show(done, len(todo), part)
                found += part
        return found

    with ThreadPoolExecutor(at_once) as threads:
        parts = threads.map(work, [todo[number::at_once] for number in range(at_once)])
        return [fault for part in parts for fault in part]


async def in_tasks(sites: Sites, todo: list[Moment], at_once: int) -> list[str]:
    """Have agents of Playwright's asynchronous API leave, in contexts of one browser. Return the faults."""
    done, free = Counter[str](), asyncio.Semaphore(at_once)

    async def work(browser: Any, moment: Moment) -> list[str]:
        async with free:
            try:
                found = await leave_playwright(browser, sites, moment)
            except Exception as error:  # noqa: BLE001 - that is a fault, too
                found = [f"{moment}: {type(error).__name__}: {str(error)[:100]!r}"]
            _show(done, len(todo), found)
            return found

    found: list[str] = []
    async with async_playwright() as running:
        for start in range(0, len(todo), _BATCH):
            browser = await running.chromium.launch(**LAUNCH)
            parts = await asyncio.gather(*(work(browser, moment) for moment in todo[start : start + _BATCH]))
            found += [fault for part in parts for fault in part]
            await browser.close()
    return found


_printing = threading.Lock()


def _report(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _show(done: Counter[str], total: int, found: list[str]) -> None:
    with _printing:
        _report(*(f"  {fault}" for fault in found))
        done["moments"] += 1
        if done["moments"] % 25 == 0:
            _report(f"  {done['moments']} of {total}")


WAYS = ("end", "error", "navigate", "close_page")
DRIVERS: dict[str, Callable[[Sites, int, int, int], list[str]]] = {
    "playwright": lambda sites, count, seed, at_once: asyncio.run(
        in_tasks(sites, moments(count, seed, (*WAYS, "close_context", "cancel")), at_once)
    ),
    "playwright_sync": lambda sites, count, seed, at_once: in_threads(
        started_playwright, leave_playwright_sync, sites, moments(count, seed, (*WAYS, "close_context")), at_once
    ),
    "devtools": lambda sites, count, seed, at_once: in_threads(
        started_selenium, leave_devtools, sites, moments(count, seed, WAYS), at_once
    ),
}


def main() -> int:
    """Print what was missing, for each driver. The exit status says whether anything was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=1000, help="of each driver")
    parser.add_argument("--driver", choices=DRIVERS, action="append", help="all of them if not given")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=4, help="agents that run at the same time")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies our limits of time: for a busy machine")
    chosen = parser.parse_args()
    scale_limits(chosen.patience)
    total = 0
    for driver in chosen.driver or DRIVERS:
        began = time.monotonic()
        with serve_sites() as sites:
            found = DRIVERS[driver](sites, chosen.moments, chosen.seed, chosen.at_once)
        _report(f"{driver}: {len(found)} faults in {chosen.moments} moments, {time.monotonic() - began:.0f} s")
        total += len(found)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
