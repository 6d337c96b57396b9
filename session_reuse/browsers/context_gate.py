"""The gate of one Playwright context. Must never fill the storage of a context that is not its own.

A hidden page takes some 100 ms. So the script of an origin to which an agent sends its only tab travels after all, just
before. Other tabs may be on their way to a slow site, and would neither take the script nor give it back until they arrive.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from session_reuse.browsers.document_gate import EVENTS, DocumentGate, has_hidden_pages
from session_reuse.browsers.lazy_restore import LAZY_ORIGIN_BYTES, Payload
from session_reuse.browsers.on_demand import OnDemand
from session_reuse.browsers.origins import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from session_reuse.browsers.hidden_page import PageClient
    from session_reuse.browsers.steps import Steps

    Ship = Callable[[Payload], Steps[None]]


def open_gate(
    browser: Any,
    client: PageClient,
    report: Callable[[str, str], None],
    arrived: Callable[[str, Collection[str]], None],
    payloads: list[Payload],
) -> Steps[ContextGate | None]:
    """Return a gate that holds documents from now on, or None when this browser cannot.

    Args:
        browser: Playwright's.
        client: the face in use.
        report: told what cannot be restored: kind and place, never a value.
        arrived: told which sections of an origin are known to be there.
        payloads: of the origins to fill on demand.
    """
    if browser.browser_type.name != "chromium" or not has_hidden_pages(browser.version):
        return None
    try:
        cdp = yield browser.new_browser_cdp_session()
        gate = ContextGate(cdp, client, report, arrived, OnDemand(payloads, time.monotonic))
        for method in EVENTS:
            cdp.on(method, partial(gate.event, method))
        yield from gate.start()
    except client.errors:
        return None
    return gate


class ContextGate(DocumentGate):
    """The gate of one context; see `DocumentGate`."""

    def __init__(
        self,
        cdp: Any,
        client: PageClient,
        report: Callable[[str, str], None],
        arrived: Callable[[str, Collection[str]], None],
        origins: OnDemand,
    ) -> None:
        super().__init__(cdp, client, report, arrived, origins)
        self._pages = client
        self._context: Any = None
        self._ship: Ship
        self._base_url = ""
        self._others: set[str] = set()

    def start(self) -> Steps[None]:
        """Hold documents from now on; the context is about to be made."""
        before, _ = yield [self._send("Target.getBrowserContexts", {}), self._hold()]
        self._others = set(before["browserContextIds"])

    def follow(self, context: Any, base_url: str, ship: Ship) -> None:
        """Serve a new context, until it is closed.

        Args:
            context: Playwright's.
            base_url: what relative URLs of a `goto` are relative to.
            ship: registers the script of one origin in it, and takes the origin from here when it is.
        """
        self._context = context
        self._base_url = base_url
        self._ship = ship
        context.on("page", self._opened)
        context.on("close", lambda _: self._client.spawn(self.close()))
        self._client.spawn(self._learn_by_difference())

    def _learn_by_difference(self) -> Steps[None]:
        """Learn which context is ours before it has a page."""
        try:
            now = yield self._send("Target.getBrowserContexts", {})
        except self._client.errors:
            return  # the browser is gone
        new = set(now["browserContextIds"]) - self._others
        if len(new) == 1:  # else others were made at the same time: a page of ours will tell
            self._context_id = new.pop()

    def close(self) -> Steps[None]:
        """Let all documents go, and hold no more; hidden pages end with it."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            yield self._pages.briefly(self._cdp.detach())
        except self._client.errors:
            return  # the browser is gone

    def learn(self, cdp: Any) -> Steps[None]:
        """Learn from a page which context of the browser is ours.

        Args:
            cdp: a session with the page.
        """
        found = yield self._client.send(cdp, "Target.getTargetInfo", {})
        self._context_id = found["targetInfo"]["browserContextId"]

    def _opened(self, page: Any) -> None:
        if self._origins.open:
            self._pages.before_goto(page, lambda url: self._prepare(page, url))

    def _prepare(self, page: Any, url: str) -> Any:
        """Begin to ship the script of an origin that the only tab is about to be sent to."""
        payload = self.pending(origin_of(urljoin(self._base_url, str(url))) or "")
        if payload is not None and _can_travel(payload) and self._context.pages == [page]:
            return self._client.spawn(self._ship(payload))
        return None if self.knows_context else self._client.spawn(self._learn_from(page))

    def _learn_from(self, page: Any) -> Steps[None]:
        """Learn which context is ours before this page is on its way: after that it would not answer."""
        try:
            cdp = yield self._context.new_cdp_session(page)
            yield from self.learn(cdp)
            yield self._pages.briefly(cdp.detach())
        except self._client.errors:
            return  # the page is gone


def _can_travel(payload: Payload) -> bool:
    """Return whether the script can do it as well as the hidden page.

    The agent's own init scripts run before it. What they have stored stays; a database they open could not be completed.
    """
    return not payload.databases and len(payload.text) <= LAZY_ORIGIN_BYTES
