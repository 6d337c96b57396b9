"""Chromium, side by side in one run: restore to first page, later pages, many agents, capture, long visits.

    python benchmarks/scorecard.py --only first-page,database,next-page,next-page-by-address,twenty-agents,capture,long-visit,browser-use

Each sample of a restore gets its own browser. The arms take turns. Read the ratios, not the milliseconds. `next page` is an
origin to which a tab is sent later by `goto`, or led by a link, in time and in CPU of browser, driver and Python together.
`floor` is a hand-made init script with the same data, and the cookies: the least that any restore by script takes.
Playwright's own restore takes 0.1 to 0.2 s per origin, so from 50 origins on it runs once, and with --quick not at 200.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.async_api import async_playwright

from benchmarks.reporting import Goal, Results, table
from session_reuse._browser_session import BrowserSession
from session_reuse._state.storage_state import to_playwright
from session_reuse.browsers._chromium_process import ChromiumProcess
from session_reuse.browsers.cdp import open_chromium
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.browsers.playwright import open_context

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Playwright

Way = Callable[["Page", str], Awaitable[None]]
Place = Callable[[str, "Playwright", int, dict[str, Any]], AbstractAsyncContextManager["BrowserContext"]]
Samples = dict[str, list[float]]
_PAGE = b"<!doctype html><title>t</title><body>"
_DATABASE_PAGE = b"""<!doctype html><title>t</title><body><script>
const asked = indexedDB.open("auth", 1)
asked.onupgradeneeded = () => asked.result.createObjectStore("users", { keyPath: "id" })
asked.onsuccess = () => {
  const read = asked.result.transaction("users").objectStore("users").get(1)
  read.onsuccess = () => { document.title = read.result ? "in" : "out"; document.body.dataset.done = 1 }
}
</script>"""
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
            self._answer(200, {"/form": _FORM, "/database": _DATABASE_PAGE}.get(self.path, _PAGE), {})

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
        """Ignore connections that a closed browser has dropped."""
        with suppress(ConnectionError):
            super().handle_one_request()

    def log_message(self, *_: object) -> None:
        """Log nothing."""

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
        await _restore_by_hand(context, state)
    return await _first_page(context, url, start, None if arm == "none" else "T")


async def _restore_by_hand(context: BrowserContext, state: dict[str, Any]) -> None:
    """Do the least that a script for all origins can be: the floor for any restore by init script."""
    await context.add_cookies(state["cookies"])
    data = {entry["origin"]: json.dumps(entry["localStorage"]) for entry in state["origins"]}
    fill = "for (const { name, value } of JSON.parse(text)) localStorage.setItem(name, value)"
    script = f"(() => {{ const text = {json.dumps(data)}[location.origin]; if (text) {fill}; }})()"
    await context.add_init_script(script)


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


async def measure_next_page(
    playwright: Playwright, port: int, rounds: int, way: Way, place: Place, arms: tuple[str, ...]
) -> tuple[Samples, Samples]:
    """Time further pages of a tab, each of another origin. Return seconds and CPU seconds.

    `ours` and `floor`, a hand-made script, restore each of them. `followed` is ours with nothing stored for them.
    """
    origins, steps = 50, 8
    seconds: Samples = {arm: [] for arm in arms}
    cpu: Samples = {arm: [] for arm in arms}
    for round_number in range(rounds):
        for arm in _rotated(list(arms), round_number):
            state = made_state(origins, port, 2.5)
            async with place(arm, playwright, port, state) as context:
                page = await context.new_page()
                await page.goto(f"http://elsewhere.localhost:{port}/")
                await asyncio.sleep(0.5)
                before = cpu_seconds()
                for step in range(steps):
                    await _timed(way(page, f"http://s{step}.localhost:{port}/"), seconds[arm])
                    await asyncio.sleep(0.1)
                cpu[arm].append((cpu_seconds() - before) / steps)
                if await page.evaluate("localStorage.getItem('token')") != ("T" if arm in {"ours", "floor"} else None):
                    raise SystemExit("the page does not have the token that was to be restored")
    return seconds, cpu


@asynccontextmanager
async def in_a_browser(
    arm: str, playwright: Playwright, port: int, state: dict[str, Any]
) -> AsyncIterator[BrowserContext]:
    """Open a context of Playwright's."""
    async with warm_browser(playwright, port) as browser, _context(arm, browser, state) as context:
        yield context


