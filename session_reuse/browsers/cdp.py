"""Any Chromium with a DevTools address, for agents of any kind and language: restored, followed, captured.

    async with reusable_session("shop.example/alice") as session:
        async with open_chromium(session) as chromium:
            ...  # give chromium.cdp_url to the agent

With a session of `session_reuse.blocking`, write `with` in place of `async with`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack
from urllib.parse import urlsplit

from session_reuse._browser.drivers.connection import CdpConnection, CdpError
from session_reuse._browser.drivers.thread import LoopThread, open_websocket
from session_reuse._browser.options import EngineOptions, Settings
from session_reuse._problem import ProblemKind
from session_reuse._state.storage_state import is_empty
from session_reuse.browsers._attachment import Attachment
from session_reuse.browsers._chromium_process import START_LIMIT, ChromiumProcess
from session_reuse.browsers._devtools_address import Address
from session_reuse.browsers.chromium import confinement_arguments
from session_reuse.errors import AdapterError, LifecycleError, MissingExtraError
from session_reuse.outcome import Outcome

try:
    import websockets  # noqa: F401  (used at the first connection)
except ImportError:
    raise MissingExtraError("cdp", "session_reuse.browsers.cdp") from None

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from session_reuse._browser.drivers.connection import Transport
    from session_reuse._browser_session import BrowserSession

__all__ = ["BoundChromium", "Chromium", "attach_cdp", "open_chromium", "page_shows"]

T = TypeVar("T")

EXIT_LIMIT: Final = 15.0
"""Seconds that the last capture and the end of the browser may take."""
VERIFY_LIMIT: Final = 30.0

_logger = logging.getLogger("session_reuse.browsers")
_background: set[asyncio.Task[Any]] = set()
"""Tasks that outlive a cancelled exit: the loop itself keeps no strong reference to them."""


@dataclass(frozen=True, slots=True)
class Chromium:
    """A browser with a session in it.

    Attributes:
        cdp_url: its DevTools address for clients: `http://127.0.0.1:PORT`, or the websocket where there is no other.
        websocket_url: the websocket of the browser.
        process: the browser, if it was started here.
    """

    cdp_url: str
    websocket_url: str
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
    verify: Callable[[Chromium], Any] | None = None,
    **options: Unpack[EngineOptions],
) -> BoundChromium:
    """Start a Chromium with the session's state in a profile of its own; at the end it is captured, ended and removed.

    With `allowed_domains` of the session, the browser reaches these hosts only.
    Its port is a free one on loopback. Each program of this machine that finds the port can use the session.

    Args:
        session: whose state is restored, and which gets what was captured.
        executable: a path or a name on PATH; looked for if not given.
        arguments: more flags for Chromium.
        headless: None for headless where there is no display.
        verify: called with the browser when a state was restored; when it returns False or raises, the agent gets a new
            browser without it, and `session.outcome` is `unverified`. See `page_shows`.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients.

    Raises:
        AdapterError: there is no Chromium, or it does not start.
    """
    # After the caller's flags: of a flag that is given twice, Chromium takes the last.
    flags = [*arguments, *confinement_arguments(session.allowed_domains)]
    return bind_chromium(session, lambda: ChromiumProcess(executable, flags, headless=headless), verify, **options)


def bind_chromium(
    session: BrowserSession,
    launch: Callable[[], ChromiumProcess],
    verify: Callable[[Chromium], Any] | None = None,
    **options: Unpack[EngineOptions],
) -> BoundChromium:
    """Do what `open_chromium` does, with a browser that `launch` returns; called again when a check has refused the first."""
    return BoundChromium(session, Settings(**options), launch=launch, verify=verify)


def attach_cdp(
    session: BrowserSession,
    address: str | int,
    *,
    headers: Mapping[str, str] | None = None,
    target_id: str | None = None,
    **options: Unpack[EngineOptions],
) -> BoundChromium:
    """Bring the session's state into a Chromium that runs; at the end it is captured and left as it is.

    Nothing that the browser holds is removed; an origin that is open in a tab is filled only where its storage is empty. New
    tabs wait for a moment until they have the session. With `target_id` they do not, because the browser is shared with others:
    a document that is faster than the restore may not find its storage.

    Args:
        session: whose state is restored, and which gets what was captured.
        address: a port of this machine, `host:port`, an `http(s)://` address, or the browser's own websocket; with path,
            query and token where a service wants them.
        headers: what a service wants to see.
        target_id: a tab whose context is used; the browser's default context if not given. Others are left alone.
        options: those of `session_reuse.browsers.playwright.open_context` that are for all clients.

    Raises:
        ConfigurationError: the address is none.
        AdapterError: no browser answers there, or one that cannot be used.
    """
    return BoundChromium(session, Settings(**options), address=Address.of(address, headers), target_id=target_id)


class BoundChromium:
    """A Chromium bound to a session, for `async with`, and for `with` with a blocking session."""

    def __init__(
        self,
        session: BrowserSession,
        settings: Settings,
        *,
        launch: Callable[[], ChromiumProcess] | None = None,
        address: Address | None = None,
        target_id: str | None = None,
        verify: Callable[[Chromium], Any] | None = None,
    ) -> None:
        self._session = session
        self._settings = settings
        self._launch = launch
        self._address = address
        self._target_id = target_id
        self._verify = verify
        self._process: ChromiumProcess | None = None
        self._attachment: Attachment | None = None
        self._thread: LoopThread | None = None
        self._unbind: Callable[[], None] | None = None
        self._was_entered = False

    async def __aenter__(self) -> Chromium:
        """Restore the state, and return the browser."""
        self._begin(is_blocking=False)
        try:
            chromium = await self._open()
            if self._must_verify and not await self._verified(chromium):
                await self._start_over()
                chromium = await self._open()
        except BaseException:
            await _finished(self._close())
            raise
        self._unbind = self._session.bind_capture(self._entered.capture)
        return chromium

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Capture, and end a browser that was started here. When this is cancelled, the session has what was seen so far."""
        self._entered.keep_last_seen()
        await _finished(self._finish())

    def __enter__(self) -> Chromium:
        """Restore the state, and return the browser."""
        self._begin(is_blocking=True)
        self._thread = LoopThread()
        try:
            chromium = self._run(self._open())
            if self._must_verify and not self._run(self._verified(chromium)):
                self._run(self._start_over())
                chromium = self._run(self._open())
        except BaseException:
            self._end_thread(self._close())
            raise
        self._unbind = self._session.bind_capture(lambda: self._run(self._entered.capture()))
        return chromium

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Capture, and end a browser that was started here."""
        self._entered.keep_last_seen()
        self._end_thread(self._finish())

    def _begin(self, *, is_blocking: bool) -> None:
        self._session.require_open()
        if self._was_entered:
            raise LifecycleError(
                "a browser of open_chromium or attach_cdp is entered once: make a new one for each `with`"
            )
        if is_blocking is inspect.iscoroutinefunction(self._session.checkpoint):
            right, kind = ("async with", "asynchronous") if is_blocking else ("with", "blocking")
            raise LifecycleError(f"write `{right}` here: the session is {kind}")
        self._was_entered = True

    async def _open(self) -> Chromium:
        if self._address is not None:
            return await self._attach(self._address)
        assert self._launch is not None  # noqa: S101  (one of the two is given)
        process = self._process = self._launch()
        websocket = await process.websocket()

        async def connect() -> tuple[str, Transport]:
            return websocket, await open_websocket(websocket)

        attachment = self._attachment = Attachment(
            self._session, self._settings, connect=connect, is_alive=lambda: process.is_alive, is_own=True
        )
        try:
            await attachment.start()
        except Exception as error:  # noqa: BLE001  (whatever it is, the agent starts, and the session says so)
            reason = str(error) or type(error).__name__
            self._session.report(ProblemKind.RESTORE_FAILED, "the browser", f"no connection of our own: {reason}")
            _logger.warning("no connection of our own to the browser: %s", reason)
        return Chromium(f"http://{urlsplit(websocket).netloc}", websocket, process.process)

    async def _attach(self, address: Address) -> Chromium:
        attachment = self._attachment = Attachment(
            self._session,
            self._settings,
            connect=address.connect,
            accept=address.accept,
            is_alive=lambda: True,
            is_own=False,
            of_target=self._target_id,
        )
        try:
            await attachment.start()
        except (CdpError, TimeoutError) as error:
            raise AdapterError(f"the browser at {address} cannot be used: {error or 'it does not answer'}") from None
        return Chromium(address.for_clients, attachment.websocket, None)

    @property
    def _must_verify(self) -> bool:
        restored = self._session.reused or not is_empty(self._session.storage_state)
        return self._verify is not None and restored

    async def _verified(self, chromium: Chromium) -> bool:
        assert self._verify is not None  # noqa: S101  (asked for with `_must_verify`)
        try:
            async with asyncio.timeout(VERIFY_LIMIT):
                if self._thread is not None and not inspect.iscoroutinefunction(self._verify):
                    answer = await asyncio.to_thread(self._verify, chromium)
                else:
                    answer = self._verify(chromium)
                is_good = bool(await answer if inspect.isawaitable(answer) else answer)
        except Exception as error:  # noqa: BLE001  (whatever the user's check raises means: not verified)
            self._session.report(ProblemKind.VERIFY_FAILED, type(error).__name__)
            return False
        if is_good:
            await self._entered.rearm_session_storage()
        return is_good

    async def _start_over(self) -> None:
        """Give up the browser whose state was not accepted."""
        await self._close()
        self._session.start_fresh(Outcome.UNVERIFIED)

    @property
    def _entered(self) -> Attachment:
        if self._attachment is None:
            raise LifecycleError("a browser of open_chromium or attach_cdp is used in `async with` or `with`")
        return self._attachment

    async def _finish(self) -> None:
        try:
            await self._entered.finish()
        finally:
            if self._unbind is not None:
                self._unbind()
            await self._close()

    async def _close(self) -> None:
        attachment, self._attachment = self._attachment, None
        process, self._process = self._process, None
        try:
            if attachment is not None:
                await attachment.release()
        finally:
            if process is not None:
                await asyncio.to_thread(process.stop)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._thread is None:
            work.close()
            raise CdpError("the browser was released")
        return self._thread.run(work, VERIFY_LIMIT + START_LIMIT)

    def _end_thread(self, work: Coroutine[Any, Any, Any]) -> None:
        thread, self._thread = self._thread, None
        process = self._process
        assert thread is not None  # noqa: S101  (made at the beginning)
        try:
            thread.run(work, EXIT_LIMIT)
        except TimeoutError:
            if process is not None:
                process.stop()
        finally:
            thread.stop()


async def _finished(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that goes on in the background when we are cancelled."""
    task = asyncio.create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    await asyncio.shield(task)


