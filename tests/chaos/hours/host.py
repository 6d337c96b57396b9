"""One host: agents in one real Chromium over one manager, started by the run as its own process.

The run writes words on its standard input: `go`, `crash` (kill the browser), `stop`. The host appends events to a file, one
JSON object a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from session_reuse import BrowserSession, Outcome, SessionManager, reusable_session
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.browsers.playwright import open_context
from tests.chaos.history import CONFIRMED
from tests.chaos.hours.network import children_of, memory_of
from tests.harness.lag import Lag
from tests.harness.pages import PageHandler, PageServer

if TYPE_CHECKING:
    from playwright.async_api import Browser, Playwright

KEY: Final = b"hours of faults, and not a key: "
MEMORY_EVERY: Final = 5.0
ENDING: Final = 120.0
"""Seconds in which the agents end their last visits."""
NOTICED: Final = 5.0
"""Seconds after which Playwright has noticed that a browser was killed."""
NEW_PAGE: Final = 60.0
"""Seconds in which a browser opens a tab."""
_PAGE: Final = b"<!doctype html><title>account</title><body>account"
_SEEN: Final = "() => ({ ...localStorage, cookie: document.cookie })"
_WORK: Final = """([agent, number, owner]) => {
  localStorage[agent] = number
  localStorage.owner = owner
  document.cookie = `owner=${encodeURIComponent(owner)}; max-age=86400`
  document.cookie = `${agent}=${number}; max-age=86400`
}"""


@dataclass(frozen=True, slots=True)
class Task:
    """What a host is to do."""

    host: int
    url: str
    agents: list[int]
    sessions: int
    seeds: list[int]
    seed: int
    rest: float
    site_port: int
    log: str


@dataclass(slots=True)
class Item:
    """What one agent knows of its own item in one session: only it writes there, one save after the other."""

    confirmed: int = 0
    written: int = 0
    at: float = 0.0


@dataclass
class Events:
    """The file of events."""

    path: Path

    def write(self, kind: str, **facts: Any) -> None:
        """Append an event."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "t": time.time(), **facts}) + "\n")


class _Site(PageHandler):
    protocol_version = "HTTP/1.1"

    def respond(self) -> None:
        self.answer(_PAGE)


class _SiteServer(PageServer):
    allow_reuse_port = True  # where hosts share loopback, all of them answer for the same origins


