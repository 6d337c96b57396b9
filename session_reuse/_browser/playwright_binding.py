"""One Playwright context bound to one session: what both APIs do, as flows. It closes only what it has opened."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from session_reuse._browser import limits
from session_reuse._browser.claims import claim
from session_reuse._browser.drivers.call_hooks import before
from session_reuse._browser.engine import BrowserEngine
from session_reuse._browser.environment import context_options, recorded
from session_reuse._browser.origins import origin_of
from session_reuse._browser_session import check_raised, report_not_opened, require_open
from session_reuse._misuse import type_of
from session_reuse._problem import ProblemKind
from session_reuse._state.storage_state import StorageState, is_empty
from session_reuse.errors import AdapterError, ConfigurationError, LifecycleError
from session_reuse.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from session_reuse._browser.drivers.playwright import Browser, BrowserContext, PlaywrightDriver
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.options import Settings
    from session_reuse._browser_session import BrowserSession


class PlaywrightBinding(ABC):
    """A context with the session's state in it, followed: a new one of a browser, or one that exists and that others may use too.

    Attributes:
        driver: of the context that was opened last.
        undo: what removes our hooks on the agent's objects.
    """

    def __init__(
        self,
        session: BrowserSession,
        settings: Settings,
        *,
        browser: Browser | None = None,
        given: dict[str, Any] | None = None,
        context: BrowserContext | None = None,
    ) -> None:
        self.session = session
        self.settings = settings
        self.driver: PlaywrightDriver
        self.undo: list[Callable[[], None]] = []
        self._browser: Any = browser
        self._given = given or {}
        self._attached = context
        self._is_entered = False
        self._given_state: StorageState
        self._end_claim: Callable[[], None] = lambda: None

    @property
    def engine(self) -> BrowserEngine:
        """The engine of the context that was opened last."""
        return self.driver.engine

    @property
    def context(self) -> Any:
        """The context that was opened last, or None before there is one."""
        return self.driver.context

    def enter(self) -> Flow[Any]:
        """Restore the state, follow the context and return it. If the caller's check refuses it, a clean one takes its place."""
        self._require_usable()
        self._given_state = self.session.storage_state
        yield self._open()
        is_restored = self.session.reused or not is_empty(self.session.storage_state)
        if self.settings.verify is not None and is_restored and not (yield from self._is_verified()):
            self.session.start_fresh(Outcome.UNVERIFIED)
            yield from self.release()
            yield self._open()
        self.undo.append(self.session.bind_capture(self._capture))
        for closed in filter(None, (self.context, self.context.browser)):
            self.undo.append(before(closed, "close", self._finalize))
        return self.context

    @abstractmethod
    def _open(self) -> Awaitable[None] | None:
        """Run `open`, and undo it when it fails, as a step."""

    @abstractmethod
    def _run(self, flow: Flow[object], limit: float | None) -> Any:
        """Run a flow, an asynchronous one within `limit` seconds if there is one, as a step."""

    @abstractmethod
    def _capture(self) -> Awaitable[StorageState] | StorageState:
        """Return the current state, for a save, as a step."""

    @abstractmethod
    def _finalize(self, **_: object) -> Awaitable[None] | None:
        """Capture for the last time, before the agent closes the context or its browser, as a step."""

    def _require_usable(self) -> None:
        """Raise an error at a second use, for a session that was left, and for arguments of a wrong type."""
        if self._is_entered:
            raise LifecycleError("a bound context can be entered once; open another")
        require_open(self.session)
        given, needed, wanted = (
            (self._browser, "new_context", "open_context takes a browser, such as `await playwright.chromium.launch()`")
            if self._attached is None
            else (self._attached, "add_cookies", "attach_context takes a context of a browser")
        )
        if not hasattr(given, needed):
            raise ConfigurationError(f"{wanted}, not {type_of(given)}")
        self._is_entered = True

    def open(self, driver: PlaywrightDriver) -> Flow[None]:
        """Restore the state, into a new context if there is none, and follow the context."""
        try:
            self.driver, is_new = driver, self._attached is None
            driver.engine = BrowserEngine(self.session, driver, self.settings, is_new_profile=is_new)
            options = dict(self._given)
            if self.settings.restore_environment:
                options = {**context_options(recorded(self.session.storage_state), options), **options}
            driver.context = (yield from self._new_context(options)) if is_new else self._attached
            self._end_claim = claim(driver.context, self.session)
            yield from driver.engine.start(has_scripts=options.get("java_script_enabled", True))
        except BaseException:  # nothing was seen: without this, the exit would store an empty session
            report_not_opened(self.session, self._given_state, "no context was opened")
            raise

    def _new_context(self, options: dict[str, Any]) -> Flow[Any]:
        native = self._native()
        if native:
            try:
                return (yield self._browser.new_context(**options, storage_state=native))
            except self.driver.errors:
                self.session.report(ProblemKind.RESTORE_FAILED, "OPFS or credentials", "the browser refused them")
        return (yield self._browser.new_context(**options))

    def _native(self) -> dict[str, Any] | None:
        """Return what only Playwright itself can restore."""
        state = self.session.storage_state
        native: dict[str, Any] = {"cookies": [], "origins": []}
        if self.settings.credentials and state.get("credentials"):
            native["credentials"] = state["credentials"]
        if self.settings.opfs:
            with_files = [entry for entry in state["origins"] if entry.get("opfs")]
            native["origins"] = [{"origin": e["origin"], "localStorage": [], "opfs": e["opfs"]} for e in with_files]
        return native if len(native) > 2 or native["origins"] else None

    def _is_verified(self) -> Flow[bool]:
        """Return whether the caller's check accepts the context."""
        try:
            is_good: bool = yield self._run(self._check(), limits.VERIFY)
        except Exception as error:  # noqa: BLE001 - whatever the user's check raises means: not verified
            check_raised(self.session, error)
            return False
        except BaseException:
            yield self.driver.best_effort(lambda: self._run(self.release(), None))
            raise
        return is_good

    def _check(self) -> Flow[bool]:
        """Call the caller's check, and return its answer. The sessionStorage of its page goes to the next tab."""
        page = yield self.context.new_page()
        try:
            answer = self.settings.verify(page) if self.settings.verify else True
            if not ((yield answer) if inspect.isawaitable(answer) else answer):
                return False
        except AdapterError as error:
            check_raised(self.session, error)  # it could not tell
        yield from self._read()
        yield self.driver.best_effort(page.close)
        yield from self.engine.rearm_session_storage()
        return True

    def captured(self, *, is_final: bool = False) -> Flow[StorageState]:
        """Return the current state, for a save.

        Raises:
            AdapterError: nothing was ever read.
        """
        state = yield from self._read(is_final=is_final)
        extras = {name: True for name in ("opfs", "credentials") if getattr(self.settings, name)}
        if not extras or self.driver.is_gone:
            return state
        try:
            found = yield self.context.storage_state(**extras)
        except self.driver.errors:
            self.session.report(ProblemKind.CAPTURE_LIMITED, "OPFS or credentials", "they could not be read")
            return state
        mirror = self.engine.mirror
        if self.settings.opfs:
            files = {entry["origin"]: entry.get("opfs", []) for entry in found["origins"]}
            mirror.files_read({origin_of(origin) or origin: listed for origin, listed in files.items()})
        if self.settings.credentials:
            mirror.credentials_read(found.get("credentials", []))
        return self.engine.fitted(mirror.state())

    def _read(self, *, is_final: bool = False) -> Flow[StorageState]:
        if self.driver.has_protocol:
            return (yield from self.engine.captured(is_final=is_final))
        return self.engine.captured_from(*(yield from self.driver.read_without_protocol()))

    def report_not_captured(self, error: Exception) -> None:
        """Report that the last capture has failed. The state is the one last seen."""
        if isinstance(error, AdapterError):
            self.session.capture_failed(str(error))
            return
        self.engine.keep_last_seen()
        reason = "it did not answer in time; the state is the one last seen"
        self.session.report(ProblemKind.CAPTURE_LIMITED, "the browser", reason)

    def release(self) -> Flow[None]:
        """Close a context of our own, and remove our scripts and hooks from another."""
        self._end_claim()
        if self._attached is None:
            yield self.driver.close_context()
            return
        self.driver.unfollow()
        yield from self.engine.restorer.release()
        yield from self.driver.detach()