@asynccontextmanager
async def by_address(
    arm: str, playwright: Playwright, _port: int, state: dict[str, Any]
) -> AsyncIterator[BrowserContext]:
    """Open a browser of which the agent knows the address alone, as under `session-reuse run`. `none` starts it without a session."""
    if arm == "none":
        process = ChromiumProcess(headless=True)
        try:
            address = await process.websocket()
            async with _connected(playwright, address) as context:
                yield context
        finally:
            await asyncio.to_thread(process.stop)
        return
    session = BrowserSession("benchmark", storage_state=_stored(arm, state))
    async with open_chromium(session, headless=True) as chromium, _connected(playwright, chromium.cdp_url) as context:
        yield context


@asynccontextmanager
async def _connected(playwright: Playwright, address: str) -> AsyncIterator[BrowserContext]:
    browser = await playwright.chromium.connect_over_cdp(address)
    yield browser.contexts[0]
    await browser.close()


def _stored(arm: str, state: dict[str, Any]) -> dict[str, Any]:
    return state if arm == "ours" else {**state, "origins": []}


@asynccontextmanager
async def _context(arm: str, browser: Browser, state: dict[str, Any]) -> AsyncIterator[BrowserContext]:
    if arm in {"ours", "followed"}:
        session = BrowserSession("benchmark", storage_state=_stored(arm, state))
        async with open_context(session, browser) as context:
            yield context
        return
    native = {"storage_state": to_playwright(state)} if arm == "playwright" else {}
    context = await browser.new_context(**native)
    if arm == "floor":
        await _restore_by_hand(context, state)
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


async def measure_many(playwright: Playwright, port: int, agents: int, rounds: int) -> tuple[Samples, int]:
    """Time agents that start at once in one browser, each with a login in a database. Return how few found it, at worst."""
    samples: Samples = {"none": [], "ours": [], "playwright": []}
    logged_in = agents
    state = made_state(1, port, 1, databases=True)
    for round_number in range(rounds):
        for arm in _rotated(list(samples), round_number):
            async with warm_browser(playwright, port) as browser:

                async def visit(arm: str = arm, browser: Browser = browser) -> bool:
                    async with _context(arm, browser, copy.deepcopy(state)) as context:
                        page = await context.new_page()
                        await page.goto(f"{state['origins'][0]['origin']}/database")
                        await page.wait_for_selector("[data-done]", state="attached")
                        return await page.title() == "in"

                found = await _timed(asyncio.gather(*(visit() for _ in range(agents))), samples[arm])
                if arm == "ours":
                    logged_in = min(logged_in, sum(found))
    return samples, logged_in


async def measure_long(playwright: Playwright, port: int, pages: int, arm: str) -> tuple[float, float]:
    """Return by how many MB in 100 pages Python and the driver have grown after the first fifth of a long visit."""
    async with warm_browser(playwright, port) as browser, _context(arm, browser, made_state(40, port, 2.5)) as context:
        page = await context.new_page()
        for number in range(pages):
            await page.goto(f"http://s{number % 40}.localhost:{port}/")
            await page.evaluate("(number) => { localStorage.page = number }", number)
            if number == pages // 5:
                before = _python_and_driver()
        after = _python_and_driver()
    hundreds = (pages - pages // 5) / 100
    python, driver = ((new - old) / hundreds / 1e6 for new, old in zip(after, before, strict=True))
    return python, driver


def _python_and_driver() -> tuple[int, int]:
    gc.collect()
    return _resident(os.getpid()), sum(_resident(pid) for pid in _children(os.getpid()) if "node" in _name(pid))


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text("utf-8").strip()


def _children(pid: int) -> list[int]:
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]


# browser-use ----------------------------------------------------------------------------------------------------------


async def browser_use_visit(arm: str, state: dict[str, Any], folder: Path) -> float:
    """Start a browser-use session and return the seconds to its first page. It must find the stored token."""
    os.environ |= _BROWSER_USE_QUIET
    from browser_use import BrowserSession as AgentBrowser

    from session_reuse.browsers.browser_use import open_browser_session

    options: dict[str, Any] = {
        "headless": True, "executable_path": find_chromium(), "args": launch_arguments(), "chromium_sandbox": False,
        "enable_default_extensions": False,
    }  # fmt: skip
    start = time.perf_counter()
    if arm == "ours":
        async with open_browser_session(BrowserSession("benchmark", storage_state=state), **options) as browser:
            return await _browser_use_page(browser, state, start, "T")
    if arm == "its own":
        file = folder / "state.json"
        file.write_text(json.dumps(to_playwright(state)), "utf-8")
        options["storage_state"] = str(file)
    browser = AgentBrowser(**options)
    try:
        return await _browser_use_page(browser, state, start, None if arm == "none" else "T")
    finally:
        await browser.kill()


