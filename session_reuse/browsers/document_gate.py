"""Holds an origin's first documents until its storage is filled, in Chromium. Must never hold anybody else's for long.

Scripts that are registered with a browser are sent to the process of each page, so what they cost grows with the state.
Beyond a few of them, origins are filled when they are asked for. The browser's own DevTools endpoint can hold requests
for documents whatever tab, popup or frame they are for, without a race and without turning off the cache. While the
request is on its way, a hidden page fills the origin; all it loads is answered here. It has to be that page: from the
start of a navigation to its commit a tab takes no script (Chromium 156, 2026-11-22).
"""

from __future__ import annotations

import base64
import json
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from session_reuse.browsers.lazy_restore import HIDDEN_SECTIONS, Payload, filler_page
from session_reuse.browsers.on_demand import FILL_LIMIT, OnDemand, Verdict
from session_reuse.browsers.origins import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from session_reuse.browsers.hidden_page import Client
    from session_reuse.browsers.steps import Steps

OLDEST_CHROMIUM: Final = 134
"""The first with hidden pages."""
_WITH_USER: Final = "*://*@*/*"
"""URL with a user name in it, for whatever origin; those with an @ elsewhere are looked at, and let go."""
_PATHS: Final = "/.session-reuse-"
"""How the paths of all gates' hidden pages begin."""
EVENTS: Final = ("Fetch.requestPaused", "Target.targetCrashed", "Target.targetDestroyed")
"""What a gate has to be told of the browser's events."""


