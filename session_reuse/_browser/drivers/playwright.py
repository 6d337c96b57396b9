"""What both APIs of Playwright have in common as a `BrowserDriver`."""

from __future__ import annotations

import itertools
import json
import time
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from session_reuse._browser import javascript, limits
from session_reuse._browser.driver import BrowserDriver, EventHandler
from session_reuse._browser.drivers.call_hooks import listen, run_all
from session_reuse._browser.follower import ENABLE, EVENTS
from session_reuse._browser.origins import items_of, origin_of, site_of
from session_reuse._browser.tabs import Tab, Target
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from playwright import async_api, sync_api

    Browser = async_api.Browser | sync_api.Browser
    BrowserContext = async_api.BrowserContext | sync_api.BrowserContext
    Page = async_api.Page | sync_api.Page
    Frame = async_api.Frame | sync_api.Frame
    from collections.abc import Callable, Hashable

    from session_reuse._browser.cookies import Cookie
    from session_reuse._browser.driver import Params
    from session_reuse._browser.engine import BrowserEngine
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.origins import Items
    from session_reuse._browser_session import BrowserSession


_DEPARTURES: Final = ("goto", "go_back", "go_forward", "reload", "close")
"""Methods of a page. The browser announces none of them while the page still answers."""


@dataclass(eq=False)
class FollowedPage:
    """A page of Playwright's, with our hooks on it.

    Attributes:
        is_attached: whether it is followed, or cannot be.
        frames: frames in a separate process that have a session, and the origin they had then.
        undo: removes our hooks.
    """

    tab: Tab
    is_attached: bool = False
    frames: dict[Any, str] = field(default_factory=dict)
    undo: list[Callable[[], None]] = field(default_factory=list)