async def _browser_use_page(browser: Any, state: dict[str, Any], start: float, expected: str | None) -> float:
    await browser.start()
    await browser.navigate_to(f"{state['origins'][-1]['origin']}/")
    seconds = time.perf_counter() - start
    page = await browser.get_current_page()
    found = await page.evaluate("() => localStorage.getItem('token') || ''")
    if found != (expected or ""):
        raise SystemExit(f"browser-use's page has {found!r}, not the token that was to be restored")
    return seconds


_BROWSER_USE_QUIET: Final = {
    "ANONYMIZED_TELEMETRY": "false", "BROWSER_USE_CLOUD_SYNC": "false", "BROWSER_USE_VERSION_CHECK": "false",
    "BROWSER_USE_SETUP_LOGGING": "false", "BROWSER_USE_LOGGING_LEVEL": "error",
}  # fmt: skip


# Rows of the scorecard ------------------------------------------------------------------------------------------------


def report(title: str, samples: Samples, base: str) -> dict[str, float]:
    """Print medians, and return their ratios to one arm."""
    medians = {arm: statistics.median(values) for arm, values in samples.items() if values}
    ratios = {arm: found / medians[base] for arm, found in medians.items()}
    rows = [
        (arm, f"{1e3 * found:.1f}", f"{1e3 * min(samples[arm]):.1f}", f"{1e3 * max(samples[arm]):.1f}", f"{ratios[arm]:.3f}", str(len(samples[arm])))
        for arm, found in medians.items()
    ]  # fmt: skip
    table(title, ("", "median ms", "least", "most", f"/ {base}", "n"), rows)
    return ratios


async def _with_site(part: Callable[[Playwright, int], Awaitable[Any]]) -> Any:
    with serve() as port:
        async with async_playwright() as playwright:
            return await part(playwright, port)


def _restore(rounds: int, origins: int, arms: list[str], *, kilobytes: float = 2.5, databases: bool = False) -> Results:
    samples: Samples = asyncio.run(
        _with_site(lambda playwright, port: measure_restore(playwright, port, origins, rounds, arms, kilobytes=kilobytes, databases=databases))
    )  # fmt: skip
    what = f"{origins} origin{'s' * (origins > 1)} {'with a database' if databases else f'of {kilobytes:g} KB'}"
    title = f"restore to first page, {what}"
    ratios = report(title, samples, "none")
    peer = f"Playwright {ratios['playwright']:.2f}" if "playwright" in ratios else ""
    return {title: samples}, [Goal(f"Chromium, {title} / no state", 1.1, ratios["ours"], peer=peer)]


def first_page(*, quick: bool = False, rounds: int = 21) -> Results:
    """Restore 50 and 200 origins."""
    rounds = 3 if quick else rounds
    parts = [
        _restore(rounds, 50, ["none", "ours", "floor", "playwright"]),
        _restore(rounds, 200, ["none", "ours", "floor", *([] if quick else ["playwright"])]),
    ]
    return [results for results, _ in parts], [goal for _, goals in parts for goal in goals]


def database(*, quick: bool = False, rounds: int = 21) -> Results:
    """Restore one origin with a database."""
    return _restore(3 if quick else rounds, 1, ["none", "ours", "playwright"], databases=True)


def next_page(*, quick: bool = False, rounds: int = 21) -> Results:
    """Go on to other origins, by `goto` and by a link."""
    return _next_page("plain context", in_a_browser, ("none", "floor", "ours", "followed"), 3 if quick else rounds)


def next_page_by_address(*, quick: bool = False, rounds: int = 21) -> Results:
    """Do the same with an agent that knows the browser by its address."""
    return _next_page("plain Chromium by address", by_address, ("none", "ours", "followed"), 3 if quick else rounds)