def has_hidden_pages(version: str) -> bool:
    """Return whether a version of Chromium is new enough."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) >= OLDEST_CHROMIUM


class DocumentGate:
    """The gate of one context.

    Args:
        cdp: a session with the browser itself.
        client: the face in use.
        report: told what cannot be restored.
        arrived: told which sections of an origin are known to be there.
        origins: to fill on demand.
    """

    def __init__(
        self,
        cdp: Any,
        client: Client,
        report: Callable[[str, str], None],
        arrived: Callable[[str, Collection[str]], None],
        origins: OnDemand,
    ) -> None:
        self._cdp = cdp
        self._client = client
        self._report = report
        self._arrived = arrived
        self._origins = origins
        self._context_id: str | None = None
        self._path = f"{_PATHS}{secrets.token_urlsafe(12)}/"
        self._hidden: dict[str, str] = {}
        """The origin that each hidden page fills."""
        self._is_closed = False

    def hold_documents(self) -> Steps[None]:
        """Have the browser hold documents of the origins that are left, or none any more."""
        yield self._hold()

    def _hold(self) -> Any:
        patterns = [f"{origin}/*" for origin in self._origins.open]
        if not patterns:
            return self._send("Fetch.disable", {})
        documents = [{"urlPattern": pattern, "resourceType": "Document"} for pattern in (*patterns, _WITH_USER)]
        return self._send("Fetch.enable", {"patterns": documents})

    def _hold_fewer(self) -> Steps[None]:
        try:
            yield self._hold()
        except self._client.errors:
            return  # the browser is gone

    def serve(self, context_id: str) -> None:
        """Serve a context that the browser knows by this id."""
        self._context_id = context_id

    @property
    def knows_context(self) -> bool:
        """Whether it is known which context is ours; documents are let go as long as it is not."""
        return self._context_id is not None

    def pending(self, origin: str) -> Payload | None:
        """Return what an origin gets that nobody has asked for yet."""
        return self._origins.pending(origin)

    def take(self, origin: str) -> Payload | None:
        """Return the same, for somebody who sees to it; its documents are held no more."""
        payload = self._origins.take(origin)
        if payload is not None:
            self._client.spawn(self._hold_fewer())
        return payload

    def committed(self, origin: str) -> None:
        """Note a document that shares the origin's storage; the origin is not filled after this."""
        if self._origins.take(origin):
            self._report("restore_failed", f"{origin} was shown before it could be filled")

    def _send(self, method: str, params: dict[str, Any]) -> Any:
        return self._client.send(self._cdp, method, params)

    def event(self, method: str, params: dict[str, Any]) -> None:
        """Take one of `EVENTS`: a request that the browser holds, or its answer; the end of a page."""
        if self._is_closed:
            return
        if method == "Fetch.requestPaused":
            self._client.spawn(self._paused(params))
        elif lost := self._hidden.pop(params["targetId"], None):
            self._client.spawn(self._finish(lost, ["the hidden page has crashed"]))

    def _paused(self, params: dict[str, Any]) -> Steps[None]:
        try:
            parts = urlsplit(params["request"]["url"])
            origin = origin_of(params["request"]["url"]) or ""
            if parts.path.startswith(self._path):
                yield from self._serve(origin, params, parts.query)
            elif parts.path.startswith(_PATHS):
                yield from self._let_go(params["requestId"])  # another gate fills its own
            else:
                yield from self._judge(origin, params)
        except self._client.errors:
            return  # the browser is gone, or the tab has given up

    def _judge(self, origin: str, params: dict[str, Any]) -> Steps[None]:
        """Decide what becomes of a request, or of its answer."""
        request, frame = params["requestId"], params["frameId"]
        is_answer = "responseStatusCode" in params or "responseErrorReason" in params
        if self._origins.is_overdue(origin):
            yield from self._finish(origin, ["took too long"])
        verdict = self._origins.verdict(origin, is_answer=is_answer)
        payload = None
        if verdict is Verdict.FILL:
            is_ours = yield from self._is_ours(frame)
            payload = self._origins.begin(origin) if is_ours else None
            verdict = (Verdict.HOLD if is_answer else Verdict.WATCH) if is_ours else Verdict.PASS
        if verdict is not Verdict.HOLD or not self._origins.hold(origin, request):
            watch = {"interceptResponse": True} if verdict is Verdict.WATCH else {}
            yield from self._let_go(request, **watch)
        if payload is not None:
            yield from self._fill(payload)

    def _is_ours(self, frame: str) -> Steps[bool]:
        """Return whether a frame is of our context; others of the same browser may ask for the same origins."""
        try:
            found = yield self._send("Target.getTargetInfo", {"targetId": frame})
        except self._client.errors:
            # A frame in a page: whosever it is, what is filled is our own storage.
            return self._context_id is not None
        return bool(found["targetInfo"].get("browserContextId", "") == self._context_id)

    def _fill(self, payload: Payload) -> Steps[None]:
        """Start to fill an origin that is held."""
        self._client.later(FILL_LIMIT, lambda: self._given_up(payload))
        page = {"url": "about:blank", "hidden": True, "background": True, "browserContextId": self._context_id}
        try:
            _, made = yield [
                self._send("Target.setDiscoverTargets", {"discover": True, "filter": [{"type": "other"}]}),
                self._send("Target.createTarget", page),
            ]
            self._hidden[made["targetId"]] = payload.origin
            yield from self._send_to(made["targetId"], f"{payload.origin}{self._path}fill")
        except self._client.errors:
            yield from self._finish(payload.origin, ["no hidden page"])

    def _send_to(self, target: str, url: str) -> Steps[None]:
        """Send a hidden page to a URL; a service worker of the site, which would answer it, is passed by."""
        attached = yield self._send("Target.attachToTarget", {"targetId": target, "flatten": False})
        commands: list[tuple[str, dict[str, Any]]] = [
            ("Network.enable", {}),
            ("Network.setBypassServiceWorker", {"bypass": True}),
            ("Page.navigate", {"url": url}),
        ]
        for number, (method, params) in enumerate(commands):
            message = json.dumps({"id": number, "method": method, "params": params})
            to = {"sessionId": attached["sessionId"], "message": message}
            yield self._send("Target.sendMessageToTarget", to)

    def _given_up(self, payload: Payload) -> Steps[None]:
        """Hold nobody any longer if the origin is still being filled."""
        if not self._is_closed and self._origins.filling(payload.origin) is payload:
            yield from self._finish(payload.origin, ["took too long"])

    def _serve(self, origin: str, params: dict[str, Any], report: str) -> Steps[None]:
        """Answer the hidden page: it loads what fills the origin, and then says what failed."""
        request, payload = {"requestId": params["requestId"]}, self._origins.filling(origin)
        if payload is not None and not report:
            text = filler_page(payload, f"{origin}{self._path}done?")
            headers = [{"name": "Content-Type", "value": "text/html"}]
            body = base64.b64encode(text.encode("ascii")).decode()
            answer = {"responseCode": 200, "responseHeaders": headers, "body": body}
            try:
                yield self._send("Fetch.fulfillRequest", {**request, **answer})
            except self._client.errors:
                yield from self._finish(origin, ["the hidden page has not loaded"])
            return
        self._hidden.pop(params["frameId"], None)
        if payload is not None:
            yield from self._finish(origin, json.loads(unquote(report)))
        yield self._send("Fetch.failRequest", {**request, "errorReason": "Aborted"})
        yield self._send("Target.closeTarget", {"targetId": params["frameId"]})
        if not self._hidden:
            yield self._send("Target.setDiscoverTargets", {"discover": False})
        yield from self.hold_documents()

    def _finish(self, origin: str, failed: list[str]) -> Steps[None]:
        for each in failed:
            self._report("restore_failed", f"{origin} {each}")
        if not failed:
            self._arrived(origin, HIDDEN_SECTIONS)
        for request in self._origins.filled(origin):
            yield from self._let_go(request)

    def _let_go(self, request: str, **options: Any) -> Steps[None]:
        """Let a request go on; its tab may have given up, and the origin is filled all the same."""
        with suppress(*self._client.errors):
            yield self._send("Fetch.continueRequest", {"requestId": request, **options})
