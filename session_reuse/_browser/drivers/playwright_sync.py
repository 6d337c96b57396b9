"""Playwright's synchronous API as a `BrowserDriver`. It has no timers and no tasks: each flow runs to its end at once."""

from __future__ import annotations

import inspect
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import CDPSession, Error

from session_reuse._browser import limits
from session_reuse._browser.drivers.call_hooks import before
from session_reuse._browser.drivers.playwright import PlaywrightDriver
from session_reuse._browser.flow import Flow, run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from session_reuse._browser.driver import Params
    from session_reuse._browser.drivers.playwright import Page

_TURNS: Final = 100
_LEAST: Final = 0.001
"""Seconds of a command for which there is no time left: Playwright takes 0 for no limit."""
_KNOWS_LIMIT: Final = "timeout" in inspect.signature(CDPSession.send).parameters
"""Whether this version of Playwright has a time limit for commands. Others wait for a page that hangs."""


class SyncPlaywrightDriver(PlaywrightDriver):
    """A context of Playwright's synchronous API."""

    errors = (Error, TimeoutError)

    _leaving: Collection[Any] = ()
    _deadline = 0.0  # of all commands over these sessions, while an agent leaves their page

    def send_to(self, cdp: Any, method: str, params: Params, limit: float) -> Any:
        """Send a command over a session of Playwright's."""
        if cdp in self._leaving:
            limit = min(limit, max(self._deadline - time.monotonic(), _LEAST))
        return cdp.send(method, params, **({"timeout": limit * 1000} if _KNOWS_LIMIT else {}))

    def spawn(self, flow: Flow[object]) -> None:
        """Run a flow to its end."""
        try:
            run_sync(flow)
        except Exception as error:  # noqa: BLE001 - following a page must never disturb the agent
            self.report_not_followed(error)

    def best_effort(self, release: Callable[[], Any]) -> Any:
        """Call what releases something of ours, and ignore its errors."""
        with suppress(Error):
            release()

    def close_context(self) -> Any:
        """Close the context, unless that was done before."""
        self.best_effort(self.context.close)

    def add_script(self, source: str) -> Any:
        """Register an init script in all tabs."""
        return run_sync(self.added(source))

    def remove_script(self, script: Any) -> Any:
        """Remove an init script from all tabs."""
        script.close()

    def before_departure(self, page: Page, name: str, flow: Callable[[str | None], Flow[None]]) -> Callable[[], None]:
        """Run a flow before a page is sent away or closed."""
        return before(page, name, lambda url=None, **_: self._begin(page, flow(url)))

    def _begin(self, page: Page, flow: Flow[None]) -> None:
        """Run a flow when a page is followed: events of its first document would be missed."""
        for _ in range(_TURNS):
            followed = self._pages.get(page)
            if followed is None or followed.is_attached:
                break
            self.context.cookies()  # handlers of events run during calls only
        self._deadline = time.monotonic() + limits.CLOSE
        self._leaving = {frame.target.cdp for frame in followed.tab.frames.values()} if followed else ()
        try:
            self.spawn(flow)
        finally:
            self._leaving = ()

    def pause(self, cdp: Any) -> Any:
        """Call the browser: events arrive during calls only."""
        return cdp.send("Browser.getVersion")