def _next_page(base: str, place: Place, arms: tuple[str, ...], rounds: int) -> Results:
    results, goals = {}, []
    for name, way in (("goto", by_goto), ("a link", by_link)):
        found = asyncio.run(
            _with_site(lambda playwright, port, way=way: measure_next_page(playwright, port, rounds, way, place, arms))
        )
        for kind, limit, samples in zip(("time", "CPU"), (1.02, 1.10), found, strict=True):
            title = f"next page by {name}, {kind}"
            results[title] = samples
            ratios = report(f"{title} / {base}", samples, "none")
            peer = f"hand-made script {ratios['floor']:.2f}" if "floor" in ratios else ""
            goals += [
                Goal(f"Chromium, {title} / {base}, nothing stored for it", limit, ratios["followed"]),
                Goal(f"Chromium, {title} / {base}, restored", limit, ratios["ours"], peer=peer),
            ]
    return results, goals


def twenty_agents(*, quick: bool = False, rounds: int = 20, agents: int = 20) -> Results:
    """Start agents at once in one browser, each with a login in a database."""
    rounds, agents = (1, 3) if quick else (rounds, agents)
    samples, logged_in = asyncio.run(
        _with_site(lambda playwright, port: measure_many(playwright, port, agents, rounds))
    )
    ratios = report(f"{agents} agents with databases in one browser", samples, "none")
    goals = [
        Goal(f"{agents} agents with databases in one browser / plain contexts", 1.1, ratios["ours"], peer=f"Playwright {ratios['playwright']:.2f}"),
        Goal(f"{agents} agents with databases in one browser: logged in, at worst", agents, logged_in, at_least=True),
    ]  # fmt: skip
    return samples, goals


def capture(*, quick: bool = False, rounds: int = 21, origins: int = 30) -> Results:
    """Capture visited origins at the exit, beside `storage_state()`."""
    rounds, origins = (1, 5) if quick else (rounds, origins)
    samples: Samples = asyncio.run(
        _with_site(lambda playwright, port: measure_capture(playwright, port, origins, rounds))
    )
    ratios = report(f"capture, {origins} visited origins", samples, "playwright")
    theirs = statistics.median(samples["playwright"])
    name = f"Chromium, capture, {origins} origins / storage_state()"
    return samples, [Goal(name, 0.01, ratios["ours"], peer=f"Playwright {1e3 * theirs:.0f} ms")]


def login(*, quick: bool = False, rounds: int = 9) -> Results:
    """Get to a page behind a login by the form, and by a session. Each answer of the server takes 0.1 s."""
    samples: Samples = asyncio.run(
        _with_site(lambda playwright, port: measure_login(playwright, port, 2 if quick else rounds))
    )
    ratios = report("to the page behind the login, 0.1 s per server answer", samples, "login")
    return samples, [Goal("Chromium, to the page behind the login, by session / by form", 1.0, ratios["reuse"])]


def long_visit(*, quick: bool = False, pages: int = 1000) -> Results:
    """Visit many pages in one tab, and weigh Python and the driver."""
    pages = 100 if quick else pages
    grown = {
        arm: asyncio.run(_with_site(lambda playwright, port, arm=arm: measure_long(playwright, port, pages, arm)))
        for arm in ("none", "ours")
    }
    rows = [(arm, f"{python:.2f}", f"{driver:.2f}") for arm, (python, driver) in grown.items()]
    table(f"MB in 100 pages, {pages:,} pages", ("", "Python", "driver"), rows)
    more = sum(grown["ours"]) - sum(grown["none"])
    peer = f"plain Playwright grows by {sum(grown['none']):.1f} MB"
    return grown, [
        Goal(f"{pages:,} pages: Python and driver grow by more than plain, MB in 100 pages", 0.5, more, peer=peer)
    ]


def browser_use(*, quick: bool = False, rounds: int = 5, origins: int = 50) -> Results:
    """Start browser-use with 50 origins, beside its own `storage_state`."""
    samples: Samples = {"none": [], "ours": [], "its own": []}
    with serve() as port, tempfile.TemporaryDirectory() as folder:
        for round_number in range(1 if quick else rounds):
            for arm in _rotated(list(samples), round_number):
                visit = browser_use_visit(arm, made_state(origins, port, 2.5), Path(folder))
                samples[arm].append(asyncio.run(visit))
    title = f"browser-use, start to first page, {origins} origins"
    ratios = report(title, samples, "none")
    return samples, [
        Goal(
            f"{title} / its own storage_state",
            1.0,
            ratios["ours"] / ratios["its own"],
            peer=f"its own {ratios['its own']:.2f} of none",
        )
    ]
