"""What a visit to the test sites needs: the next session, the places where a login can live, what a page thinks."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from session_reuse import BrowserSession
from session_reuse._state import document
from session_reuse.browsers.chromium import find_chromium, launch_arguments
from session_reuse.outcome import Outcome
from tests.harness.probes import captures_of, serve_by

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

LAUNCH: dict[str, Any] = {"executable_path": find_chromium(), "args": launch_arguments()}
SHOWN = "document.documentElement?.dataset.login"


class Place(NamedTuple):
    """Somewhere a login can live: the path that logs in, and the one that checks."""

    name: str
    login: str
    check: str

    def urls(self, sites: Sites) -> tuple[str, str]:
        """Return the URLs, those of frames included."""
        other = sites.origin("ident")
        login, check = self.login.replace("OTHER", other), self.check.replace("OTHER", other)
        return sites.url(self.name, login), sites.url(self.name, check)


PLACES = [
    *(
        Place(kind, f"/cookie/login?kind={kind}", "/cookie")
        for kind in ("httponly", "persistent", "session", "prefixed")
    ),
    Place("chips", "/framed?OTHER/chips/login", "/framed?OTHER/chips"),
    Place("local", "/local/login", "/local"),
    Place("sessionstorage", "/session/login", "/session"),
    *(Place(f"idb-{kind}", f"/idb-{kind}/login", f"/idb-{kind}") for kind in ("plain", "rich", "cyclic")),
]


def next_session(session: BrowserSession) -> BrowserSession:
    """Return the session of the next agent, through the form in which it is stored."""
    stored, dialect = document.dump({"storage_state": session.storage_state, "data": {}})
    return reused(document.load(stored, dialect)["storage_state"])


def reused(state: dict[str, Any]) -> BrowserSession:
    """Return a session that has found this state."""
    session = BrowserSession("shop.example/alice", storage_state=state)
    session.outcome = Outcome.REUSED
    return session


class _Checkpoints:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.states: list[Any] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def checkpoint(self, session: BrowserSession) -> str:
        for capture in captures_of(session):
            session.storage_state = await capture()
            self.states.append(session.storage_state)
        return "saved"


def checkpoints_of(session: BrowserSession) -> list[Any]:
    """Return the list to which checkpoints of the session will add what they capture. They need no store."""
    backend: Any = _Checkpoints()
    serve_by(session, backend)
    return backend.states


def fresh() -> BrowserSession:
    """Return a session that has found nothing."""
    return BrowserSession("shop.example/alice")


def kinds(session: BrowserSession) -> list[str]:
    """Return the kinds of problems that were reported."""
    return [problem.kind for problem in session.problems]


def entry(session: BrowserSession, origin: str) -> dict[str, Any]:
    """Return what a session holds of an origin."""
    return next((each for each in session.storage_state["origins"] if each["origin"] == origin), {})


def items(session: BrowserSession, origin: str, section: str = "localStorage") -> dict[str, str]:
    """Return a web storage of an origin."""
    return {item["name"]: item["value"] for item in entry(session, origin).get(section, ())}


def storing(origin: str, **items: str) -> dict[str, Any]:
    """Return a state with localStorage in one origin."""
    named = [{"name": name, "value": value} for name, value in items.items()]
    return {"cookies": [], "origins": [{"origin": origin, "localStorage": named}]}


async def shown(page: Any, *, timeout: float = 30_000) -> str:
    """Return what a page thinks of its visitor, `in` or `out`."""
    await page.wait_for_function(SHOWN, timeout=timeout)
    return await page.evaluate(SHOWN)


def shown_blocking(page: Any) -> str:
    """Return the same for a synchronous page."""
    page.wait_for_function(SHOWN, timeout=30_000)
    return page.evaluate(SHOWN)


async def visited(context: Any, url: str) -> str:
    """Open a URL in a new tab, and return what its page thinks of its visitor."""
    page = await context.new_page()
    await page.goto(url)
    return await shown(page)
