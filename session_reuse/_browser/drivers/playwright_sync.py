"""Playwright's synchronous API as a `BrowserDriver`. It has no timers and no tasks: each flow runs to its end at once."""

from __future__ import annotations

import inspect
import itertools
import json
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import CDPSession, Error

from session_reuse._browser import limits
from session_reuse._browser.drivers.call_hooks import before_close_blocking, before_goto_blocking
from session_reuse._browser.drivers.playwright import PlaywrightDriver
from session_reuse._browser.flow import Flow, run_sync
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable

_TURNS: Final = 100


class SyncPlaywrightDriver(PlaywrightDriver):
    """A context of Playwright's synchronous API."""

    errors = (Error, TimeoutError)

    def send(self, cdp: Any, method: str, params: dict[str, Any], limit: float | None = None) -> Any:
        """Send a DevTools command, within `limits.COMMAND` if there is no other limit."""
        limit = limit or limits.COMMAND
        if isinstance(cdp, HiddenTarget):
            return cdp.send(method, params, limit)
        return cdp.send(method, params, **({"timeout": limit * 1000} if _knows_time_limit() else {}))

    def spawn(self, flow: Flow[Any]) -> None:
        """Run a flow to its end."""
        try:
            run_sync(flow)
        except Exception as error:  # noqa: BLE001 - following a page must never disturb the agent
            self._session.report(
                ProblemKind.CAPTURE_LIMITED, "the browser", f"an event could not be followed: {type(error).__name__}"
            )

    def flow_step(self, flow: Flow[Any]) -> Any:
        """Run a flow to its end."""
        return run_sync(flow)

    def best_effort(self, step: Any) -> Any:
        """Return the step, which is done."""
        return step

    def add_script(self, source: str) -> Any:
        """Register an init script in all tabs."""
        try:
            return self.context.add_init_script(source)
        except Error:  # a tab that is closed meanwhile makes Playwright refuse the script for all
            return self.context.add_init_script(source)

    def remove_script(self, script: Any) -> Any:
        """Remove an init script from all tabs."""
        script.close()

    def before_close(self, page: Any, flow: Callable[[], Flow[None]]) -> Callable[[], None]:
        """Have a flow run before a page's `close`."""
        return before_close_blocking(page, lambda: self._begin(page, flow()))

    def before_goto(self, page: Any, flow: Callable[[str], Flow[None]]) -> Callable[[], None]:
        """Have a flow run before a page's `goto`."""
        return before_goto_blocking(page, lambda url: self._begin(page, flow(url)))

    def _begin(self, page: Any, flow: Flow[None]) -> None:
        """Run a flow when a page is followed: events of its first document would be missed."""
        for _ in range(_TURNS):
            followed = self.followed(page)
            if followed is None or followed.is_attached:
                break
            self.context.cookies()  # handlers of events run during calls only
        self.spawn(flow)

    def open_hidden_target(
        self, browser_cdp: Any, on_event: Callable[[Any, str, dict[str, Any]], None]
    ) -> HiddenTarget:
        """Return a session with a hidden target."""
        return HiddenTarget(browser_cdp, on_event)


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
        self._replies: dict[int, dict[str, Any]] = {}
        browser_cdp.on("Target.receivedMessageFromTarget", self._received)

    def send(self, method: str, params: dict[str, Any], limit: float) -> dict[str, Any]:
        """Send a command and return its result.

        Args:
            method: of the command.
            params: of the command.
            limit: seconds.

        Raises:
            playwright.sync_api.Error: refused.
            TimeoutError: not answered within the limit.
        """
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": params})
        self._browser_cdp.send("Target.sendMessageToTarget", {"sessionId": self.session_id, "message": message})
        deadline = time.monotonic() + limit
        while number not in self._replies:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} was not answered")
            self._browser_cdp.send("Browser.getVersion")  # events arrive during calls only
        answer = self._replies.pop(number)
        if "error" in answer:
            raise Error(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _received(self, event: dict[str, Any]) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._replies[message["id"]] = message
        else:
            self._on_event(self, message["method"], message.get("params", {}))

    def detach(self) -> None:
        """End the session, and the target with it."""
        self._browser_cdp.detach()


@cache
def _knows_time_limit() -> bool:
    """Return whether this version of Playwright has a time limit for commands; others wait for a page that hangs."""
    return "timeout" in inspect.signature(CDPSession.send).parameters
