"""Chromium, side by side in one run: restore to first page, capture at exit, login against reuse.

    python benchmarks/browser.py [--rounds 5] [--quick] [--json FILE] [--plot FILE]

Each sample of a restore gets a browser of its own; the arms take turns. Read the ratios, not the milliseconds. `next page` is an
origin to which a tab is sent later by `goto`, or led by a link, in time and in CPU of browser, driver and Python together.
`floor` is a hand-made init script with the same data, and the cookies: the least that any restore by script takes.
Playwright's own restore takes 0.1 to 0.2 s per origin, so from 50 origins on it runs once, and with --quick not at 200.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.async_api import async_playwright

from benchmarks.reporting import Goal, arguments, bar_chart, goals_table, write_json
from session_reuse._browser_session import BrowserSession
from session_reuse._state.storage_state import to_playwright
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.browsers.playwright import open_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from playwright.async_api import Browser, BrowserContext, Page, Playwright

    Way = Callable[[Page, str], Awaitable[None]]

Samples = dict[str, list[float]]
_PAGE = b"<!doctype html><title>t</title><body>"
_FORM = (
    b"<!doctype html><body><form method=post action=/login><input name=user><input name=word><button>go</button></form>"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/account":
            time.sleep(_Handler.think_seconds)
            is_in = "sid=S" in self.headers.get("Cookie", "")
            self._answer(200 if is_in else 302, _PAGE + b"<p id=account>", {} if is_in else {"Location": "/form"})
        else:
            time.sleep(_Handler.think_seconds if self.path == "/form" else 0)
            self._answer(200, _FORM if self.path == "/form" else _PAGE, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(_Handler.think_seconds)
        self._answer(303, b"", {"Location": "/account", "Set-Cookie": "sid=S; HttpOnly; Path=/"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self) -> None:
        """Say nothing of connections that a closed browser has dropped."""
        with suppress(ConnectionError):
            super().handle_one_request()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    think_seconds = 0.1


@contextmanager
def serve() -> Iterator[int]:
    """Run the site on a free port, for all hostnames under `.localhost`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@asynccontextmanager
async def warm_browser(playwright: Playwright, port: int) -> AsyncIterator[Browser]:
    """Launch a browser that has shown one page, so that its first start-up work is done."""
    browser = await playwright.chromium.launch(executable_path=find_chromium(), args=launch_arguments())
    context = await browser.new_context()
    await (await context.new_page()).goto(f"http://warm.localhost:{port}/")
    await context.close()
    yield browser
    await browser.close()


def made_state(origins: int, port: int, kilobytes: float, *, databases: bool = False) -> dict[str, Any]:
    """Return a state with a cookie and this much localStorage in each origin, and perhaps a small database."""
    values = [{"name": f"k{j}", "value": "x" * 250} for j in range(round(4 * kilobytes))]
    items = [{"name": "token", "value": "T"}, *values]
    return {
        "cookies": [
            {"name": "c", "value": "1", "domain": f"s{i}.localhost", "path": "/", "expires": -1} for i in range(origins)
        ],
        "origins": [
            {"origin": f"http://s{i}.localhost:{port}", "localStorage": items, **(_DATABASE if databases else {})}
            for i in range(origins)
        ],
    }


_STORE = {"name": "users", "autoIncrement": False, "keyPath": "id", "indexes": [], "records": [{"value": {"id": 1}}]}
_DATABASE = {"indexedDB": [{"name": "auth", "version": 1, "stores": [_STORE]}]}


async def time_to_first_page(arm: str, browser: Browser, state: dict[str, Any]) -> float:
    """Return the seconds from nothing to the first restored page."""
    url = f"{state['origins'][-1]['origin']}/"
    start = time.perf_counter()
    if arm == "ours":
        async with open_context(BrowserSession("benchmark", storage_state=state), browser) as context:
            return await _first_page(context, url, start, "T")
    native = {"storage_state": to_playwright(state)} if arm == "playwright" else {}
    context = await browser.new_context(**native)
    if arm == "floor":
        await context.add_cookies(state["cookies"])
        await context.add_init_script(_hand_made_script(state))
    return await _first_page(context, url, start, None if arm == "none" else "T")


def _hand_made_script(state: dict[str, Any]) -> str:
    """Return the least that a script for all origins can be: the floor for any restore by init script."""
    data = {entry["origin"]: json.dumps(entry["localStorage"]) for entry in state["origins"]}
    fill = "for (const { name, value } of JSON.parse(text)) localStorage.setItem(name, value)"
    return f"(() => {{ const text = {json.dumps(data)}[location.origin]; if (text) {fill}; }})()"