class PlaywrightDriver(BrowserDriver):
    """A context of Playwright's.

    Attributes:
        context: the context. Set before anything else is called.
        engine: the engine. Set likewise.
        context_id: of the context in the protocol, once it is known.
        has_protocol: whether the browser has the DevTools protocol, which Firefox and WebKit have not.
    """

    has_protocol = True

    def __init__(self, session: BrowserSession) -> None:
        super().__init__(session)
        self.context: Any = None
        self.engine: BrowserEngine
        self._undo: list[Callable[[], None]] = []
        self._pages: dict[Any, FollowedPage] = {}
        self.context_id: str | None = None
        self._is_following = False

    def send(self, cdp: Any, method: str, params: Params, limit: float | None = None) -> Any:
        """Send a DevTools command, within `limits.COMMAND` if there is no other limit, as a step."""
        send = cdp.send if isinstance(cdp, HiddenTarget) else partial(self.send_to, cdp)
        return send(method, params, limit or limits.COMMAND)

    @abstractmethod
    def send_to(self, cdp: Any, method: str, params: Params, limit: float) -> Any:
        """Send a command over a session of Playwright's, as a step."""

    @abstractmethod
    def before_departure(self, page: Page, name: str, flow: Callable[[str | None], Flow[None]]) -> Callable[[], None]:
        """Begin a flow before one of `_DEPARTURES` of a page. Return what undoes that."""

    @abstractmethod
    def close_context(self) -> Any:
        """Close the context, as a step. Report one that stays open."""

    @abstractmethod
    def pause(self, cdp: Any) -> Any:
        """Wait until more events may have arrived over a session, as a step."""

    def cookies(self) -> Any:
        """Return all cookies of the context, as a step."""
        return self.context.cookies()

    def add_cookies(self, cookies: list[Cookie]) -> Any:
        """Add cookies, all or none, as a step."""
        return self.context.add_cookies(cookies)

    def added(self, source: str) -> Flow[Any]:
        """Register an init script in all tabs, and return its handle."""
        try:
            return (yield self.context.add_init_script(source))
        except self.errors:  # a tab that is closed meanwhile makes Playwright refuse the script for all
            return (yield self.context.add_init_script(source))

    def viewport(self, tab: Hashable) -> dict[str, Any]:
        """Return a page's viewport, if it has one."""
        size = tab.viewport_size  # type: ignore[attr-defined]  # a tab's key is its page
        return {"viewport": size} if size else {}

    @property
    def has_tabs(self) -> bool:
        """Whether a page is open already."""
        return bool(self.context.pages)

    def read_without_protocol(self) -> Flow[tuple[list[Cookie], dict[str, Items], dict[str, Items]]]:
        """Return the cookies, the localStorage of all origins, and the sessionStorage of those that are open.

        By Playwright's own storage state, and a page of each origin.
        """
        found = yield self.context.storage_state()
        local = {entry["origin"]: items_of(entry, "localStorage") for entry in found["origins"]}
        session = {}
        for origin, page in {origin: page for page in self._pages if (origin := origin_of(page.url))}.items():
            with suppress(*self.errors):  # the page has gone meanwhile
                session[origin] = (yield page.evaluate(javascript.call("storage_read")))["session"]
        return found["cookies"], local, session

    def follow(self, *, is_new_profile: bool) -> Flow[None]:  # noqa: ARG002 - no page of a new context is open yet
        """Follow all pages, present and to come."""
        self._is_following = True
        self._undo += [listen(self.context, "page", self._opened), listen(self.context, "close", self._gone)]
        yield [self._opened(page) for page in self.context.pages]

    def _gone(self, _: object) -> None:
        self.is_gone = True

    def _opened(self, page: Page) -> Any:
        """Begin to follow a page. Return what to wait for."""
        tab = Tab(page)
        followed = self._pages[page] = FollowedPage(tab)
        follower = self.engine.follower
        follower.opened(tab)
        if page.is_closed():
            self._closed(page)
            return None
        followed.undo += [
            listen(page, "close", self._closed),
            listen(page, "framenavigated", lambda frame: self._frame_navigated(page, frame)),
            *(self.before_departure(page, name, lambda url: follower.leaving(tab, url)) for name in _DEPARTURES),
        ]
        return self.spawn(self._attach(page, followed))

    def _closed(self, page: Page) -> None:
        followed = self._pages.pop(page, None)
        if followed is None:
            return
        run_all(followed.undo)
        origin = origin_of(page.url)
        if not followed.tab.frames and origin is not None:
            self.engine.mirror.mark_unread(origin)  # it was gone before it could be followed
            self.engine.restorer.started(origin)
        self.engine.follower.closed(followed.tab)

    def _attach(self, page: Page, followed: FollowedPage) -> Flow[None]:
        try:
            if not self.has_protocol:
                return
            cdp = yield self.context.new_cdp_session(page)
            yield from self._adopt(Target(cdp, followed.tab))
            if self.context_id is None:
                info = yield self.send(cdp, "Target.getTargetInfo", {})
                self.context_id = info["targetInfo"].get("browserContextId")
        except self.errors as error:
            self._not_attached(page, error)
        finally:
            followed.is_attached = True

    def _adopt(self, target: Target) -> Flow[None]:
        cdp, follower = target.cdp, self.engine.follower
        for method in EVENTS:
            cdp.on(method, lambda params, method=method: follower.on_event(target, method, params))
        answers = yield [
            *(self.send(cdp, method, params) for method, params in ENABLE),
            self.send(cdp, "Page.getFrameTree", {}),
        ]
        follower.adopt(target, answers[-1]["frameTree"])

    def _not_attached(self, page: Page, error: Exception) -> None:
        # Playwright's words in Firefox and WebKit: CDP session is only available in Chromium.
        if not page.is_closed() and "Chromium" in str(error):
            self.has_protocol = False
            self._session.report(
                ProblemKind.CAPTURE_LIMITED, "this browser", "it has no DevTools: storage is read at save time only"
            )
            self._frame_navigated(page, page.main_frame)

    def _frame_navigated(self, page: Page, frame: Frame) -> None:
        """Follow frames in a separate process, and all main frames where there is no protocol."""
        followed, origin = self._pages.get(page), origin_of(frame.url)
        if followed is None or origin is None:
            return
        if frame.parent_frame is None:
            if not self.has_protocol:
                self.engine.mirror.unread[origin] = self.engine.mirror.version
                if self.engine.restorer.is_registered:  # not where the user has switched JavaScript off
                    self.engine.restorer.delivered(origin)
            return
        top = origin_of(page.url)
        # A frame of the page's own origin is in its process. One of another site has a storage of its own.
        is_candidate = top not in (None, origin) and site_of(origin) == site_of(str(top))
        if is_candidate and self.has_protocol and followed.frames.get(frame) != origin:
            for each in [each for each in followed.frames if each.is_detached()]:
                del followed.frames[each]
            followed.frames[frame] = origin
            self.spawn(self._attach_frame(followed, frame))

    def _attach_frame(self, followed: FollowedPage, frame: Frame) -> Flow[None]:
        try:
            cdp = yield self.context.new_cdp_session(frame)
            yield from self._adopt(Target(cdp, followed.tab, is_page=False))
        except self.errors:
            followed.frames.pop(frame, None)  # it is in the process of the frame around it, or it has gone

    def open_blank_page(self, on_event: EventHandler) -> Flow[Any]:
        """Open a page that the agent does not see and return its session, or None where there is none."""
        # A page of `context.new_page()` would reach the agent as a `page` event, like a popup. So it is used before the
        # agent starts only. A hidden target (Chromium 134 and later) is none of Playwright's pages.
        if self.context_id is None:
            return None if self._is_following else (yield from self._open_first_page(on_event))
        browser = self.context.browser
        if browser is None:
            return None
        browser_cdp = yield browser.new_browser_cdp_session()
        target = {"url": "about:blank", "hidden": True, "background": True, "browserContextId": self.context_id}
        cdp = HiddenTarget(self, browser_cdp, on_event)
        try:
            try:
                made = yield browser_cdp.send("Target.createTarget", target)
            except self.errors:
                # A browser that has no page left makes no hidden one (Chromium 156, 2026-11-26). One in a context of
                # our own, which Playwright does not know and which ends with this session, keeps it open.
                own = yield browser_cdp.send("Target.createBrowserContext", {"disposeOnDetach": True})
                yield browser_cdp.send("Target.createTarget", {"url": "about:blank", "background": True, **own})
                made = yield browser_cdp.send("Target.createTarget", target)
            # Sessions of the flat kind are for Playwright's own pages.
            attached = yield browser_cdp.send("Target.attachToTarget", {"targetId": made["targetId"], "flatten": False})
        except BaseException:
            # A hidden target that outlives its context can crash the browser (Chromium 156, busy machine, 2026-11-26).
            yield self.best_effort(cdp.detach)
            raise
        cdp.session_id = attached["sessionId"]
        return cdp

    def _open_first_page(self, on_event: EventHandler) -> Flow[Any]:
        page = yield self.context.new_page()
        try:
            cdp = yield self.context.new_cdp_session(page)
        except BaseException:  # Firefox and WebKit have none
            yield self.best_effort(page.close)
            raise
        cdp.on("Fetch.requestPaused", lambda params: on_event(cdp, "Fetch.requestPaused", params))
        cdp.page = page
        return cdp

    def close_blank_page(self, cdp: Any) -> Flow[None]:
        """Close a page of `open_blank_page`. Hidden ones end with the session that has made them."""
        page = getattr(cdp, "page", None)
        yield self.best_effort(cdp.detach if page is None else page.close)

    def unfollow(self) -> None:
        """Remove our listeners and hooks."""
        run_all(self._undo)
        for followed in self._pages.values():
            run_all(followed.undo)
        self._pages.clear()

    def detach(self) -> Flow[None]:
        """End our sessions with the pages of a context that lives on."""
        sessions = {frame.target.cdp for tab in self.engine.follower.tabs for frame in tab.frames.values()}
        yield [self.best_effort(cdp.detach) for cdp in sessions]


