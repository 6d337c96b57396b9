"""Brings a state into a browser: cookies, init scripts, open pages, and content too large for a script."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from session_reuse._browser import limits
from session_reuse._browser.blank_page import Evaluate, visit
from session_reuse._browser.cookies import Cookie, clean_cookies, described
from session_reuse._browser.plan import OriginPayload, RestoreScripts, fill_script, part_of, payloads_of, plan_restore
from session_reuse._browser.storage.progress import WEB_STORAGES
from session_reuse._problem import ProblemKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from session_reuse._browser.driver import BrowserDriver
    from session_reuse._browser.flow import Flow
    from session_reuse._browser.options import Settings
    from session_reuse._browser.origins import OriginEntry
    from session_reuse._browser.storage.mirror import StorageMirror
    from session_reuse._browser.tabs import Frame
    from session_reuse._browser_session import BrowserSession


class Restorer:
    """Restores one state over one driver."""

    def __init__(
        self,
        session: BrowserSession,
        mirror: StorageMirror,
        driver: BrowserDriver,
        settings: Settings,
        *,
        is_new_profile: bool,
    ) -> None:
        state = session.storage_state
        self._session = session
        self._mirror = mirror
        self._driver = driver
        self._overwrites = not is_new_profile
        self._cookies, problems = clean_cookies(state["cookies"], time.time())
        entries = cast("list[OriginEntry]", state["origins"])
        self._payloads, unusable = payloads_of(entries, indexed_db=settings.indexed_db)
        if not settings.indexed_db:  # nothing will confirm databases that are not restored
            for payload in self._payloads:
                mirror.progress(payload.origin).confirm({"databases"})
        preloaded, self._early = plan_restore(self._payloads, settings.preload_limit)
        self.scripts = RestoreScripts(preloaded, overwrites=self._overwrites)
        self._data: Any = None
        self._code: Any = None
        self._is_updating = False
        for problem in problems:
            session.report(problem.kind, problem.where, problem.reason)
        for origin in unusable:
            session.report(ProblemKind.ORIGIN_UNUSABLE, origin[:200])

    def add_cookies(self, cookies: list[Cookie] | None = None) -> Flow[None]:
        """Add the cookies, those that the browser takes."""
        cookies = self._cookies if cookies is None else cookies
        if not cookies:
            return
        try:
            yield self._driver.add_cookies(cookies)
        except self._driver.errors:
            if len(cookies) == 1:
                self._session.report(
                    ProblemKind.COOKIE_REJECTED, described(cookies[0]), "the browser or its client refused it"
                )
                return
            # The browser refuses all cookies for one, so the halves find it.
            half = len(cookies) // 2
            yield from self.add_cookies(cookies[:half])
            yield from self.add_cookies(cookies[half:])

    def restore_early(self) -> Flow[None]:
        """Restore what has to be there before the agent starts, and register the init scripts for the rest."""
        yield from self._fill_early()
        yield from self.register()

    def _fill_early(self) -> Flow[None]:
        """Fill the origins that are too large for the script, on a page that the agent does not see."""
        if not self._early:
            return
        early, self._early = {payload.origin: payload for payload in self._early}, []

        def fill(origin: str, evaluate: Evaluate) -> Flow[None]:
            if (yield from self._fill(early[origin], evaluate, is_left=True)):
                self.scripts.started.add(origin)
                self._session.report(
                    ProblemKind.RESTORED_EARLY, origin, "it is too large for the init script: see preload_limit"
                )

        failed = yield from visit(self._driver, list(early), fill, limits.FILL)
        for origin in failed:
            self._session.report(ProblemKind.RESTORE_FAILED, origin, "it could not be filled before the start")

    def _fill(self, payload: OriginPayload, evaluate: Evaluate, *, is_left: bool = False) -> Flow[bool]:
        """Fill the storage of an open page if it is empty. Return whether it was."""
        outcome = yield from evaluate(fill_script(payload, is_left=is_left))
        if outcome["isOpen"]:
            self._session.report(
                ProblemKind.ORIGIN_OPEN, payload.origin, "it is not empty; its storage was left as it is"
            )
            return False
        for each in outcome["failed"]:
            self._session.report(ProblemKind.RESTORE_FAILED, payload.origin, each)
        failed = {each.partition(":")[0] for each in outcome["failed"]}
        progress = self._mirror.progress(payload.origin)
        progress.confirm(payload.sections & WEB_STORAGES - failed)
        for name in [str(each.get("name")) for each in payload.databases]:
            if not any(each.startswith(f"databases: {name}: ") for each in outcome["failed"]):
                progress.saw("databases", [name])
        return True

    def fill_open(self, frames: dict[str, Frame], evaluate: Callable[[Frame, str], Flow[Any]]) -> Flow[None]:
        """Fill origins that are open in a page where their storage is empty, and leave them alone otherwise."""
        self._early = [payload for payload in self._early if payload.origin not in frames]
        for payload in [payload for payload in self._payloads if payload.origin in frames]:
            self.scripts.finish(payload.origin, payload.parts)
            self.scripts.started.discard(payload.origin)
            try:
                yield from self._fill(payload, partial(evaluate, frames[payload.origin]))
            except self._driver.errors:
                self._session.report(ProblemKind.RESTORE_FAILED, payload.origin, "it is open, and could not be filled")

    def fill(self, origin: str, evaluate: Evaluate) -> Flow[bool]:
        """Fill an open document that has started without the scripts, if its storage is empty. Return whether it was."""
        payload = next((each for each in self._payloads if each.origin == origin), None)
        return payload is not None and (yield from self._fill(payload, evaluate))

    def register(self) -> Flow[None]:
        """Register the init scripts."""
        if not self.scripts.pending:
            return
        self._is_updating = True
        try:
            self.scripts.has_changed = False
            # One after the other: the code has to come after the data, whatever has to be tried again.
            self._data = yield self._driver.add_script(self.scripts.data_source)
            self._code = yield self._driver.add_script(self.scripts.code_source())
        finally:
            self._is_updating = False
        self._update_later()

    @property
    def is_registered(self) -> bool:
        """Whether new documents run the init scripts."""
        return self._data is not None

    def started(self, origin: str) -> None:
        """Note that a document of an origin is there. It is filled when its receipt arrives: its process may be busy."""
        if self.scripts.sections(origin):
            self.scripts.started.add(origin)

    def delivered(self, origin: str) -> None:
        """Note that a document of an origin has run the scripts."""
        self.scripts.delivered(origin)
        self._update_later()

    def take_receipt(self, origin: str, receipt: str) -> None:
        """Apply what a document reports of `localStorage` or of `database NAME`: that it is `filled`, `failed` or `skipped`."""
        outcome, _, part = receipt.partition(" ")
        if part == "localStorage":
            if outcome == "filled":
                self._mirror.progress(origin).confirm({part})
            self.delivered(origin)
            return
        if outcome == "filled":
            self._mirror.database_filled(origin, part.removeprefix(part_of("")))
        self.scripts.finish(origin, {part})
        self._update_later()

    def permission(self, origin: str, part: str) -> str:
        """Return the name of the event that tells a document whether to fill a database: a page may have deleted a filled one."""
        answer = "fill" if part in self.scripts.sections(origin) else "leave"
        return f"{self.scripts.name} {answer} {part}"

    def seen(self, origin: str) -> None:
        """Fill the databases of an origin that were seen no more, and remove the scripts when nothing is left."""
        unseen = {part_of(name) for name in self._mirror.progress(origin).unconfirmed("databases")}
        self.scripts.finish(origin, self.scripts.sections(origin) - WEB_STORAGES - unseen)
        self._update_later()

    def is_changing(self, origin: str) -> bool:
        """Return whether a script is still registered that would fill an origin once more."""
        is_old = self._data is not None and self.scripts.has_changed
        return origin in self.scripts.started and (self._is_updating or is_old)

    def rearm_session_storage(self, contents: dict[str, dict[str, str]]) -> Flow[None]:
        """Restore the sessionStorage of some origins once more, for the next tab: we have closed the tab that had it."""
        if not contents:
            return
        again = [OriginPayload(o, [], [[k, v] for k, v in items.items()], []) for o, items in contents.items()]
        rest = [replace(each, session=[]) if each.origin in contents else each for each in self.scripts.payloads]
        used = {"sessionStorage"}
        done = {o: parts - used if o in contents else parts for o, parts in self.scripts.done.items()}
        started = self.scripts.started | contents.keys()
        yield from self.release()
        self.scripts = RestoreScripts([*rest, *again], overwrites=self._overwrites, done=done, started=started)
        yield from self.register()

    def _update_later(self) -> None:
        if self._is_out_of_date and not self._is_updating:
            self._driver.spawn(self._update())

    @property
    def _is_out_of_date(self) -> bool:
        return self._data is not None and (self._is_needed_no_more or self.scripts.has_changed)

    @property
    def _is_needed_no_more(self) -> bool:
        unconfirmed = (origin for origin in self.scripts.started if self._mirror.progress(origin).is_unconfirmed)
        return not self.scripts.pending and not any(unconfirmed)

    def _update(self) -> Flow[None]:
        """Replace the code script by one for the current plan. One at a time: each takes a few milliseconds."""
        if self._is_updating:
            return
        self._is_updating = True
        try:
            while self._is_out_of_date:
                self.scripts.has_changed = False
                if self._is_needed_no_more:
                    yield from self._remove_all()
                    return
                # A tab that is on its way to a slow site keeps both waiting, and no other tab should wait for it.
                old, source = self._code, self.scripts.code_source()
                self._code, _ = yield [self._driver.add_script(source), self._driver.remove_script(old)]
        except self._driver.errors:
            return  # the browser is gone
        finally:
            self._is_updating = False

    def _remove_all(self) -> Flow[None]:
        # The data first: without the code, a page could see what is stored of its origin.
        data, code, self._data, self._code = self._data, self._code, None, None
        for script in (data, code):
            if script is not None:
                yield self._driver.remove_script(script)

    def disconnected(self) -> None:
        """Note that the scripts have gone with the connection to the browser."""
        self._data = self._code = None

    def release(self) -> Flow[None]:
        """Remove our scripts from a browser that lives on."""
        with suppress(*self._driver.errors):  # the browser is gone
            yield from self._remove_all()

    def report_unconfirmed(self, visited: Collection[str]) -> None:
        """Report the origins whose documents were filled, and in which the stored content was never seen."""
        known = (ProblemKind.ORIGIN_OPEN, ProblemKind.RESTORE_FAILED)
        reported = {each.where for each in self._session.problems if each.kind in known}
        for origin in sorted(set(visited) & self.scripts.started - reported):
            if self._mirror.progress(origin).is_unconfirmed:
                self._session.report(
                    ProblemKind.RESTORE_FAILED, origin, "what is stored was not seen in the browser, and is kept"
                )
