"""Restoring a state into a running Chromium over DevTools. Must never remove what the browser holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from session_reuse.browsers import javascript
from session_reuse.browsers.cdp_connection import CdpConnection, CdpError
from session_reuse.browsers.cdp_gate import open_gate
from session_reuse.browsers.cdp_hidden_page import HiddenPage, evaluate, hidden_page
from session_reuse.browsers.cookies import Cookie, clean_cookies, described, to_cdp
from session_reuse.browsers.lazy_restore import (
    HIDDEN_SECTIONS,
    SHIPPED_BYTES,
    LazyScripts,
    Payload,
    fill_script,
    payloads_of,
    plan_on_demand,
    plan_restore,
)
from session_reuse.browsers.origins import origin_of, shares_storage, storage_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from session_reuse.browsers.document_gate import DocumentGate
    from session_reuse.browsers.steps import Steps
    from session_reuse.state.storage_state import StorageState

_FILL_TIMEOUT: Final = 10.0


class CdpRestore:
    """What is to be restored into one browser, and what of it is still to come.

    Args:
        connection: to the browser.
        state: to restore.
        report: told what cannot be restored: kind and place, never a value.
        arrived: told which sections of an origin are known to be there.
        now: unix seconds.
        fresh: whether the browser was started for this session, so that any storage in it is newer than the state.
    """

    def __init__(
        self,
        connection: CdpConnection,
        state: StorageState,
        report: Callable[[str, str], None],
        arrived: Callable[[str, Collection[str]], None],
        *,
        now: float,
        fresh: bool,
    ) -> None:
        self._connection = connection
        self._report = report
        self._arrived = arrived
        self._cookies, problems = clean_cookies(state["cookies"], now)
        self._payloads, unusable = payloads_of(state["origins"])
        self._plan = plan_restore(self._payloads)
        self._gate: DocumentGate | None = None
        self._open: dict[str, Payload] = {}
        self.is_fresh = fresh
        self._scripts = LazyScripts(self._plan.lazy, fresh=fresh)
        self._registered: dict[str, dict[int, asyncio.Future[dict[str, Any]]]] = {}
        for problem in problems:
            report(problem.kind, problem.detail)
        for origin in unusable:
            report("origin_unusable", origin[:200])

    async def set_cookies(self) -> None:
        """Set the cookies, those that the browser takes."""
        await self._set_cookies(self._cookies)

    async def _set_cookies(self, cookies: list[Cookie]) -> None:
        """Set cookies at once, else in halves: Chromium refuses all for one that it does not like."""
        if not cookies or self._connection.ended.is_set():
            return
        try:
            await self._connection.send("Storage.setCookies", {"cookies": [to_cdp(cookie) for cookie in cookies]})
        except CdpError:
            if len(cookies) == 1:
                self._report("cookie_rejected", f"{described(cookies[0])}: the browser refused it")
                return
            half = len(cookies) // 2
            await self._set_cookies(cookies[:half])
            await self._set_cookies(cookies[half:])

    async def hold_documents(self, spawn: Callable[[Steps[Any]], None], context: str | None) -> None:
        """Leave what is too much to travel, and what no script can restore, until it is asked for.

        Args:
            spawn: runs a procedure that nobody waits for.
            context: the browser's own; None when that is not known.
        """
        plan = plan_on_demand(self._payloads, SHIPPED_BYTES)
        if plan is None:
            return
        self._gate = await open_gate(self._connection, spawn, self._report, self._arrived, context, plan.hidden)
        if self._gate:
            self._plan = plan._replace(hidden=[])
            self._scripts = LazyScripts(plan.lazy, fresh=self.is_fresh)

    def gate_event(self, method: str, params: dict[str, Any]) -> None:
        """Take one of `document_gate.EVENTS`."""
        if self._gate:
            self._gate.event(method, params)

    async def leave_open(self, context: str | None) -> None:
        """Leave origins that are open in a tab to `fill_open`, which looks first at what they hold.

        Args:
            context: the browser's own; None when that is not known.

        Raises:
            CdpError: the browser did not answer.
        """
        targets = (await self._connection.send("Target.getTargets"))["targetInfos"]
        ours = (each for each in targets if context is None or each.get("browserContextId") in (None, context))
        shown = {origin_of(str(each["url"])) for each in ours if each["type"] == "page"}
        self._open = {payload.origin: payload for payload in self._payloads if payload.origin in shown}
        self._payloads = [payload for payload in self._payloads if payload.origin not in self._open]
        self._plan = plan_restore(self._payloads)
        self._scripts = LazyScripts(self._plan.lazy, fresh=self.is_fresh)

    async def fill_large(self, hidden: dict[str, HiddenPage]) -> None:
        """Fill the origins that cannot be restored lazily, on a hidden page."""
        if not self._plan.hidden:
            return
        try:
            async with hidden_page(self._connection, hidden) as page:
                for payload in self._plan.hidden:
                    await self._fill(page, payload)
        except CdpError:
            for payload in self._plan.hidden:
                self._report("restore_failed", f"{payload.origin} could not be filled: no hidden page")

    async def _fill(self, page: HiddenPage, payload: Payload) -> None:
        try:
            filling = page.evaluate_at(payload.origin, fill_script(payload), timeout=_FILL_TIMEOUT)
            failed = await filling or ()
            for each in failed:
                self._report("restore_failed", f"{payload.origin} {each}")
            if not failed:
                self._arrived(payload.origin, HIDDEN_SECTIONS)
        except CdpError:
            self._report("restore_failed", f"{payload.origin} could not be filled")

    def arm(self, session: str) -> None:
        """Register the scripts of all origins that are still to be restored in a page that is about to start."""
        self._registered[session] = {each: self._register(session, each) for each in self._scripts.numbers}

    def disarm(self, session: str) -> None:
        """Forget a page that is gone."""
        self._registered.pop(session, None)

    def is_pending(self, origin: str) -> bool:
        """Return whether an origin is still to be restored."""
        return origin in self._open or origin in self._scripts.pending or self._pending_at_gate(origin) is not None

    def _pending_at_gate(self, origin: str) -> Payload | None:
        return self._gate.pending(origin) if self._gate else None

    def committed(self, origin: str, ancestors: list[str]) -> None:
        """Note the commit of a document; its origin is not filled again, in any page.

        Args:
            origin: the document's.
            ancestors: origins of the frames around it, from the inside out; empty for a top-level page.
        """
        if self._gate and shares_storage(origin, ancestors):
            self._gate.committed(origin)
        for number in self._scripts.committed(origin, ancestors):
            for session, registered in self._registered.items():
                if number in registered:
                    self._remove(session, registered.pop(number))

    def delivered(self, origin: str) -> set[str]:
        """Return which sections of an origin scripts have filled, if its document was one of its own."""
        return self._scripts.delivered(origin)

    def put_back(self, origin: str) -> None:
        """Restore an origin in the next document after all: the last one has a storage of its own, or none."""
        for number in self._scripts.put_back(origin):
            for session, registered in self._registered.items():
                registered[number] = self._register(session, number)

    def _register(self, session: str, number: int) -> asyncio.Future[dict[str, Any]]:
        script = {"source": self._scripts.source(number)}
        return self._connection.post("Page.addScriptToEvaluateOnNewDocument", script, session)

    def _remove(self, session: str, registration: asyncio.Future[dict[str, Any]]) -> None:
        def remove(registered: asyncio.Future[dict[str, Any]]) -> None:
            if not registered.cancelled() and registered.exception() is None:
                self._connection.post("Page.removeScriptToEvaluateOnNewDocument", registered.result(), session)

        registration.add_done_callback(remove)

    async def start_over(self, session: str, origin: str, url: str) -> None:
        """Load a new page again that was faster than our scripts; what its first try has stored goes.

        Only for an origin that is still to be restored, in a browser that was started for this session: so there is
        nothing else in it.

        Raises:
            CdpError: the page is gone.
        """
        own = {"storageId": {"storageKey": storage_key(origin), "isLocalStorage": False}}
        kinds = {"origin": origin, "storageTypes": "local_storage,indexeddb"}
        await self._connection.send("DOMStorage.clear", own, session)
        await self._connection.send("Page.navigate", {"url": "about:blank"}, session)
        await self._connection.send("Storage.clearDataForOrigin", kinds, session)
        await self._connection.send("Page.navigate", {"url": url}, session)
        await self._connection.send("Page.resetNavigationHistory", session=session)

    async def fill_open(self, session: str, origin: str, context: int) -> bool:
        """Fill the storage of a page that has started without our script, where it is empty.

        Args:
            session: the page's.
            origin: of its document.
            context: an isolated world in it.

        Returns:
            Whether anything was filled, so that the page would look different after a reload.

        Raises:
            CdpError: the page is gone.
        """
        payload = self._open.pop(origin, None) or (self._gate.take(origin) if self._gate else None)
        payload = payload or self._scripts.payload(origin)
        self.committed(origin, [])
        wanted = [
            ({"storageId": {"storageKey": storage_key(origin), "isLocalStorage": is_local}}, items)
            for items, is_local in ((payload.local, True), (payload.session, False))
            if items
        ]
        for storage, _ in wanted:
            if (await self._connection.send("DOMStorage.getDOMStorageItems", storage, session))["entries"]:
                self._report("origin_open", f"{origin} is open and not empty; its storage was left as it is")
                return False
        for storage, items in wanted:
            writes = [{**storage, "key": key, "value": value} for key, value in items]
            await asyncio.gather(
                *(self._connection.post("DOMStorage.setDOMStorageItem", each, session) for each in writes)
            )
        failed: list[str] = []
        if payload.databases:
            load = javascript.call("indexeddb_load", javascript.literal(payload.databases))
            failed = await evaluate(self._connection, session, load, context=context, timeout=_FILL_TIMEOUT) or []
        for each in failed:
            self._report("restore_failed", f"{origin} {each}")
        self._arrived(origin, payload.sections - {"databases"} if failed else payload.sections)
        return True