@dataclass
class Host:
    """The agents of one host."""

    task: Task
    events: Events
    manager: SessionManager
    playwright: Playwright
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    stopping: bool = False
    browser: Browser | None = None
    launching: asyncio.Lock = field(default_factory=asyncio.Lock)
    lag: Lag = field(default_factory=Lag)
    crashed_at: float = float("-inf")

    async def run(self) -> None:
        """Seed, wait for the word, work until told to stop."""
        for account in self.task.seeds:
            await self._seed(account)
        print("ready", flush=True)  # noqa: T201  (read by the run)
        memory = asyncio.create_task(self._weigh())
        agents: list[asyncio.Task[None]] = []
        while (word := (await asyncio.to_thread(sys.stdin.readline)).strip()) not in {"stop", ""}:
            if word == "go":
                agents = [asyncio.create_task(self._agent(number)) for number in self.task.agents]
            elif word == "crash":
                self._crash()
        self.stopping = True
        await self._ended(agents)
        memory.cancel()
        if self.browser is not None:
            await self.browser.close()

    async def _ended(self, agents: list[asyncio.Task[None]]) -> None:
        """Wait for the agents. Where one hangs is written down."""
        _, hanging = await asyncio.wait(agents, timeout=ENDING)
        for task in hanging:
            self.events.write("wrong", what=f"an agent did not end: {' < '.join(_awaits(task))}")
            task.cancel()

    async def _seed(self, account: int) -> None:
        while True:
            await self._visit(random.Random(account), account, "seed")
            if _name(account) in self.known:
                return

    async def _agent(self, number: int) -> None:
        chance, agent = random.Random(f"{self.task.seed}-{number}"), f"agent-{number}"
        while not self.stopping:
            account = min(chance.randrange(self.task.sessions), chance.randrange(self.task.sessions))
            began = time.monotonic()
            try:
                await self._visit(chance, account, agent)
            except (PlaywrightError, TimeoutError) as error:
                if self.crashed_at > began - NOTICED:
                    self.events.write("interrupted")
                else:
                    self.events.write("wrong", what=f"{agent} met {type(error).__name__}: {str(error)[:300]}")
            except Exception as error:  # noqa: BLE001  (nothing may come out)
                self.events.write("wrong", what=f"{agent} met {type(error).__name__}: {str(error)[:300]}")
            await asyncio.sleep(chance.uniform(0.0, self.task.rest))

    async def _visit(self, chance: random.Random, account: int, agent: str) -> None:
        name, began = _name(account), time.monotonic()
        known, worked = name in self.known or agent != "seed", False
        notes, stored = self._item(name, agent), self._item(name, f"browser:{agent}")
        async with reusable_session(name, agent, manager=self.manager) as session:
            entered, lag = time.monotonic() - began, self.lag.since(began)
            self._check_entered(session, name, agent, known=known)
            if session.degraded:  # it never saw the stored login: its notes are merged in, its cookies would not be
                session.data.update({"owner": name, f"away:{agent}": time.time()})
            else:
                notes.written = stored.written = max(notes.written, stored.written) + 1
                session.data.update({"owner": name, agent: notes.written})
                await self._browse(chance, session, account, agent, notes.written)
                worked = True
            leaving = time.monotonic()
        self._left(session, name, agent, worked=worked)
        self.events.write(
            "visit", outcome=session.outcome, stale=session.stale, known=known, entered=entered, lag=lag,
            left=time.monotonic() - leaving, saved=session.save_outcome, problems=[each.kind for each in session.problems],
        )  # fmt: skip

    def _left(self, session: BrowserSession, name: str, agent: str, *, worked: bool) -> None:
        if session.save_outcome not in CONFIRMED or not worked:
            return
        self.known.add(name)
        items = [self._item(name, agent)]
        if not session.problems:
            items.append(self._item(name, f"browser:{agent}"))
        for item in items:
            item.confirmed, item.at = item.written, time.time()

    async def _browse(
        self, chance: random.Random, session: BrowserSession, account: int, agent: str, number: int
    ) -> None:
        before = _storage(session, self._origin(account)).get(agent)
        async with open_context(session, await self._launched()) as context:
            # Playwright never answers a `new_page` that a killed browser has not seen: 6 to 11 of 60 plain ones, 1.65, 2026-11-26.
            async with asyncio.timeout(NEW_PAGE):
                page = await context.new_page()
            await page.goto(f"{self._origin(account)}/account", timeout=120_000)
            seen = await page.evaluate(_SEEN)
            if session.reused and before is not None and not session.problems and seen.get(agent) != before:
                self.events.write(
                    "wrong", what=f"{_name(account)}: {agent} was to see {before}, and sees {seen.get(agent)}"
                )
            if seen.get("owner", _name(account)) != _name(account):
                self.events.write("wrong", what=f"{_name(account)}: the page is of {seen['owner']}")
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            await page.evaluate(_WORK, [agent, number, _name(account)])
            await asyncio.sleep(chance.uniform(0.0, 0.5))

    def _check_entered(self, session: BrowserSession, name: str, agent: str, *, known: bool) -> None:
        if not session.reused:
            if session.data or session.storage_state["cookies"] or session.storage_state["origins"]:
                self.events.write("wrong", what=f"{name}: a fresh session with a state")
            if session.outcome is Outcome.MISSING and known:
                self.events.write("older", name=name, key="all", found=0, confirmed=1, at=self._last_confirmed(name))
            return
        if session.data.get("owner") != name:
            self.events.write("wrong", what=f"{name} shows the notes of {session.data.get('owner')}")
        if session.stale:  # a branch of this process: it gets what others have saved when the store is back
            return
        account = int(name.rpartition("-")[2])
        self._check(name, agent, session.data.get(agent, 0))
        self._check(name, f"browser:{agent}", int(_storage(session, self._origin(account)).get(agent, 0)))

    def _check(self, name: str, key: str, found: int) -> None:
        item = self._item(name, key)
        if found > item.written:
            self.events.write("wrong", what=f"{name}: {key} is {found}, and {item.written} was the last one written")
        if found < item.confirmed:
            self.events.write("older", name=name, key=key, found=found, confirmed=item.confirmed, at=item.at)
            item.confirmed = found

    def _last_confirmed(self, name: str) -> float:
        return max((item.at for (of, _), item in self.items.items() if of == name), default=0.0)

    def _item(self, name: str, key: str) -> Item:
        return self.items.setdefault((name, key), Item())

    def _origin(self, account: int) -> str:
        return f"http://a{account}.localhost:{self.task.site_port}"

    async def _launched(self) -> Browser:
        async with self.launching:
            if self.browser is None or not self.browser.is_connected():
                self.browser = await self.playwright.chromium.launch(
                    executable_path=find_chromium(), args=launch_arguments(), timeout=120_000
                )
            return self.browser

    def _crash(self) -> None:
        self.crashed_at = time.monotonic()
        for pid in _browsers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _weigh(self) -> None:
        while True:
            self.events.write(
                "memory",
                python=memory_of(os.getpid()),
                driver=sum(map(memory_of, children_of(os.getpid()))),
                browser=sum(memory_of(pid, below=True) for pid in _browsers()),
                pending=self.manager.stats().pending,
            )
            await asyncio.sleep(MEMORY_EVERY)


def _name(account: int) -> str:
    return f"shop.example/user-{account}"


def _storage(session: BrowserSession, origin: str) -> dict[str, str]:
    entries: list[Any] = [entry for entry in session.storage_state["origins"] if entry["origin"] == origin]
    return {item["name"]: item["value"] for entry in entries for item in entry.get("localStorage", ())}


def _awaits(task: asyncio.Task[None]) -> list[str]:
    """Return where a task waits, the innermost call first."""
    found: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None:
            found.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return found[::-1]


def _browsers() -> list[int]:
    """Return the browsers below this process: Playwright's driver starts them."""
    return [browser for driver in children_of(os.getpid()) for browser in children_of(driver)]


async def main(task: Task) -> None:
    """Work as one host, then write what was confirmed."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    events = Events(Path(task.log))

    def lost(fingerprint: str, why: str) -> None:
        events.write("refused" if "another login is stored" in why else "lost", name=fingerprint, why=why)

    site = _SiteServer(("127.0.0.1", task.site_port), _Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    manager = SessionManager(
        task.url, registry=None, encryption_keys=(KEY,), wait_replicas=1, close_timeout=90.0, on_lost=lost
    )
    async with async_playwright() as playwright, manager:
        host = Host(task, events, manager, playwright)
        async with host.lag.watched():
            await host.run()
    stats = manager.stats()
    items = [[name, key, *asdict(item).values()] for (name, key), item in host.items.items()]
    events.write("end", items=items, flushed=stats.flushed, lost=stats.lost, pending=stats.pending)
    site.shutdown()


if __name__ == "__main__":
    asyncio.run(main(Task(**json.loads(sys.argv[1]))))
