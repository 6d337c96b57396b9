"""A DevTools connection of our own as a `BrowserDriver`."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from session_reuse._browser import limits
from session_reuse._browser.claims import claim
from session_reuse._browser.cookies import Cookie, from_cdp, to_cdp
from session_reuse._browser.driver import EventHandler, Params
from session_reuse._browser.drivers.connection import CdpConnection, CdpError, Transport
from session_reuse._browser.drivers.tasks import AsyncDriver, in_background
from session_reuse._browser.flow import Flow
from session_reuse._browser.follower import ENABLE, EVENTS
from session_reuse._browser.origins import origin_of
from session_reuse._browser.tabs import Tab, Target
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from session_reuse._browser.engine import BrowserEngine
    from session_reuse._browser_session import BrowserSession

_FRAMES: Final = {"autoAttach": True, "flatten": True, "filter": [{"type": "iframe"}]}
_POLL: Final = 0.01
_DOCUMENTS: Final = {"patterns": [{"resourceType": "Document"}]}


@dataclass(eq=False)
class _Script:
    """An init script, and the answers that name it in each session."""

    source: str
    added: dict[str, asyncio.Future[Params]] = field(default_factory=dict)


class DevToolsDriver(AsyncDriver):
    """One context of a browser, over one websocket. A session is named by its id.

    Args:
        transport: an open websocket to the browser's own endpoint, not to a page's.
        session: to report to.
        of_target: a target whose context is followed. Without, the browser's default context.
        is_own: whether the browser was started for this session.

    New tabs wait until they have our scripts, unless the browser is shared and `of_target` says with which tab.

    Attributes:
        engine: the engine. Set before anything else is called.
        context: id of the context that is followed.
        stirred: set when something has happened in the browser, or its connection has ended.
    """

    errors = (CdpError, TimeoutError)
    settle_limit = limits.UNDO

    def __init__(
        self,
        transport: Transport,
        session: BrowserSession,
        *,
        of_target: str | None,
        is_own: bool,
    ) -> None:
        super().__init__(session)
        self.engine: BrowserEngine
        self.stirred = asyncio.Event()
        self.context: str | None = None
        self._of_target = of_target
        self._end_claim: Callable[[], None] = lambda: None
        self._default: str | None = None
        self._others: set[str] = set()
        self._is_own = is_own
        self._pauses_tabs = is_own or of_target is None
        self._blank: dict[str, tuple[EventHandler, str]] = {}
        self._open(transport)

    def _open(self, transport: Transport) -> None:
        self.connection = CdpConnection(transport, self._on_event, self.stirred.set)
        self._is_default = True
        self._private_page = ""  # one of the private window that is followed, if it is one
        self._is_following = False
        self._is_starting = True
        self._targets: dict[str, Target] = {}
        self._waiting: dict[str, list[tuple[str, Params]]] = {}
        """Events of targets whose documents are not known yet."""
        self._scripts: list[_Script] = []

    @property
    def is_gone(self) -> bool:  # type: ignore[override]
        """Whether the connection has ended, because of us or because the browser did."""
        return self.connection.ended.is_set()

    def send(self, cdp: Any, method: str, params: Params, limit: float | None = None) -> Any:
        """Send a command, within `limits.COMMAND` if there is no other limit."""
        return self.connection.send(method, params, cdp, timeout=limit or limits.COMMAND)

    def report_not_followed(self, error: Exception) -> None:
        """Report an event whose flow has failed, unless its tab is gone."""
        if not isinstance(error, self.errors):
            super().report_not_followed(error)

    async def close(self) -> None:
        """Release the browser. The scripts that are still registered go too."""
        self._end_claim()
        try:
            if tasks := self.cancel_tasks():
                await asyncio.wait(tasks, timeout=limits.UNDO)
        finally:
            await self.connection.close()

    async def close_if_silent(self) -> None:
        """End a connection over which nothing arrives any more. A page that does not answer is no sign of that."""
        connection = self.connection
        try:
            await connection.send("Browser.getVersion")
        except CdpError:
            await connection.close()

    async def reconnect(self, transport: Transport) -> bool:
        """Replace a connection that has ended. Return whether it leads to the same browser. If not, it is closed."""
        await self.close()
        self._open(transport)
        is_same = False
        try:
            default, _ = await _contexts(self.connection)
            is_same = None in (default, self._default) or default == self._default
        finally:
            if not is_same:
                await self.close()
        return is_same

    async def add_script(self, source: str) -> _Script:
        """Register an init script in all tabs."""
        script = _Script(source)
        self._scripts.append(script)
        for cdp_session_id in self._targets:
            self._add(script, cdp_session_id)
        await self._answered(script.added)
        return script

    def _add(self, script: _Script, cdp_session_id: str) -> None:
        params = {"source": script.source}
        script.added[cdp_session_id] = self.connection.post(
            "Page.addScriptToEvaluateOnNewDocument", params, cdp_session_id
        )

    async def remove_script(self, script: _Script) -> None:
        """Remove an init script from all tabs. One that has not taken it yet gives it back when it has."""
        self._scripts.remove(script)
        await self._answered({each: in_background(self._removed(added, each)) for each, added in script.added.items()})

    async def _answered(self, answers: Mapping[str, asyncio.Future[Any]]) -> None:
        """Wait for the answers of tabs that have answered before: one that was discarded never does."""
        if answering := [answer for each, answer in answers.items() if each not in self._waiting]:
            await asyncio.wait(answering, timeout=limits.INIT_SCRIPT)

    async def _removed(self, added: asyncio.Future[Params], cdp_session_id: str) -> None:
        with contextlib.suppress(*self.errors):
            params = {"identifier": (await added)["identifier"]}
            await self.connection.post("Page.removeScriptToEvaluateOnNewDocument", params, cdp_session_id)

    def _of_context(self, params: Params) -> Params:
        return params if self._is_default or self._private_page else {**params, "browserContextId": self.context}

    async def cookies(self) -> list[Cookie]:
        """Return all cookies of the context."""
        if self._private_page:
            found = await self.connection.send("Network.getAllCookies", {}, self._any_page())
        else:
            found = await self.connection.send("Storage.getCookies", self._of_context({}))
        return [from_cdp(cookie) for cookie in found["cookies"]]

    async def add_cookies(self, cookies: list[Cookie]) -> None:
        """Add cookies, all or none."""
        params = self._of_context({"cookies": [to_cdp(cookie) for cookie in cookies]})
        if self._private_page:
            await self.connection.send("Network.setCookies", params, self._any_page())
        else:
            await self.connection.send("Storage.setCookies", params)

    def _any_page(self) -> str:
        """Return a page that answers: one that was discarded is attached, and never adopted."""
        return next((each for each in self._targets if each not in self._waiting), self._private_page)

    def open_blank_page(self, on_event: EventHandler) -> Flow[Any]:
        """Open a hidden page: no tab to browser-use, and gone with our connection (Chromium 134 and later)."""
        if self._private_page:
            return None
        target = self._of_context({"url": "about:blank", "hidden": True, "background": True})
        made = yield self.connection.send("Target.createTarget", target)
        to = {"targetId": made["targetId"], "flatten": True}
        cdp_session_id = (yield self.connection.send("Target.attachToTarget", to))["sessionId"]
        self._blank[cdp_session_id] = on_event, made["targetId"]
        return cdp_session_id

    def close_blank_page(self, cdp: Any) -> Flow[None]:
        """Close it."""
        _, target = self._blank.pop(cdp)
        yield self.best_effort(lambda: self.connection.send("Target.closeTarget", {"targetId": target}))

    async def find_context(self) -> None:
        """Learn which context is followed, and claim it.

        Raises:
            CdpError: the browser did not answer.
            LifecycleError: the session of another login is in it.
        """
        self._default, self._others = own, others = await _contexts(self.connection)
        await self._find_context(own, others)
        if self.context is not None:
            self._end_claim = claim(self.context, self._session)

    async def _find_context(self, own: str | None, others: set[str]) -> None:
        if self._of_target is None:
            self.context = own
            return
        found = await self._lead(self._of_target)
        self._of_target, self.context = found["targetId"], found.get("browserContextId", own)
        self._is_default = self.context == own
        # A window of `--incognito` or `--guest` is in a context that the browser names and does not find by that name. Its
        # cookies are reached through its pages.
        if not self._is_default and self.context not in others:
            to = {"targetId": self._of_target, "flatten": True}
            self._private_page = (await self.connection.send("Target.attachToTarget", to))["sessionId"]

    async def _lead(self, target: str) -> Params:
        """Return the `Target.TargetInfo` of the tab that leads to its context, or of another one when that was closed."""
        try:
            found: Params = (await self.connection.send("Target.getTargetInfo", {"targetId": target}))["targetInfo"]
        except CdpError:
            if self.context is None:
                raise
            tabs = (await self.connection.send("Target.getTargets"))["targetInfos"]
            mine = [each for each in tabs if each["type"] == "page" and each.get("browserContextId") == self.context]
            return mine[0] if mine else {"targetId": target, "browserContextId": self.context}
        return found

    def follow(self, *, is_new_profile: bool) -> Flow[None]:
        """Follow all tabs, present and to come. Those that are open already do not wait in any case."""
        pages = {"autoAttach": True, "flatten": True, "filter": [{"type": "page"}]}
        self._is_following = True
        # The renderer of the first tab takes 0.2 s to start (2026-11-26). Its documents are held as those of a new tab.
        self._is_starting = not is_new_profile
        yield self.connection.send("Target.setAutoAttach", {**pages, "waitForDebuggerOnStart": self._pauses_tabs})
        if self._is_starting:
            yield self.settle()
            self._is_starting = False

    def _on_event(self, method: str, params: Params, cdp_session_id: str) -> None:
        if cdp_session_id in self._blank:
            self._blank[cdp_session_id][0](cdp_session_id, method, params)
        elif method == "Target.attachedToTarget":
            self._attach(params, cdp_session_id)
        elif method == "Target.detachedFromTarget":
            self._detached(params["sessionId"])
        elif cdp_session_id in self._targets and method in EVENTS:
            if cdp_session_id in self._waiting:
                self._waiting[cdp_session_id].append((method, params))
            else:
                self.engine.follower.on_event(self._targets[cdp_session_id], method, params)
            self.stirred.set()

    def _attach(self, params: Params, above: str) -> None:
        cdp_session_id, info = params["sessionId"], params["targetInfo"]
        if not above and info["targetId"] == self._of_target and not self._is_following:
            return  # the page that leads to its context
        is_page = info["type"] == "page"
        if info["type"] not in ("page", "iframe"):
            return  # a blank page of ours
        if is_page and not self._is_ours(info):
            if self._is_own:  # in a browser of others, other contexts are nobody's mistake
                self._session.report(ProblemKind.OTHER_CONTEXT, "the browser")
            self.connection.post("Runtime.runIfWaitingForDebugger", cdp_session_id=cdp_session_id)
            self.connection.post("Target.detachFromTarget", {"sessionId": cdp_session_id})
            return
        if not is_page and above not in self._targets:
            return
        tab = Tab(info["targetId"]) if is_page else self._targets[above].tab
        if is_page:
            self.engine.follower.opened(tab)
        target = self._targets[cdp_session_id] = Target(cdp_session_id, tab, is_page)
        self._waiting[cdp_session_id] = []
        is_new_tab = is_page and not self._is_starting
        is_held = is_new_tab and self._pauses_tabs
        if is_held and not params["waitingForDebugger"]:
            self.connection.post("Fetch.enable", _DOCUMENTS, cdp_session_id)  # the first tab of a new profile
        prepared = self._prepare(cdp_session_id)
        if is_held:
            self.spawn(self._admit(cdp_session_id, prepared, is_paused=params["waitingForDebugger"]))
        else:
            self.connection.post("Runtime.runIfWaitingForDebugger", cdp_session_id=cdp_session_id)
        self.spawn(self._adopt(target, is_new_tab=is_new_tab))

    def _prepare(self, cdp_session_id: str) -> list[asyncio.Future[Params]]:
        """Send a new target all that its documents need, and return the answers to come."""
        for method, enabling in ENABLE:
            self.connection.post(method, enabling, cdp_session_id)
        for script in self._scripts:
            self._add(script, cdp_session_id)
        frames = {**_FRAMES, "waitForDebuggerOnStart": self._pauses_tabs}
        answer = self.connection.post("Target.setAutoAttach", frames, cdp_session_id)
        return [*(script.added[cdp_session_id] for script in self._scripts), answer]

    def _admit(self, cdp_session_id: str, prepared: list[asyncio.Future[Params]], *, is_paused: bool) -> Flow[None]:
        """Admit the documents of a new tab once it has taken the scripts.

        A pause holds the navigations of other clients, too, for as long as our connection keeps it. Posted behind the scripts, its
        end overtakes them: 3 of 42 documents were faster on a busy machine, and 0 of 80 with this (Chromium 156, 2026-11-26).
        """
        yield asyncio.wait(prepared, timeout=limits.INIT_SCRIPT)
        self.connection.post("Runtime.runIfWaitingForDebugger", cdp_session_id=cdp_session_id)
        if not is_paused:
            self.connection.post("Fetch.disable", cdp_session_id=cdp_session_id)

    def _is_ours(self, target: Params) -> bool:
        """Return whether a tab is of the context that is followed: other contexts belong to others."""
        context = target.get("browserContextId")
        if self.context is None and context not in self._others:  # the browser does not say, and had no tab of its own
            self.context = context
        return context in (None, self.context)

    def _adopt(self, target: Target, *, is_new_tab: bool) -> Flow[None]:
        """Register the documents of a target. A new tab may have started one before it had our scripts."""
        try:
            tree = (yield self.connection.post("Page.getFrameTree", cdp_session_id=target.cdp))["frameTree"]
        except self.errors:  # it was closed at once, as a popup of a login is that has stored its token
            self._replay(target)
            return
        frame = tree["frame"]
        origin = origin_of(str(frame.get("securityOrigin", ""))) or ""
        scripts = self.engine.restorer.scripts
        is_unfilled = is_new_tab and bool(scripts.sections(origin))
        if is_unfilled and self._is_own and origin not in scripts.started:  # else another tab is at work there
            yield from self._load_again(target.cdp, origin, frame["url"] + frame.get("urlFragment", ""))
            # Nothing of the first document is followed: what it has stored is cleared.
            tree = {"frame": {"id": frame["id"], "loaderId": frame["loaderId"]}}
        self.engine.follower.adopt(target, tree)
        try:
            if is_unfilled and not self._is_own:
                yield from self._fill_and_reload(target, origin)
        finally:  # a tab whose events wait for ever is followed no more, and nothing of it is captured
            self._replay(target)

    def _replay(self, target: Target) -> None:
        """Follow the events that have waited for the documents of their target."""
        for method, params in self._waiting.pop(target.cdp, ()):
            self.engine.follower.on_event(target, method, params)

    def _load_again(self, cdp_session_id: str, origin: str, url: str) -> Flow[None]:
        """Load a new page again that was faster than our scripts. What its first try has stored goes.

        Only for an origin that is still to be restored, in a browser that was started for this session: so there is
        nothing else in it. Filling the open page would not do: a login page has made its databases by then, empty ones, and a
        database that exists is kept. Tabs that chromedriver opens with a URL come so, though they count as paused (2026-11-26).
        """
        own = {"storageId": {"storageKey": f"{origin}/", "isLocalStorage": False}}
        kinds = {"origin": origin, "storageTypes": "local_storage,indexeddb"}
        try:
            yield self.send(cdp_session_id, "DOMStorage.clear", own)
            blank = yield self.send(cdp_session_id, "Page.navigate", {"url": "about:blank"})
            # Until the blank page is there, the first document may open a database.
            yield self._committed(cdp_session_id, blank["loaderId"])
            yield self.send(cdp_session_id, "Storage.clearDataForOrigin", kinds)
            yield self.send(cdp_session_id, "Page.navigate", {"url": url})
            yield self.send(cdp_session_id, "Page.resetNavigationHistory", {})
        except self.errors as error:  # the browser is busy, or the tab has gone on
            self.connection.post("Page.navigate", {"url": url}, cdp_session_id)
            reason = f"a tab that was faster than the restore could not be loaded again: {error}"
            self._session.report(ProblemKind.RESTORE_FAILED, origin, reason)

    async def _committed(self, cdp_session_id: str, loader: str) -> None:
        """Wait until a document is in its tab."""
        async with asyncio.timeout(limits.COMMAND):
            while True:
                tree = (await self.send(cdp_session_id, "Page.getFrameTree", {}))["frameTree"]
                if tree["frame"]["loaderId"] == loader:
                    return
                await asyncio.sleep(_POLL)

    def _fill_and_reload(self, target: Target, origin: str) -> Flow[None]:
        frame = target.tab.main
        if frame is None or frame.origin != origin:
            return
        if (yield from self.engine.restorer.fill(origin, partial(self.engine.follower.evaluate, frame))):
            self.connection.post("Page.reload", cdp_session_id=target.cdp)

    def _detached(self, cdp_session_id: str) -> None:
        target = self._targets.pop(cdp_session_id, None)
        if target is None:
            return
        for script in self._scripts:
            script.added.pop(cdp_session_id, None)
        self.engine.follower.target_gone(target)
        self.stirred.set()


async def _contexts(connection: CdpConnection) -> tuple[str | None, set[str]]:
    """Return the id of the browser's default context, or None when it does not say, and those of the others."""
    found = await connection.send("Target.getBrowserContexts")
    others = set(found["browserContextIds"])
    if own := found.get("defaultBrowserContextId"):
        return str(own), others
    targets = (await connection.send("Target.getTargets"))["targetInfos"]
    ids = (each.get("browserContextId") for each in targets if each["type"] == "page")
    return next((str(each) for each in ids if each not in others), None), others
