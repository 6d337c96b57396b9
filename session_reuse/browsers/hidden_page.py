"""A page of our own that visits origins without a request reaching the network. Must never run a site's scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from session_reuse.browsers.steps import Steps

BLANK: Final = "<!doctype html>"
VISIT_LIMIT: Final = 3.0
"""Seconds that one origin may take."""


@dataclass(frozen=True, slots=True)
class Client:
    """What each kind of client does in its own way.

    Attributes:
        errors: what a call raises when the browser is gone or does not answer.
        send: sends a command over a debugging session, within a time limit; a step.
        spawn: runs a procedure; returns its task, or None when it is done.
        later: runs a procedure some seconds from now, where there is somebody to do it.
    """

    errors: tuple[type[Exception], ...]
    send: Callable[[Any, str, dict[str, Any]], Any]
    spawn: Callable[[Steps[Any]], Any]
    later: Callable[[float, Callable[[], Steps[Any]]], None]


@dataclass(frozen=True, slots=True)
class PageClient(Client):
    """What the asynchronous and the synchronous client of Playwright do differently besides.

    Attributes:
        before_goto: has something begin before the `goto` of a page.
        take_out: has an init script taken out of all tabs, whose number it is told; a step.
        to_its_end: has a call come to its end whoever is cancelled, and hands its result on; a step.
        briefly: waits for a call that lets go of something of ours, though not for long, and whatever comes of it; a step.
        before_close: has a procedure run before a page's `close`, though not for long; returns what takes that back.
        hidden_page: opens a page that the agent does not see, in a browser's context of this id; a step, of None where
            there is none.
        shipped_bytes: of scripts that may travel with each page before origins are left until they are asked for.
    """

    before_goto: Callable[[Any, Callable[[str], Any]], None]
    take_out: Callable[[Any, int], Any]
    to_its_end: Callable[[Any, Callable[[Any], None]], Any]
    briefly: Callable[[Any], Any]
    before_close: Callable[[Any, Callable[[], Steps[None]]], Callable[[], None]]
    hidden_page: Callable[[Any, str], Any]
    shipped_bytes: int


def routed_page(page: Any, client: Client) -> Steps[Any]:
    """Have all requests of a new page of Playwright's answered here, and return it."""
    # A function of its own each time: Playwright keeps its wrapper on it, and the wrappers of its two APIs differ.
    yield page.route("**/*", lambda route: _answer(route))  # noqa: PLW0108
    yield from _bypass_service_workers(client, page)
    return page


def visit_origins(
    page: Any, client: PageClient, origins: Iterable[str], visit: Callable[[Any, str], Steps[None]]
) -> Steps[list[str]]:
    """Open each origin on a page of our own, and close the page.

    Args:
        page: one whose requests are all answered here.
        client: the face in use.
        origins: to visit, in turn.
        visit: called with the page and the origin.

    Returns:
        The origins that could not be visited.
    """
    failed = []
    try:
        for origin in origins:
            try:
                yield page.goto(f"{origin}/", timeout=VISIT_LIMIT * 1000, wait_until="commit")
                yield from visit(page, origin)
            except client.errors:
                failed.append(origin)
    finally:
        yield client.briefly(page.close())
    return failed


def _answer(route: Any) -> Any:
    return route.fulfill(status=200, content_type="text/html", body=BLANK)


def _bypass_service_workers(client: Client, page: Any) -> Steps[None]:
    """Keep an installed service worker from answering with the site's own page."""
    try:
        cdp = yield page.context.new_cdp_session(page)
        yield client.send(cdp, "Network.enable", {})
        yield client.send(cdp, "Network.setBypassServiceWorker", {"bypass": True})
    except client.errors:
        return  # not Chromium
