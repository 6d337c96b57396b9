"""HTTP clients on a session's cookies: httpx, httpx2, requests.

`open_httpx`, `open_httpx_async`, `open_httpx2`, `open_httpx2_async` and `open_requests` open a client that is logged in as
the session is. `attach_client` does the same for a client that exists. Web storage, IndexedDB and partitioned cookies stay in
the session as they are.
"""

from __future__ import annotations

import importlib
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from session_reuse._browser.claims import claim
from session_reuse._browser.drivers.call_hooks import before, run_all
from session_reuse._browser.environment import recorded
from session_reuse._browser_session import assign_captured, require_open
from session_reuse._misuse import asynccontextmanager
from session_reuse.browsers._cookie_jar import BoundJar
from session_reuse.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    import httpx
    import httpx2
    import requests  # type: ignore[import-untyped, unused-ignore]

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

    Client = TypeVar("Client", httpx.Client, httpx.AsyncClient, httpx2.Client, httpx2.AsyncClient, requests.Session)

_OWN_NAMES: Final = ("python-httpx/", "python-httpx2/", "python-requests/")
"""How the clients call themselves when their user names no other User-Agent."""

__all__ = ["attach_client", "open_httpx", "open_httpx2", "open_httpx2_async", "open_httpx_async", "open_requests"]


@contextmanager
def open_httpx(session: BrowserSession, **client_options: Any) -> Iterator[httpx.Client]:
    """Open an `httpx.Client` with the session's cookies. What it changes is captured when it is closed.

    Args:
        session: the session, entered.
        client_options: arguments of `httpx.Client`.

    Raises:
        MissingExtraError: httpx is not installed.
    """
    with _library("httpx", "http").Client(**client_options) as client, attach_client(session, client):
        yield client


@asynccontextmanager
async def open_httpx_async(session: BrowserSession, **client_options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Open an `httpx.AsyncClient` with the session's cookies. See `open_httpx`."""
    async with _library("httpx", "http").AsyncClient(**client_options) as client:
        with attach_client(session, client):
            yield client


@contextmanager
def open_httpx2(session: BrowserSession, **client_options: Any) -> Iterator[httpx2.Client]:
    """Open an `httpx2.Client` with the session's cookies. See `open_httpx`."""
    with _library("httpx2", "httpx2").Client(**client_options) as client, attach_client(session, client):
        yield client


@asynccontextmanager
async def open_httpx2_async(session: BrowserSession, **client_options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Open an `httpx2.AsyncClient` with the session's cookies. See `open_httpx`."""
    async with _library("httpx2", "httpx2").AsyncClient(**client_options) as client:
        with attach_client(session, client):
            yield client


@contextmanager
def open_requests(session: BrowserSession) -> Iterator[requests.Session]:
    """Open a `requests.Session` with the session's cookies. See `open_httpx`."""
    with _library("requests", "http").Session() as client, attach_client(session, client):
        yield client


@contextmanager
def attach_client(session: BrowserSession, client: Client) -> Iterator[Client]:
    """Put the session's cookies into a client that exists. What it changes is captured at each save and at the end.

    At the end the client is as it was before: it does not stay logged in as the session is.

    Args:
        session: the session, entered.
        client: of httpx, httpx2 or requests, asynchronous ones too. Cookies that it holds already are used and captured with the
            others, but for those that the session has, too.

    Raises:
        LifecycleError: the session of another login is in the client, and they share a part.
    """
    require_open(session)
    is_requests = not hasattr(client, "event_hooks")

    def current() -> Any:
        cookies: Any = client.cookies  # its user may have assigned new ones
        return cookies if is_requests else cookies.jar

    end_claim = claim(client, session)
    jar = BoundJar(current, session.report)
    restored = session.storage_state
    jar.fill(restored, time.time())
    release = (_rule_requests if is_requests else _rule_httpx)(client, _CookieRule(jar))
    give_back = _adopt_user_agent(session, client)

    def capture() -> StorageState:
        return assign_captured(session, jar.capture(session.storage_state, time.time()), restored)

    unbind = session.bind_capture(capture)
    try:
        yield client
    finally:
        unbind()
        release()
        try:
            capture()
        finally:
            jar.empty()
            give_back()
            end_claim()


class _CookieRule:
    """Makes each request of a client, redirects too, carry the cookies of a jar."""

    def __init__(self, jar: BoundJar) -> None:
        self._jar = jar
        self._known: WeakKeyDictionary[Any, tuple[str | None, list[str]]] = WeakKeyDictionary()

    def note(self, request: Any) -> None:
        """Note which cookies of a request its user has given: those that the jar has not, as it is when the request is built."""
        present = request.headers.get("Cookie")
        if request not in self._known or self._known[request][0] != present:
            self._known[request] = present, self._jar.others(present)

    def note_made(self, *_: Any, **__: Any) -> Generator[None, Any]:
        """Note them when a request has been made: a hook around the method that makes it."""
        self.note((yield))

    def apply(self, request: Any, **_: Any) -> None:
        """Set the Cookie header of a request that is about to be sent, perhaps once more."""
        self.note(request)
        others = self._known[request][1]
        header = self._jar.header(str(request.url), others, time.time())
        if header is not None:
            request.headers["Cookie"] = header
        elif "Cookie" in request.headers:
            del request.headers["Cookie"]
        self._known[request] = header, others


def _rule_httpx(client: Any, rule: _CookieRule) -> Callable[[], None]:
    """Apply a rule to an httpx client. Return how to undo it."""

    async def apply_async(request: Any) -> None:
        rule.apply(request)

    is_async = hasattr(client, "aclose")
    hook = apply_async if is_async else rule.apply
    used: list[list[Any]] = []

    def add_hook(*_: Any, **__: Any) -> None:
        hooks = client.event_hooks["request"]  # its user may have assigned new ones
        if hook not in hooks:
            hooks.append(hook)
            used.append(hooks)

    async def add_hook_async(*_: Any, **__: Any) -> None:
        add_hook()

    undo = [
        before(client, "build_request", rule.note_made),
        before(client, "send", add_hook_async if is_async else add_hook),
    ]

    def release() -> None:
        run_all(undo)
        for hooks in used:
            if hook in hooks:
                hooks.remove(hook)

    return release


def _rule_requests(client: Any, rule: _CookieRule) -> Callable[[], None]:
    """Apply a rule to a `requests.Session`. Return how to undo it."""
    undo = [before(client, "prepare_request", rule.note_made), before(client, "send", rule.apply)]
    return lambda: run_all(undo)


def _adopt_user_agent(session: BrowserSession, client: Any) -> Callable[[], None]:
    """Send the User-Agent of the login: sites take the same cookies from another one for theft. Return how to undo it."""
    user_agent, own = recorded(session.storage_state).get("user_agent"), str(client.headers.get("User-Agent", ""))
    if user_agent and own.startswith(_OWN_NAMES):
        client.headers["User-Agent"] = user_agent

    def give_back() -> None:
        if user_agent and client.headers.get("User-Agent") == user_agent:
            client.headers["User-Agent"] = own

    return give_back


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(extra, f"an HTTP client of {name}") from None
