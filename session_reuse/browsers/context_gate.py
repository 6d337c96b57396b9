"""The gate of one Playwright context. Must never fill the storage of a context that is not its own.

A hidden page takes some 80 ms. So a new tab that is sent straight to an origin is given its script before it goes.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from session_reuse.browsers.document_gate import EVENTS, DocumentGate, has_hidden_pages
from session_reuse.browsers.lazy_restore import LAZY_ORIGIN_BYTES, Into, Payload, restore_script
from session_reuse.browsers.on_demand import OnDemand
from session_reuse.browsers.origins import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from session_reuse.browsers.hidden_page import Client
    from session_reuse.browsers.steps import Steps


def open_gate(
    browser: Any, client: Client, report: Callable[[str, str], None], payloads: list[Payload]
) -> Steps[ContextGate | None]:
    """Return a gate that holds documents from now on, or None when this browser cannot.

    Args:
        browser: Playwright's.
        client: the face in use.
        report: told what cannot be restored: kind and place, never a value.
        payloads: of the origins to fill on demand.
    """
    if browser.browser_type.name != "chromium" or not has_hidden_pages(browser.version):
        return None
    try:
        cdp = yield browser.new_browser_cdp_session()
        gate = ContextGate(cdp, client, report, OnDemand(payloads, time.monotonic))
        for method in EVENTS:
            cdp.on(method, partial(gate.event, method))
        yield from gate.start()
    except client.errors:
        return None
    return gate


class ContextGate(DocumentGate):
    """The gate of one context; see `DocumentGate`."""

    def __init__(self, cdp: Any, client: Client, report: Callable[[str, str], None], origins: OnDemand) -> None:
        super().__init__(cdp, client, report, origins)
        self._context: Any = None
        self._others: set[str] = set()

    def start(self) -> Steps[None]:
        """Hold documents from now on; the context is about to be made."""
        before, _ = yield [self._send("Target.getBrowserContexts", {}), self._hold()]
        self._others = set(before["browserContextIds"])

    def follow(self, context: Any) -> None:
        """Serve a new context, until it is closed."""
        self._context = context
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
        """Let all documents go, and hold no more."""
        try:
            yield self._cdp.detach()
        except self._client.errors:
            return  # the browser is gone

    def learn(self, cdp: Any) -> Steps[str]:
        """Return the id of the main frame of a page of ours, and note that of the context.

        Args:
            cdp: a session with the page.
        """
        found = yield self._client.send(cdp, "Target.getTargetInfo", {})
        self._context_id = found["targetInfo"]["browserContextId"]
        return str(found["targetInfo"]["targetId"])

    def _opened(self, page: Any) -> None:
        if self._origins.open and page.url == "about:blank":
            self._client.around_first_goto(page, lambda url: self._arm(page, url), self._arrived)

    def _arm(self, page: Any, url: str) -> Steps[tuple[str, str] | None]:
        """Give a new tab the script of the origin it is sent to; return the origin and the tab's main frame."""
        origin = origin_of(url) or ""
        script = _first_script(self._origins.pending(origin))
        if (not script and self._context_id is not None) or page.url != "about:blank":
            return None
        try:
            found, registration = yield [self._send("Target.getTargets", {}), page.add_init_script(script)]
            frame = self._only_blank(found["targetInfos"]) or (yield from self._main_frame(page))
        except self._client.errors:
            return None
        if not script or self._origins.pending(origin) is None:
            yield from self._release([], [registration])
            return None
        self._origins.arm(origin, frame, registration)
        return origin, frame

    def _only_blank(self, targets: list[dict[str, Any]]) -> str | None:
        """Return the id of the one blank page of our context: its main frame has the same."""
        ours = (each for each in targets if each["type"] == "page" and each.get("browserContextId") == self._context_id)
        blank = [str(each["targetId"]) for each in ours if each["url"] == "about:blank"]
        return blank[0] if len(blank) == 1 else None

    def _main_frame(self, page: Any) -> Steps[str]:
        cdp = yield self._context.new_cdp_session(page)
        frame = yield from self.learn(cdp)
        self._client.spawn(_detach(cdp, self._client))
        return frame

    def _arrived(self, armed: tuple[str, str] | None) -> Steps[None]:
        """Take the script away from a tab that has come to another origin; one that failed may try again."""
        if armed is None:
            return
        held = self._origins.abandoned(*armed)
        yield from self._release([], self._origins.disarm(*armed))
        payload = self._origins.begin(armed[0]) if held else None
        if payload is not None:
            for request in held:
                self._origins.hold(payload.origin, request)
            yield from self._fill(payload)


def _first_script(payload: Payload | None) -> str:
    """Return the script for a tab that goes straight to an origin; nothing for what only the hidden page can do well.

    The agent's own init scripts are registered before this one, and run before it: what they have stored stays, and a
    database they open has to be complete.
    """
    if payload is None or payload.databases or len(payload.text) > LAZY_ORIGIN_BYTES:
        return ""
    return restore_script([payload], Into.GAPS)


def _detach(cdp: Any, client: Client) -> Steps[None]:
    try:
        yield cdp.detach()
    except client.errors:
        return  # the page is gone
