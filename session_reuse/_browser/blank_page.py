"""A page of ours that visits origins before the agent starts, or after it has finished. None of its requests gets out."""

from __future__ import annotations

import base64
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from session_reuse._browser import javascript, limits
from session_reuse._browser.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from session_reuse._browser.driver import BrowserDriver, Params

Evaluate: TypeAlias = "Callable[[str], Flow[Any]]"
"""A flow that evaluates an expression in the page of an origin, awaited."""

_ANSWER: Final = {
    "responseCode": 200,
    "responseHeaders": [{"name": "Content-Type", "value": "text/html"}],
    "body": base64.b64encode(b"<!doctype html>").decode(),
}


def visit(
    driver: BrowserDriver,
    origins: Iterable[str],
    act: Callable[[str, Evaluate], Flow[None]],
    limit: float,
) -> Flow[list[str]]:
    """Open each origin on a blank page and act there, within `limit` seconds for all. Return those where that failed."""

    def on_event(cdp: object, method: str, params: Params) -> None:
        if method == "Fetch.requestPaused":
            driver.spawn(driver.try_send(cdp, "Fetch.fulfillRequest", {"requestId": params["requestId"], **_ANSWER}))

    waiting = list(origins)
    deadline = time.monotonic() + limit
    try:
        cdp = yield from driver.open_blank_page(on_event)
    except driver.errors:
        cdp = None
    if cdp is None:
        return waiting
    failed = []
    try:
        for method, params in _PREPARATION:
            yield driver.send(cdp, method, params, limits.BLANK_PAGE)
        for origin in waiting:
            if time.monotonic() > deadline:
                failed.append(origin)
                continue
            try:
                opened = yield driver.send(cdp, "Page.navigate", {"url": f"{origin}/"}, limits.BLANK_PAGE)
                frame = opened["frameId"]
                yield from act(origin, partial(evaluate_apart, driver, cdp, frame, origin, limit=limits.BLANK_PAGE))
            except driver.errors:
                failed.append(origin)
    except driver.errors:
        return waiting
    finally:
        yield from driver.close_blank_page(cdp)
    return failed


_PREPARATION: Final[tuple[tuple[str, Params], ...]] = (
    ("Page.enable", {}),
    ("Network.enable", {}),
    ("Network.setBypassServiceWorker", {"bypass": True}),  # an installed worker would answer with the site's own page
    ("Fetch.enable", {"patterns": [{"urlPattern": "*"}]}),  # the site must not see a visit that no agent made
)


def evaluate_apart(
    driver: BrowserDriver, cdp: object, frame: str, origin: str | None, expression: str, limit: float
) -> Flow[Any]:
    """Return what an expression gives in an isolated world of a frame, awaited. Each step may take `limit` seconds.

    Raises:
        Exception: one of the driver's errors: it threw, took too long, or the document has been left.
    """
    # A world of our own: in the page's, the page or an agent's init script may have replaced any function.
    world = yield driver.send(cdp, "Page.createIsolatedWorld", {"frameId": frame}, limit)
    params = {"contextId": world["executionContextId"], "awaitPromise": True, "returnByValue": True}
    # The frame may hold another document, or an error page, when the command arrives.
    guarded = f"self.origin==={javascript.literal(origin)}?{expression}:Promise.reject()"
    answer = yield driver.send(cdp, "Runtime.evaluate", {**params, "expression": guarded}, limit)
    if "exceptionDetails" in answer:
        raise TimeoutError("a script failed in the page")
    return answer["result"].get("value")
