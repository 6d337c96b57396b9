"""`BrowserDriver`: what the engine needs of a client, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from session_reuse._browser.cookies import Cookie
    from session_reuse._browser.flow import Flow
    from session_reuse._browser_session import BrowserSession

Params: TypeAlias = dict[str, Any]
"""Parameters or result of a DevTools command, or parameters of an event."""
EventHandler: TypeAlias = "Callable[[Any, str, Params], None]"
"""Called with the DevTools session, the method and the parameters of each event."""


class BrowserDriver(ABC):
    """One client of one browser. A method that returns a step is called in a flow, which yields the step.

    Attributes:
        errors: what a call raises when the browser refuses, does not answer in time, or has ended.
        is_gone: whether the browser, or the context, has ended.
    """

    errors: tuple[type[Exception], ...]
    is_gone: bool = False

    def __init__(self, session: BrowserSession) -> None:
        self._session = session

    @abstractmethod
    def send(self, cdp: object, method: str, params: Params, limit: float | None = None) -> Any:
        """Send a DevTools command over a session, as a step.

        A page that hangs does not answer: a TimeoutError is raised after `limit` seconds, or those of the driver.
        """

    def try_send(self, cdp: object, method: str, params: Params) -> Flow[Params | None]:
        """Send a DevTools command, and return None where it has no answer: the page is gone, or busy."""
        try:
            answer: Params = yield self.send(cdp, method, params)
        except self.errors:
            return None
        return answer

    @abstractmethod
    def spawn(self, flow: Flow[object]) -> Any:
        """Run a flow: an asynchronous client in a task, which is returned, a synchronous one to its end."""

    def report_not_followed(self, error: Exception) -> None:
        """Report an event whose flow has failed. The agent goes on."""
        reason = f"an event could not be followed: {type(error).__name__}"
        self._session.report(ProblemKind.CAPTURE_LIMITED, "the browser", reason)

    @property
    def has_tabs(self) -> bool:
        """Whether a tab may be open already."""
        return True

    def settle(self) -> Any:
        """Wait for the flows that are under way, though not for long, as a step."""
        return None

    @abstractmethod
    def best_effort(self, release: Callable[[], Any]) -> Any:
        """Call what releases something of ours, and wait for it, though not for long. Ignore its errors. As a step."""

    @abstractmethod
    def add_script(self, source: str) -> Any:
        """Register an init script in all tabs, present and to come, as a step that returns its handle."""

    @abstractmethod
    def remove_script(self, script: Any) -> Any:
        """Remove an init script from all tabs, as a step."""

    @abstractmethod
    def cookies(self) -> Any:
        """Return all cookies of the context, in Playwright's form, as a step."""

    @abstractmethod
    def add_cookies(self, cookies: list[Cookie]) -> Any:
        """Add cookies, all or none, as a step."""

    def viewport(self, tab: Hashable) -> dict[str, Any]:  # noqa: ARG002 - for those that override it
        """Return `{"viewport": ...}` where a tab's viewport was set, else an empty dict."""
        return {}

    @abstractmethod
    def follow(self, *, is_new_profile: bool) -> Flow[None]:
        """Follow all tabs, present and to come. No agent has been in a new profile."""

    @abstractmethod
    def open_blank_page(self, on_event: EventHandler) -> Flow[Any]:
        """Open a page that the agent does not see and return its DevTools session, or None where there is none."""

    @abstractmethod
    def close_blank_page(self, cdp: object) -> Flow[None]:
        """Close a page of `open_blank_page`."""
