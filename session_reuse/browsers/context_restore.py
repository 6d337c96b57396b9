"""Restoring a state into a Playwright context, written once for both APIs. Must never remove what the context holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from session_reuse.browsers import indexeddb, javascript
from session_reuse.browsers.context_gate import ContextGate, open_gate
from session_reuse.browsers.cookies import Cookie, clean_cookies, described
from session_reuse.browsers.hidden_page import PageClient, routed_page, visit_origins
from session_reuse.browsers.lazy_restore import (
    HIDDEN_SECTIONS,
    Into,
    LazyScripts,
    Payload,
    RestorePlan,
    fill_script,
    payloads_of,
    plan_on_demand,
    plan_restore,
)
from session_reuse.browsers.origins import origin_of, shares_storage
from session_reuse.browsers.tab import Tab

if TYPE_CHECKING:
    from session_reuse.browsers.live_mirror import LiveMirror
    from session_reuse.browsers.steps import Steps
    from session_reuse.session import BrowserSession


class ContextRestore:
    """What is to be restored into one context, and what of it is still to come.

    Args:
        session: with the state to restore; what cannot be restored is reported to it.
        mirror: told which origins are known to have got all.
        client: the face in use.
        now: unix seconds.
        fresh: whether the context is made for this session.
        indexed_db: whether databases are restored.
    """

    def __init__(
        self,
        session: BrowserSession,
        mirror: LiveMirror,
        client: PageClient,
        *,
        now: float,
        fresh: bool,
        indexed_db: bool,
    ) -> None:
        state = session.storage_state
        self._session = session
        self._mirror = mirror
        self._client = client
        self._state = state
        self.cookies, problems = clean_cookies(state["cookies"], now)
        self._fresh = fresh
        self._payloads, unusable = payloads_of(state["origins"], indexed_db=indexed_db)
        self._gate: ContextGate | None = None
        self._plan: RestorePlan
        self.scripts: LazyScripts
        self._arrange()
        self._registered: dict[int, Any] = {}
        self._is_released = False
        for problem in problems:
            session.report(problem.kind, problem.detail)
        for origin in unusable:
            session.report("origin_unusable", origin[:200])

    def new_context(self, browser: Any, options: dict[str, Any], *, opfs: bool, credentials: bool) -> Steps[Any]:
        """Return a new context with the cookies, and with what only Playwright itself can restore."""
        yield from self._open_gate(browser)
        try:
            context = yield from self._new_context(browser, options, opfs=opfs, credentials=credentials)
        except BaseException:
            yield from self.close_gate()
            raise
        if self._gate:
            base_url = str(options.get("base_url") or "")
            self._gate.follow(context, base_url, lambda payload: self._ship(context, payload))
        return context

    def _open_gate(self, browser: Any) -> Steps[None]:
        """Where documents can be held, leave what is too much to travel, or for a script, until it is asked for."""
        plan = plan_on_demand(self._payloads, self._client.shipped_bytes)
        if plan is None:
            return
        self._gate = yield from open_gate(
            browser, self._client, self._session.report, self._mirror.arrived, plan.hidden
        )
        if self._gate:
            self._plan = plan._replace(hidden=[])
            self.scripts = LazyScripts(plan.lazy, fresh=self._fresh)

    def prepare(self, context: Any) -> Steps[None]:
        """Leave what can be left in a context that exists already, through a page of it; all else is filled at once."""
        if not self._plan.hidden or not context.pages:
            return
        try:
            cdp = yield context.new_cdp_session(context.pages[0])
            if context.browser is not None:
                yield from self._open_gate(context.browser)
            if self._gate:
                yield from self._gate.learn(cdp)
            else:
                yield from self._leave_databases(cdp)
            yield self._client.briefly(cdp.detach())
        except self._client.errors:
            yield from self.close_gate()
            self._gate = None
            self._arrange()

    def _leave_databases(self, cdp: Any) -> Steps[None]:
        """Leave alone the databases of origins that have some: they are newer, and to visit one takes some 70 ms."""
        large = [payload for payload in self._plan.hidden if payload.databases]
        used = yield [self._client.send(cdp, "Storage.getUsageAndQuota", {"origin": each.origin}) for each in large]
        own = {payload.origin for payload, usage in zip(large, used, strict=True) if indexeddb.is_used(usage)}
        self._payloads = [replace(each, databases=[]) if each.origin in own else each for each in self._payloads]
        self._arrange()

    def _arrange(self) -> None:
        self._plan = plan_restore(self._payloads)
        self.scripts = LazyScripts(self._plan.lazy, fresh=self._fresh)

    def close_gate(self) -> Steps[None]:
        """Hold no documents any more, of others neither; nothing is filled on demand after this."""
        if self._gate:
            yield from self._gate.close()

    def _new_context(self, browser: Any, options: dict[str, Any], *, opfs: bool, credentials: bool) -> Steps[Any]:
        native = self._native(opfs=opfs, credentials=credentials)
        try:
            return (yield browser.new_context(**options, storage_state=native))
        except self._client.errors:
            context = yield browser.new_context(**options)
        if len(native) > 2 or native["origins"]:
            self._session.report("restore_failed", "OPFS or credentials were not accepted")
        yield from self.add_cookies(context)
        return context

    def _native(self, *, opfs: bool, credentials: bool) -> dict[str, Any]:
        native: dict[str, Any] = {"cookies": self.cookies, "origins": []}
        if credentials and self._state.get("credentials"):
            native["credentials"] = self._state["credentials"]
        if opfs:
            with_files = [entry for entry in self._state["origins"] if entry.get("opfs")]
            native["origins"] = [{"origin": e["origin"], "localStorage": [], "opfs": e["opfs"]} for e in with_files]
        return native

    def add_cookies(self, context: Any) -> Steps[None]:
        """Add the cookies to a context, those that it takes."""
        yield from self._add_cookies(context, self.cookies)

    def _add_cookies(self, context: Any, cookies: list[Cookie]) -> Steps[None]:
        if not cookies:
            return
        try:
            yield context.add_cookies(cookies)
        except self._client.errors:
            if len(cookies) == 1:
                self._session.report("cookie_rejected", f"{described(cookies[0])}: the browser refused it")
                return
            half = len(cookies) // 2
            yield from self._add_cookies(context, cookies[:half])
            yield from self._add_cookies(context, cookies[half:])

    def fill_large(self, context: Any) -> Steps[None]:
        """Fill the origins that cannot be restored lazily, on a hidden page."""
        payloads = {payload.origin: payload for payload in self._plan.hidden}
        if not payloads:
            return

        def fill(page: Any, origin: str) -> Steps[None]:
            failed = yield page.evaluate(fill_script(payloads[origin]))
            for each in failed:
                self._session.report("restore_failed", f"{origin} {each}")
            if not failed:
                self._mirror.arrived(origin, HIDDEN_SECTIONS)

        page = yield from routed_page((yield context.new_page()), self._client)
        for origin in (yield from visit_origins(page, self._client, payloads, fill)):
            self._session.report("restore_failed", f"{origin} could not be filled")

    def register(self, context: Any) -> Steps[None]:
        """Register the init scripts of all origins."""
        yield from self._register(context, self.scripts.numbers)

    def _register(self, context: Any, numbers: list[int]) -> Steps[None]:
        if not context.pages:
            disposables = yield [context.add_init_script(self.scripts.source(number)) for number in numbers]
            self._registered.update(zip(numbers, disposables, strict=True))
            return
        # A tab that is on its way to a slow site takes a script when it has arrived; nobody waits for it that long.
        adding = [self._client.spawn(self._add_script(context, number)) for number in numbers]
        yield [self._client.briefly(task) for task in adding if task is not None]

    def _add_script(self, context: Any, number: int) -> Steps[None]:
        """Add an init script to all tabs; one that is closed meanwhile makes Playwright take the script out again."""
        source = self.scripts.source(number)

        def added(script: Any) -> None:
            self._registered[number] = script
            if self._is_released:
                self._client.spawn(self._take_out(context, number))

        try:
            try:
                yield self._client.to_its_end(context.add_init_script(source), added)
            except self._client.errors:
                yield self._client.to_its_end(context.add_init_script(source), added)
        except self._client.errors:
            return  # the context is gone
        if number not in self.scripts.numbers:
            yield from self._take_out(context, number)  # a document was faster

    def _ship(self, context: Any, payload: Payload) -> Steps[None]:
        """Register the script of one origin more. The agent's own scripts come before it, and what they store stays.

        Until the last tab has it, documents of the origin are held; if one comes meanwhile, the hidden page is faster.
        """
        (number,) = self.scripts.add([payload], Into.GAPS)
        yield from self._register(context, [number])
        is_there = number in self._registered
        if not (is_there and self._gate and self._gate.take(payload.origin)):
            self.scripts.drop(number)
            yield from self._take_out(context, number)

    def learn(self, cdp: Any) -> Steps[None]:
        """Learn from a page which context of the browser is ours.

        Args:
            cdp: a session with it.
        """
        if self._gate and not self._gate.knows_context:
            yield from self._gate.learn(cdp)

    def rearm_session_storage(self, context: Any, contents: dict[str, dict[str, str]]) -> Steps[None]:
        """Restore sessionStorage once more, for the next tab, because the tab that had it was closed by us.

        Args:
            context: the context.
            contents: origin -> items.
        """
        gone = contents.keys() - self.scripts.pending
        payloads = [Payload(origin, [], [[k, v] for k, v in contents[origin].items()], []) for origin in sorted(gone)]
        yield from self._register(context, self.scripts.add(payloads))

    def committed(self, context: Any, origin: str, ancestors: list[str]) -> None:
        """Note the commit of a document; its origin is not filled again."""
        if self._gate and shares_storage(origin, ancestors):
            self._gate.committed(origin)
        for number in self.scripts.committed(origin, ancestors):
            self._client.spawn(self._take_out(context, number))

    def put_back(self, context: Any, origin: str) -> Steps[None]:
        """Restore an origin in the next document after all: the last one has a storage of its own, or none."""
        yield from self._register(context, self.scripts.put_back(origin))

    def _take_out(self, context: Any, number: int) -> Steps[None]:
        disposable = self._registered.pop(number, None)
        if disposable is None:
            return
        try:
            yield self._client.take_out(disposable, len(context.pages))
        except self._client.errors:
            return  # the context is gone

    def fill_open_pages(self, context: Any) -> Steps[None]:
        """Deal with origins that are open in a page: fill their storage where it is empty, else leave it alone."""
        pages = {origin: page for page in reversed(context.pages) if (origin := origin_of(page.url))}
        is_open = {payload.origin: payload for payload in self._payloads if payload.origin in pages}
        self._payloads = [payload for payload in self._payloads if payload.origin not in is_open]
        self._arrange()
        for origin, payload in is_open.items():
            try:
                yield from self._fill_open_page(Tab(pages[origin], self._client), payload)
            except self._client.errors:
                self._session.report("restore_failed", f"{origin} is open, and could not be filled")

    def _fill_open_page(self, tab: Tab, payload: Payload) -> Steps[None]:
        origin = payload.origin
        tab.cdp = yield tab.page.context.new_cdp_session(tab.page)
        try:
            yield tab.send("DOMStorage.enable", {})
            wanted = [
                (items, is_local) for items, is_local in ((payload.local, True), (payload.session, False)) if items
            ]
            found = yield [tab.stored(origin, is_local=is_local) for _, is_local in wanted]
            if any(storage["entries"] for storage in found):
                self._session.report("origin_open", f"{origin} is open and not empty; its storage was left as it is")
                return
            for items, is_local in wanted:
                yield [tab.store(origin, key, value, is_local=is_local) for key, value in items]
            failed: list[str] = []
            if payload.databases:
                load = javascript.call("indexeddb_load", javascript.literal(payload.databases))
                failed = (yield from tab.evaluate_apart(load)) or []
            for each in failed:
                self._session.report("restore_failed", f"{origin} {each}")
            self._mirror.arrived(origin, payload.sections - {"databases"} if failed else payload.sections)
        finally:
            yield self._client.briefly(tab.cdp.detach())

    def release(self, context: Any) -> Steps[None]:
        """Take the remaining scripts out of a context that lives on, and hold none of its documents."""
        yield from self.close_gate()
        self._is_released = True  # a tab that is still on its way gives our scripts back when it has arrived
        remaining, self._registered = self._registered, {}
        try:
            yield [self._client.take_out(script, len(context.pages)) for script in remaining.values()]
        except self._client.errors:
            return  # the context is gone
