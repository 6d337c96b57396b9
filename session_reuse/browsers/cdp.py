"""Any Chromium with a DevTools address, for agents of any kind and language: restored, followed, captured.

    async with reusable_session("shop.example/alice") as session:
        async with open_chromium(session) as chromium:
            ...  # give chromium.cdp_url to the agent

With a session of `session_reuse.blocking`, write `with` in place of `async with`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack
from urllib.parse import urlsplit

from session_reuse._browser import limits
from session_reuse._browser.drivers.connection import CdpConnection, CdpError, open_websocket
from session_reuse._browser.drivers.tasks import finished
from session_reuse._browser.drivers.thread import LoopThread
from session_reuse._browser.options import EngineOptions, Settings
from session_reuse._browser.origins import origin_of
from session_reuse._browser_session import check_raised, report_not_opened, require_open
from session_reuse._settings.values import takes, verify_hook
from session_reuse._state.storage_state import is_empty
from session_reuse.browsers._attachment import Attachment
from session_reuse.browsers._chromium_process import START_LIMIT, ChromiumProcess
from session_reuse.browsers._devtools_address import Address
from session_reuse.browsers._web_address import NO_CONTENT, require_no_trouble, require_web_address
from session_reuse.browsers.chromium import confinement_arguments
from session_reuse.errors import AdapterError, ConfigurationError, LifecycleError, MissingExtraError
from session_reuse.outcome import Outcome

try:
    import websockets.asyncio.client  # noqa: F401  (used at the first connection, which is not to wait for the import)
except ImportError:
    raise MissingExtraError("cdp", "session_reuse.browsers.cdp") from None

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from session_reuse._browser_session import BrowserSession
    from session_reuse._state.storage_state import StorageState

__all__ = ["BoundChromium", "Chromium", "attach_cdp", "open_chromium", "page_shows"]

EXIT_LIMIT: Final = 15.0
"""Seconds that the last capture and the end of the browser may take."""
ENTER_LIMIT: Final = 2 * (START_LIMIT + limits.START) + limits.VERIFY
"""Seconds for two browsers and a check."""

_NOT_OPENED: Final = "no browser was opened"
"""Nothing was seen, so nothing is saved: an enter that failed stored an empty session."""
_LOOK: Final = {
    "expression": "[document.readyState, location.href, document.body ? document.body.innerText : '',"
    " performance.getEntriesByType('navigation')[0]?.responseStatus ?? 0]",
    "returnByValue": True,
}


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser with a session in it.

    Attributes:
        cdp_url: its DevTools address for clients: `http://127.0.0.1:PORT`, or the websocket where there is no other.
        websocket_url: the websocket of the browser.
        process: the browser, if it was started here.
    """

    cdp_url: str = field(repr=False)  # the address of a browser service has its token in it
    websocket_url: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port of the address."""
        parts = urlsplit(self.cdp_url)
        return parts.port or {"https": 443, "wss": 443}.get(parts.scheme, 80)


def open_chromium(
    session: BrowserSession,
    *,
    executable: str | Path | None = None,
    arguments: Sequence[str] = (),
    headless: bool | None = None,
    verify: Callable[[Chromium], object] | None = None,
    **options: Unpack[EngineOptions],
) -> BoundChromium:
    """Start a Chromium with the session's state in a separate profile. At the end it is captured, ended and removed.

    With `allowed_domains` of the session, the browser reaches these hosts only.
    Its port is a free one on loopback. Each program of this machine that finds the port can use the session.

    Args:
        session: whose state is restored, and which gets what was captured.
        executable: a path or a name on PATH. If not given, a Chromium is searched.
        arguments: more flags for Chromium.
        headless: None for headless where there is no display.
        verify: called with the browser when a state was restored. When it returns False or raises, the agent gets a new
            browser without it, and `session.outcome` is `unverified`. With `AdapterError` it could not tell, and
            the state stays. See `page_shows`.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients.

    Raises:
        AdapterError: there is no Chromium, or it does not start.
    """
    verify_hook(verify, "browser")
    # After the caller's flags: of a flag that is given twice, Chromium takes the last.
    flags = [*arguments, *confinement_arguments(session.allowed_domains)]
    launch = partial(ChromiumProcess, executable, flags, headless=headless)
    return BoundChromium(session, Settings.build(options), launch, verify=verify)


def attach_cdp(
    session: BrowserSession,
    address: str | int,
    *,
    headers: Mapping[str, str] | None = None,
    target_id: str | None = None,
    **options: Unpack[EngineOptions],
) -> BoundChromium:
    """Restore the session's state into a Chromium that runs. At the end it is captured, and the browser stays open.

    Nothing that the browser holds is removed. An origin that is open in a tab is filled only where its storage is empty. New
    tabs wait for a moment until they have the session. With `target_id` they do not, because the browser is shared with others:
    a document that is faster than the restore may not find its storage.

    Args:
        session: whose state is restored, and which gets what was captured.
        address: a port of this machine, `host:port`, an `http(s)://` address, or the websocket of the browser. It has path,
            query and token where a service wants them.
        headers: what a service wants to see.
        target_id: a tab whose context is used. If not given, it is the browser's default context. No other is changed.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients.

    Raises:
        ConfigurationError: the address is none.
        AdapterError: no browser answers there, or one that cannot be used.
        LifecycleError: the session of another login is in its context, and they share a part.
    """
    found = Address.of(address, headers)
    return BoundChromium(session, Settings.build(options), lambda: found, target_id=target_id)


class BoundChromium:
    """A Chromium bound to a session, for `async with`, and for `with` with a blocking session."""

    def __init__(
        self,
        session: BrowserSession,
        settings: Settings,
        endpoint: Callable[[], ChromiumProcess | Address],
        *,
        target_id: str | None = None,
        verify: Callable[[Chromium], object] | None = None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._next_endpoint = endpoint
        self._target_id = target_id
        self._verify = verify
        self._endpoint: ChromiumProcess | Address | None = None
        self._attachment: Attachment | None = None
        self._thread: LoopThread | None = None
        self._unbind: Callable[[], None] = lambda: None
        self._was_entered = False
        self._given: StorageState

    async def __aenter__(self) -> Chromium:
        """Restore the state, and return the browser."""
        self._begin(is_blocking=False)
        try:
            chromium = await self._open_verified()
        except BaseException:
            report_not_opened(self._session, self._given, _NOT_OPENED)
            await finished(self._close())
            raise
        self._unbind = self._session.bind_capture(self._entered.capture)
        return chromium

    async def __aexit__(self, *_: object) -> None:
        """Capture, and end a browser that was started here. When this is cancelled, the session has what was seen so far."""
        self._entered.keep_last_seen()
        await finished(self._finish())

    def __enter__(self) -> Chromium:
        """Restore the state, and return the browser."""
        self._begin(is_blocking=True)
        thread = self._thread = LoopThread()
        try:
            chromium = thread.run(self._open_verified(), ENTER_LIMIT)
        except BaseException:
            report_not_opened(self._session, self._given, _NOT_OPENED)
            self._end_thread(self._close())
            raise
        self._unbind = self._session.bind_capture(lambda: thread.run(self._entered.capture(), ENTER_LIMIT))
        return chromium

    def __exit__(self, *_: object) -> None:
        """Capture, and end a browser that was started here."""
        self._entered.keep_last_seen()
        self._end_thread(self._finish())

    def _begin(self, *, is_blocking: bool) -> None:
        require_open(self._session)
        if self._was_entered:
            raise LifecycleError("a browser of open_chromium or attach_cdp is entered once: make one for each `with`")
        if is_blocking is inspect.iscoroutinefunction(self._session.checkpoint):
            right, kind = ("async with", "asynchronous") if is_blocking else ("with", "blocking")
            raise LifecycleError(f"write `{right}` here: the session is {kind}")
        self._was_entered = True
        self._given = self._session.storage_state

    async def _open_verified(self) -> Chromium:
        """Return the browser, or a new one without the state that a check has refused."""
        chromium = await self._open()
        is_restored = self._session.reused or not is_empty(self._session.storage_state)
        if self._verify is None or not is_restored or await self._is_verified(self._verify, chromium):
            return chromium
        await self._close()
        self._session.start_fresh(Outcome.UNVERIFIED)
        return await self._open()

    async def _open(self) -> Chromium:
        endpoint = self._endpoint = self._next_endpoint()
        websocket = await endpoint.websocket()
        self._attachment = Attachment(self._session, self._settings, endpoint, of_target=self._target_id)
        try:
            await self._attachment.start()
        except Exception as error:  # noqa: BLE001  (whatever it is, an agent starts in a browser of its own)
            if not endpoint.is_own:
                reason = str(error) or "it does not answer"
                unusable = AdapterError(f"the browser at {endpoint} cannot be used: {reason}")
                raise (unusable if isinstance(error, CdpError | TimeoutError) else error) from None
            self._attachment.report_failure("the browser", error)
        return Chromium(endpoint.for_clients, self._attachment.websocket or websocket, endpoint.process)

    async def _is_verified(self, verify: Callable[[Chromium], object], chromium: Chromium) -> bool:
        try:
            async with asyncio.timeout(limits.VERIFY):
                if self._thread is not None and not inspect.iscoroutinefunction(verify):
                    answer = await asyncio.to_thread(verify, chromium)
                else:
                    answer = verify(chromium)
                is_good = bool(await answer if inspect.isawaitable(answer) else answer)
        except Exception as error:  # noqa: BLE001  (whatever the user's check raises means: not verified)
            is_good = check_raised(self._session, error) and not isinstance(error, CdpError)  # else the browser is gone
        if is_good:
            await self._entered.rearm_session_storage()
        return is_good

    @property
    def _entered(self) -> Attachment:
        if self._attachment is None:
            raise LifecycleError("a browser of open_chromium or attach_cdp is used in `async with` or `with`")
        return self._attachment

    async def _finish(self) -> None:
        try:
            await self._entered.finish()
        finally:
            self._unbind()
            await self._close()

    async def _close(self) -> None:
        attachment, self._attachment = self._attachment, None
        endpoint, self._endpoint = self._endpoint, None
        try:
            if attachment is not None:
                await attachment.release()
        finally:
            if endpoint is not None:
                await asyncio.to_thread(endpoint.stop)

    def _end_thread(self, work: Coroutine[Any, Any, None]) -> None:
        thread, endpoint = self._thread, self._endpoint
        assert thread is not None  # noqa: S101  (made at the beginning)
        try:
            thread.run(work, EXIT_LIMIT)
        except CdpError:
            if endpoint is not None:
                endpoint.stop()
        finally:
            thread.stop()  # only now: a checkpoint under way needs it for its capture


def page_shows(
    url: str, text: str | None = None, *, timeout: float = 10.0
) -> Callable[[Chromium], Coroutine[Any, Any, bool]]:
    """Return a check for `verify`: the browser stays at a page and it shows a text.

    Args:
        url: the page, one that only those who are logged in see.
        text: a text that the page shows, in any case. With None, the page is right if its URL is.
        timeout: seconds to wait for it.

    Raises:
        ConfigurationError: the URL or the text is wrong.
        AdapterError: the site cannot be reached, or is in trouble (HTTP 429, 5xx). The check raises it.
    """
    require_web_address(url)  # at once: an error of the check counts as no login
    if text == "":
        raise ConfigurationError("text must not be empty: every page has it")

    async def check(chromium: Chromium) -> bool:
        host, status, is_shown = urlsplit(url).netloc, -1, False
        connection = CdpConnection(await open_websocket(chromium.websocket_url), lambda *_: None)
        try:
            async with asyncio.timeout(timeout):
                created = await connection.send("Target.createTarget", {"url": "about:blank", "background": True})
                target = created["targetId"]
                try:
                    attached = await connection.send("Target.attachToTarget", {"targetId": target, "flatten": True})
                    page = attached["sessionId"]
                    # Only now: the tab has our scripts.
                    answer = await connection.send("Page.navigate", {"url": url}, page)
                    error = answer.get("errorText")
                    if error and NO_CONTENT not in error:  # the site is away, which proves nothing about the login
                        raise AdapterError(f"{host} cannot be reached: {error}")
                    status = 0
                    while not is_shown:
                        status, is_shown = await _look(connection, page, url, text)
                        await asyncio.sleep(0 if is_shown else 0.1)
                finally:
                    with contextlib.suppress(CdpError):  # in place of a cancellation, it would be taken for an answer
                        await connection.send("Target.closeTarget", {"targetId": target}, timeout=limits.COMMAND)
        except TimeoutError:
            if status < 0:
                raise AdapterError(f"{host} cannot be reached: it did not answer in time") from None
        finally:
            await connection.close()
        if text is None or not is_shown:
            require_no_trouble(host, status)
        return is_shown

    return takes("browser", check)


async def _look(connection: CdpConnection, page: str, url: str, text: str | None) -> tuple[int, bool]:
    """Return the status of the document, 0 if it is not known, and whether the page shows what it should."""
    try:
        answer = await connection.send("Runtime.evaluate", _LOOK, page)
    except CdpError:
        if connection.ended.is_set():
            raise
        return 0, False  # it is between two documents
    state, href, shown, status = answer["result"].get("value") or ("", "", "", 0)
    is_there = _place(href) == _place(url) if text is None else text.casefold() in shown.casefold()
    return status, is_there and state == "complete"


def _place(url: str) -> tuple[str | None, str]:
    """Return origin and path as browsers write them: `https://shop.example` becomes `https://shop.example/`."""
    return origin_of(url), urlsplit(url).path or "/"
