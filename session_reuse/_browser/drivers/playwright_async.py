"""Playwright's asynchronous API as a `BrowserDriver`."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error

from session_reuse._browser import limits
from session_reuse._browser.drivers.call_hooks import before
from session_reuse._browser.drivers.playwright import PlaywrightDriver
from session_reuse._browser.drivers.tasks import AsyncDriver, in_background, is_done
from session_reuse._browser.flow import Flow, run_async
from session_reuse._browser.origins import origin_of
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_reuse._browser.cookies import Cookie
    from session_reuse._browser.driver import Params
    from session_reuse._browser.drivers.playwright import Page


_POLL: Final = 0.005
_TURNS: Final = 8
"""Turns of the event loop until the commands of a flow that has just begun are sent."""


class AsyncPlaywrightDriver(AsyncDriver, PlaywrightDriver):
    """A context of Playwright's asynchronous API."""

    errors = (Error, TimeoutError)
    settle_limit = limits.COMMAND

    async def send_to(self, cdp: Any, method: str, params: Params, limit: float) -> Any:
        """Send a command over a session of Playwright's."""
        async with asyncio.timeout(limit):
            return await cdp.send(method, params)

    async def add_cookies(self, cookies: list[Cookie]) -> None:
        """Add cookies, all or none. Playwright never answers for a context that is closed meanwhile (1.65)."""
        closed = asyncio.Event()
        adding = asyncio.ensure_future(self.context.add_cookies(cookies))
        closing = asyncio.ensure_future(closed.wait())
        self.context.on("close", set_closed := lambda _: closed.set())
        try:
            await asyncio.wait({adding, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not adding.done():
                raise Error("the context was closed")
            adding.result()
        finally:
            self.context.remove_listener("close", set_closed)
            adding.cancel()
            closing.cancel()

    async def close_context(self) -> None:
        """Close the context. Report one that stays open."""
        if not await is_done(self.context.close(), limits.CONTEXT):
            reason = f"the browser did not close it in {limits.CONTEXT:g} s"
            self._session.report(ProblemKind.CONTEXT_LEFT_OPEN, "the context", reason)

    async def add_script(self, source: str) -> asyncio.Future[Any]:
        """Register an init script. A tab that is on its way to a slow site takes it when it has arrived."""
        script = in_background(run_async(self.added(source)))
        await asyncio.wait({script}, timeout=limits.INIT_SCRIPT)
        return script

    async def remove_script(self, script: asyncio.Future[Any]) -> None:
        """Remove an init script."""
        removal = in_background(self._removed(script))
        await asyncio.wait({removal}, timeout=limits.INIT_SCRIPT)

    async def _removed(self, script: asyncio.Future[Any]) -> None:
        added = await script
        # A call goes from tab to tab, and waits for one that is on its way to a slow site. Another call goes past it.
        await asyncio.gather(*(added.close() for _ in range(max(1, len(self.context.pages)))))

    def before_departure(self, page: Page, name: str, flow: Callable[[str | None], Flow[None]]) -> Callable[[], None]:
        """Begin a flow before a page is sent away, and wait for it before it is closed, though not for long."""

        async def hook(url: str | None = None, **_: Any) -> None:
            followed, origin = self._pages.get(page), url and origin_of(url)
            # Events of the first document of a page that is too new to be followed would be missed.
            await _until(lambda: followed is None or followed.is_attached, limits.ATTACH)
            # Nor may a script fill an origin that has been filled already.
            await _until(lambda: not (origin and self.engine.restorer.is_changing(origin)), limits.CLOSE)
            reading = self.spawn(flow(url))
            if name == "close":
                await asyncio.wait({reading}, timeout=limits.CLOSE)
            for _turn in range(_TURNS):  # what it sends reaches the page before the navigation starts
                await asyncio.sleep(0)

        return before(page, name, hook)

    def pause(self, cdp: Any) -> Awaitable[None]:  # noqa: ARG002 - the other API needs it
        """Wait a moment, as a step."""
        return asyncio.sleep(_POLL)


async def _until(is_met: Callable[[], bool], limit: float) -> None:
    deadline = time.monotonic() + limit
    while not is_met() and time.monotonic() < deadline:
        await asyncio.sleep(_POLL)