async def _first_page(context: BrowserContext, url: str, start: float, expected: str | None) -> float:
    page = await context.new_page()
    await page.goto(url)
    seconds = time.perf_counter() - start
    if await page.evaluate("localStorage.getItem('token')") != expected:
        raise SystemExit("the page does not have the token that was to be restored")
    return seconds


async def measure_restore(
    playwright: Playwright,
    port: int,
    origins: int,
    rounds: int,
    arms: list[str],
    *,
    kilobytes: float = 2.5,
    databases: bool = False,
) -> Samples:
    """Time each arm, in turns, in fresh browsers."""
    samples: Samples = {arm: [] for arm in arms}
    for round_number in range(rounds):
        for arm in _rotated(list(samples), round_number):
            if arm == "playwright" and origins >= 50 and round_number:
                continue
            async with warm_browser(playwright, port) as browser:
                state = made_state(origins, port, kilobytes, databases=databases)
                samples[arm].append(await time_to_first_page(arm, browser, state))
    return samples


async def measure_next_page(playwright: Playwright, port: int, rounds: int, way: Way) -> tuple[Samples, Samples]:
    """Time further pages of a tab, each of another origin, in a plain context and in ours; return seconds and CPU seconds."""
    origins, steps = 50, 8
    seconds: Samples = {"none": [], "ours": []}
    cpu: Samples = {"none": [], "ours": []}
    for round_number in range(rounds):
        for arm in _rotated(list(seconds), round_number):
            state = made_state(origins, port, 2.5)
            async with warm_browser(playwright, port) as browser, _context(arm, browser, state) as context:
                page = await context.new_page()
                await page.goto(f"http://elsewhere.localhost:{port}/")
                await asyncio.sleep(0.5)
                before = cpu_seconds()
                for step in range(steps):
                    await _timed(way(page, f"http://s{step}.localhost:{port}/"), seconds[arm])
                    await asyncio.sleep(0.1)
                cpu[arm].append((cpu_seconds() - before) / steps)
                if await page.evaluate("localStorage.getItem('token')") != ("T" if arm == "ours" else None):
                    raise SystemExit("the page does not have the token that was to be restored")
    return seconds, cpu


@asynccontextmanager
async def _context(arm: str, browser: Browser, state: dict[str, Any]) -> AsyncIterator[BrowserContext]:
    if arm == "ours":
        async with open_context(BrowserSession("benchmark", storage_state=state), browser) as context:
            yield context
        return
    context = await browser.new_context()
    yield context
    await context.close()


def cpu_seconds() -> float:
    """Return the CPU time of this process and of all below it that are alive: Python, the driver, the browser."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            used[int(stat.parent.name)] = int(fields[11]) + int(fields[12])
    family, found = {os.getpid()}, set()
    while family - found:
        found |= family
        family |= {pid for pid, parent in parents.items() if parent in family}
    return sum(used.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


async def by_goto(page: Page, url: str) -> None:
    """Send a tab to a page."""
    await page.goto(url)


async def by_link(page: Page, url: str) -> None:
    """Lead a tab to a page."""
    await page.evaluate("(url) => { location.href = url }", url)
    await page.wait_for_url(url)


def _rotated(arms: list[str], by: int) -> list[str]:
    return arms[by % len(arms) :] + arms[: by % len(arms)]


async def measure_capture(playwright: Playwright, port: int, origins: int, rounds: int) -> Samples:
    """Visit origins, then time our capture and Playwright's of the same context."""
    samples: Samples = {"ours": [], "playwright": []}
    for _ in range(rounds):
        session = BrowserSession("benchmark")
        async with warm_browser(playwright, port) as browser:
            bound = open_context(session, browser, checkpoint_after=None)
            async with bound as context:
                page = await context.new_page()
                for number in range(origins):
                    await page.goto(f"http://v{number}.localhost:{port}/")
                    await page.evaluate("localStorage.token = 'T'")
                await _timed(bound._finalize(), samples["ours"])  # noqa: SLF001 - what `context.close()` does first
                theirs = await _timed(context.storage_state(), samples["playwright"])
                if _local(session.storage_state) != _local(theirs):
                    raise SystemExit("the two captures differ")
    return samples


def _local(state: Any) -> dict[str, Any]:
    return {entry["origin"]: entry["localStorage"] for entry in state["origins"]}


async def _timed(work: Any, samples: list[float]) -> Any:
    start = time.perf_counter()
    result = await work
    samples.append(time.perf_counter() - start)
    return result