def page_shows(
    url: str, text: str | None = None, *, timeout: float = 10.0
) -> Callable[[Chromium], Coroutine[Any, Any, bool]]:
    """Return a check for `verify`: the browser stays at a page and it shows a text.

    Args:
        url: the page, one that only those who are logged in see.
        text: what is to be visible; case does not matter. None: being there and not sent elsewhere is enough.
        timeout: seconds to wait for it.

    Raises:
        AdapterError: the site cannot be reached; when the check is used.
    """

    async def check(chromium: Chromium) -> bool:
        connection = CdpConnection(await open_websocket(chromium.websocket_url), lambda *_: None)
        try:
            async with asyncio.timeout(timeout):
                blank = {"url": "about:blank", "background": True}
                target = (await connection.send("Target.createTarget", blank))["targetId"]
                try:
                    to = {"targetId": target, "flatten": True}
                    page = (await connection.send("Target.attachToTarget", to))["sessionId"]
                    answer = await connection.send(
                        "Page.navigate", {"url": url}, page
                    )  # only now: the tab has our scripts
                    if answer.get("errorText"):  # the site is away, which proves nothing about the login
                        raise AdapterError(f"{urlsplit(url).netloc} cannot be reached: {answer['errorText']}")
                    while not await _shows(connection, page, url, text):
                        await asyncio.sleep(0.1)
                finally:
                    await connection.send("Target.closeTarget", {"targetId": target})
        except TimeoutError:
            return False
        finally:
            await connection.close()
        return True

    return check


async def _shows(connection: CdpConnection, page: str, url: str, text: str | None) -> bool:
    expression = "[document.readyState, location.href, document.body ? document.body.innerText : '']"
    answer = await connection.send("Runtime.evaluate", {"expression": expression, "returnByValue": True}, page)
    state, href, shown = answer["result"].get("value") or ("", "", "")
    if state != "complete":
        return False
    return urlsplit(href)[:3] == urlsplit(url)[:3] if text is None else text.casefold() in shown.casefold()