class HiddenTarget:
    """A DevTools session with a hidden target, over Playwright's session with the browser, which opens none of its own to it.

    It is what Playwright's `CDPSession` is to a page, for both APIs.

    Args:
        driver: of the session with the browser.
        browser_cdp: that session, ours alone. The target ends with it.
        on_event: called with this, a method and parameters.

    Attributes:
        session_id: set when the target is attached.
    """

    def __init__(self, driver: PlaywrightDriver, browser_cdp: Any, on_event: EventHandler) -> None:
        self.session_id = ""
        self._driver = driver
        self._browser_cdp = browser_cdp
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._replies: dict[int, Params] = {}
        browser_cdp.on("Target.receivedMessageFromTarget", self._received)

    def send(self, method: str, params: Params, limit: float) -> Flow[Params]:
        """Send a command and return its result.

        Raises:
            TimeoutError: not answered within `limit` seconds.
        """
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": params})
        wrapped = {"sessionId": self.session_id, "message": message}
        yield self._driver.send(self._browser_cdp, "Target.sendMessageToTarget", wrapped, limit)
        deadline = time.monotonic() + limit
        while number not in self._replies:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} was not answered")
            yield self._driver.pause(self._browser_cdp)
        answer = self._replies.pop(number)
        if "error" in answer:
            raise self._driver.errors[0](f"{method}: {answer['error'].get('message')}")
        result: Params = answer["result"]
        return result

    def _received(self, event: Params) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._replies[message["id"]] = message
        else:
            self._on_event(self, message["method"], message.get("params", {}))

    def detach(self) -> object:
        """End the session, and the target with it, as a step."""
        return self._browser_cdp.detach()
