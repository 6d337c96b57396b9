"""One Playwright context bound to one session: what both APIs do, in order. It closes only what it has opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from session_reuse._browser.engine import BrowserEngine
from session_reuse._browser.environment import context_options, recorded
from session_reuse._browser.origins import origin_of
from session_reuse._problem import ProblemKind
from session_reuse._state.storage_state import StorageState, is_empty

if TYPE_CHECKING:
    from session_reuse._browser.drivers.playwright import Browser, BrowserContext, Page, PlaywrightDriver
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.options import Settings
    from session_reuse._browser_session import BrowserSession


class PlaywrightBinding:
    """A context with the session's state in it, followed."""

    def __init__(
        self, session: BrowserSession, driver: PlaywrightDriver, settings: Settings, *, is_new_profile: bool
    ) -> None:
        self.session = session
        self.driver = driver
        self.settings = settings
        self.engine = driver.engine = BrowserEngine(session, driver, settings, is_new_profile=is_new_profile)

    @property
    def context(self) -> Any:
        """The context, or None before there is one."""
        return self.driver.context

    def open(self, browser: Browser | None, given: dict[str, Any]) -> Flow[None]:
        """Make a context with the session's state."""
        options = dict(given)
        if self.settings.restore_environment:
            options = {**context_options(recorded(self.session.storage_state), given), **given}
        self.driver.context = yield from self._new_context(browser, options)
        yield from self.engine.restorer.add_cookies()
        if options.get("java_script_enabled", True):  # else no init script runs
            yield from self.engine.restorer.fill_early()
            yield from self.engine.restorer.register()
        yield from self.driver.follow()

    def _new_context(self, browser: Any, options: dict[str, Any]) -> Flow[Any]:
        native = self._native()
        if native:
            try:
                return (yield browser.new_context(**options, storage_state=native))
            except self.driver.errors:
                self.session.report(ProblemKind.RESTORE_FAILED, "OPFS or credentials", "the browser refused them")
        return (yield browser.new_context(**options))

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

    def attach(self, context: BrowserContext) -> Flow[None]:
        """Restore into a context that others may use too."""
        self.driver.context = context
        yield from self.engine.restorer.add_cookies()
        yield from self.driver.follow()
        yield from self.engine.restorer.fill_open(self.engine.follower.open_frames(), self.engine.follower.evaluate)
        yield from self.engine.restorer.fill_early()
        yield from self.engine.restorer.register()

    @property
    def must_verify(self) -> bool:
        """True when something was restored and the caller has a check."""
        restored = self.session.reused or not is_empty(self.session.storage_state)
        return self.settings.verify is not None and restored

    def close_verified(self, page: Page) -> Flow[None]:
        """Close the page that was used to check. Its sessionStorage goes to the next tab."""
        yield from self.engine.captured()
        again = self.engine.mirror.session_storages()
        yield self.driver.best_effort(page.close())
        yield from self.engine.restorer.rearm_session_storage(again)

    def captured(self, *, is_final: bool = False) -> Flow[StorageState]:
        """Return the current state, for a save."""
        state = yield from self.engine.captured(is_final=is_final)
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

    def release(self) -> Flow[None]:
        """Release a context that lives on."""
        self.driver.unfollow()
        yield from self.engine.restorer.release()
        yield from self.driver.detach()
