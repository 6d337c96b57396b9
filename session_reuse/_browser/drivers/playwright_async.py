"""Playwright's asynchronous API as a `BrowserDriver`."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import TYPE_CHECKING, Any

from playwright.async_api import Error

from session_reuse._browser import limits
from session_reuse._browser.drivers.call_hooks import before_close, before_goto
from session_reuse._browser.drivers.playwright import PlaywrightDriver
from session_reuse._browser.flow import Flow, run_async
from session_reuse._browser.origins import origin_of
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_reuse._browser_session import BrowserSession


background: set[asyncio.Future[Any]] = set()
"""What outlives a cancelled exit, or a call that nobody waits for any longer: the loop itself keeps no strong reference."""


class AsyncPlaywrightDriver(PlaywrightDriver):
    """A context of Playwright's asynchronous API."""

    errors = (Error, TimeoutError)

    def __init__(self, session: BrowserSession) -> None:
        super().__init__(session)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def send(self, cdp: Any, method: str, params: dict[str, Any], limit: float | None = None) -> Any:
        """Send a DevTools command, within `limits.COMMAND` if there is no other limit."""
        async with asyncio.timeout(limit or limits.COMMAND):
            return await cdp.send(method, params)

    def spawn(self, flow: Flow[Any]) -> asyncio.Task[None]:
        """Run a flow in a task."""
        task = asyncio.create_task(self._guarded(flow))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, flow: Flow[Any]) -> None:
        try:
            await run_async(flow)
        except Exception as error:  # noqa: BLE001 - following a page must never disturb the agent
            self._session.report(
                ProblemKind.CAPTURE_LIMITED, "the browser", f"an event could not be followed: {type(error).__name__}"
            )

    def flow_step(self, flow: Flow[Any]) -> Awaitable[Any]:
        """Return a flow as a coroutine."""
        return run_async(flow)

    async def settle(self) -> None:
        """Wait for the flows that are under way, for `limits.COMMAND` at most."""
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=limits.COMMAND)

    async def best_effort(self, step: Any) -> None:
        """Wait for a step for `limits.COMMAND` at most."""
        await is_done(step, limits.COMMAND)

    async def add_script(self, source: str) -> asyncio.Future[Any]:
        """Register an init script. A tab that is on its way to a slow site takes it when it has arrived."""
        script = in_background(self._added(source))
        await asyncio.wait({script}, timeout=limits.INIT_SCRIPT)
        return script

    async def _added(self, source: str) -> Any:
        try:
            return await self.context.add_init_script(source)
        except Error:  # a tab that is closed meanwhile makes Playwright refuse the script for all
            return await self.context.add_init_script(source)

    async def remove_script(self, script: asyncio.Future[Any]) -> None:
        """Remove an init script.

        A call of Playwright goes from tab to tab, and waits for one that is on its way to a slow site. Another goes past it.
        """
        removal = in_background(self._removed(script))
        await asyncio.wait({removal}, timeout=limits.INIT_SCRIPT)

    async def _removed(self, script: asyncio.Future[Any]) -> None:
        added = await script
        await asyncio.gather(*(added.close() for _ in range(max(1, len(self.context.pages)))))

    def before_close(self, page: Any, flow: Callable[[], Flow[None]]) -> Callable[[], None]:
        """Have a flow run before a page's `close`, for a second at most."""

        async def hook() -> None:
            await self._until_attached(page)
            await asyncio.wait({self.spawn(flow())}, timeout=limits.CLOSE)

        return before_close(page, hook)

    async def _until_attached(self, page: Any) -> None:
        """Wait for a page that is too new to be followed: events of its first document would be missed."""
        followed = self.followed(page)
        if followed is not None and not followed.is_attached and followed.attaching is not None:
            await asyncio.wait({followed.attaching}, timeout=limits.ATTACH)

    async def _until_removed(self, origin: str | None) -> None:
        """Wait until no script would fill an origin that has been filled already."""
        deadline = time.monotonic() + limits.CLOSE
        while origin is not None and self.engine.restorer.is_changing(origin) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    def before_goto(self, page: Any, flow: Callable[[str], Flow[None]]) -> Callable[[], None]:
        """Have a flow begin before a page's `goto`: what it sends reaches the page before the navigation starts."""

        async def hook(url: str) -> None:
            await self._until_attached(page)
            await self._until_removed(origin_of(url))
            self.spawn(flow(url))

        return before_goto(page, hook)

    def open_hidden_target(
        self, browser_cdp: Any, on_event: Callable[[Any, str, dict[str, Any]], None]
    ) -> HiddenTarget:
        """Return a session with a hidden target."""
        return HiddenTarget(browser_cdp, on_event)

    def cancel_tasks(self) -> None:
        """Cancel all flows that still run."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()


class HiddenTarget:
    """A session with a hidden target, over one with the browser: what Playwright's `CDPSession` is to a page.

    Args:
        browser_cdp: with the browser, ours alone; the target ends with it.
        on_event: called with this, a method and parameters.
    """

    def __init__(self, browser_cdp: Any, on_event: Callable[[Any, str, dict[str, Any]], None]) -> None:
        self.session_id = ""
        self._browser_cdp = browser_cdp
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        browser_cdp.on("Target.receivedMessageFromTarget", self._received)

    async def send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            playwright.async_api.Error: refused.
        """
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        message = json.dumps({"id": number, "method": method, "params": params})
        try:
            to = {"sessionId": self.session_id, "message": message}
            await self._browser_cdp.send("Target.sendMessageToTarget", to)
            answer = await reply
        finally:
            del self._replies[number]
        if "error" in answer:
            raise Error(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _received(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        reply = self._replies.get(message.get("id", 0))
        if reply is not None and not reply.done():
            reply.set_result(message)
        elif "method" in message:
            self._on_event(self, message["method"], message.get("params", {}))

    async def detach(self) -> None:
        """End the session, and the target with it."""
        await self._browser_cdp.detach()


async def is_done(step: Any, limit: float) -> bool:
    """Return whether a step comes to its end within a limit; it goes on in the background."""
    done, _ = await asyncio.wait({in_background(step)}, timeout=limit)
    return bool(done)


def in_background(work: Awaitable[Any]) -> asyncio.Future[Any]:
    """Have something done to its end, whoever is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    background.add(task)
    task.add_done_callback(_retire)
    return task


def _retire(task: asyncio.Future[Any]) -> None:
    background.discard(task)
    if not task.cancelled():
        task.exception()