async def measure_login(playwright: Playwright, port: int, rounds: int) -> Samples:
    """Time the way to a page behind a login: with the form, and with a session."""
    samples: Samples = {"login": [], "reuse": []}
    url = f"http://shop.localhost:{port}/account"
    for _ in range(rounds):
        session = BrowserSession("benchmark")
        async with warm_browser(playwright, port) as browser:
            start = time.perf_counter()
            async with open_context(session, browser) as context:
                page = await context.new_page()
                await page.goto(url)
                await page.fill("[name=user]", "alice")
                await page.fill("[name=word]", "secret")
                await page.click("button")
                await page.wait_for_selector("#account", state="attached")
                samples["login"].append(time.perf_counter() - start)
        async with warm_browser(playwright, port) as browser:
            start = time.perf_counter()
            async with open_context(session, browser) as context:
                page = await context.new_page()
                await page.goto(url)
                await page.wait_for_selector("#account", state="attached", timeout=5000)
                samples["reuse"].append(time.perf_counter() - start)
    return samples


def report(title: str, samples: Samples, base: str) -> dict[str, Any]:
    """Print medians and ratios to one arm; return them."""
    medians = {arm: statistics.median(values) for arm, values in samples.items()}
    print(f"\n{title}")
    for arm, median in medians.items():
        spread = f"{min(samples[arm]) * 1e3:.1f}..{max(samples[arm]) * 1e3:.1f}"
        ratio = median / medians[base]
        print(f"  {arm:<12}{median * 1e3:>10.1f} ms   {spread:>18}   x{ratio:<8.3f} n={len(samples[arm])}")
    ratios = {arm: medians[arm] / medians[base] for arm in medians}
    return {"title": title, "base": base, "medians": medians, "ratios": ratios, "samples": samples}


def goals(results: dict[str, dict[str, Any]]) -> list[Goal]:
    """Return the goals with what was measured."""

    def goal(name: str, limit: float) -> Goal:
        return Goal(f"Chromium, {name} / without us", limit, results[name]["ratios"]["ours"])

    return [
        goal("restore to first page, 50 origins of 2.5 KB", 1.1),
        goal("restore to first page, 200 origins of 2.5 KB", 1.1),
        goal("restore to first page, 1 origin with a database", 1.1),
        goal("next page by goto, time", 1.02),
        goal("next page by goto, CPU", 1.10),
        goal("next page by link, time", 1.02),
        goal("next page by link, CPU", 1.10),
        Goal(
            "Chromium, capture, 30 origins / storage_state()",
            0.01,
            results["capture, 30 visited origins"]["ratios"]["ours"],
        ),
    ]


async def measure(rounds: int, *, quick: bool) -> tuple[list[dict[str, Any]], list[Goal]]:
    """Run all parts and print their tables."""
    results: dict[str, dict[str, Any]] = {}

    def note(title: str, samples: Samples, base: str) -> None:
        results[title] = report(title, samples, base)

    with serve() as port:
        async with async_playwright() as playwright:
            for origins, kilobytes in ((1, 10), (50, 2.5), (200, 2.5), (200, 10)):
                arms = ["none", "ours", "floor", *(["playwright"] if origins < 200 and not quick else [])]
                samples = await measure_restore(playwright, port, origins, rounds, arms, kilobytes=kilobytes)
                note(f"restore to first page, {origins} origins of {kilobytes:g} KB", samples, "none")
            for origins in (1, 10):
                title = f"restore to first page, {origins} origin{'s' * (origins > 1)} with a database"
                arms = ["none", "ours", "playwright"]
                samples = await measure_restore(playwright, port, origins, rounds, arms, databases=True)
                note(title, samples, "none")
            for name, way in (("goto", by_goto), ("link", by_link)):
                seconds, cpu = await measure_next_page(playwright, port, rounds, way)
                note(f"next page by {name}, time", seconds, "none")
                note(f"next page by {name}, CPU", cpu, "none")
            capture = await measure_capture(playwright, port, 30, rounds)
            note("capture, 30 visited origins", capture, "playwright")
            logins = await measure_login(playwright, port, rounds)
            note("to the page behind the login, 0.1 s per server answer", logins, "login")
    return list(results.values()), goals(results)


def main() -> int:
    """Print a table of all parts, and the goals; the exit status says whether they were met."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each part; with --quick three")
    chosen = parser.parse_args()
    results, found = asyncio.run(measure(3 if chosen.quick else chosen.rounds, quick=chosen.quick))
    goals_table(found)
    write_json(chosen.json, results, found)
    bars = {f"{part['title']}: {arm}": 1e3 * median for part in results for arm, median in part["medians"].items()}
    bar_chart(chosen.plot, "Chromium, medians", "milliseconds", bars)
    return 0 if all(goal.met for goal in found) else 1


if __name__ == "__main__":
    sys.exit(main())
