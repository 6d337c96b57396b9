"""The decisions behind the browser adapters, without a browser."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from session_reuse import BrowserSession, ProblemKind, SaveOutcome, reusable_session
from session_reuse._browser import environment, limits
from session_reuse._browser.checkpoints import save_checkpoint, save_checkpoint_blocking
from session_reuse._browser.cookies import clean_cookies, from_cdp, to_cdp
from session_reuse._browser.driver import BrowserDriver
from session_reuse._browser.drivers.devtools import DevToolsDriver
from session_reuse._browser.drivers.playwright_sync import SyncPlaywrightDriver
from session_reuse._browser.engine import BrowserEngine
from session_reuse._browser.flow import run_async, run_sync
from session_reuse._browser.options import Settings
from session_reuse._browser.origins import origin_of, origin_of_storage, site_of
from session_reuse._browser.plan import PRELOAD_LIMIT, RestoreScripts, payloads_of, plan_restore
from session_reuse._browser.storage import databases
from session_reuse._browser.storage.mirror import CopyMark, StorageMirror
from session_reuse._browser.tabs import Tab, Target, frame_of
from session_reuse._browser_session import wiring_of
from session_reuse._state.trim import trim
from session_reuse.browsers import chromium
from session_reuse.browsers._attachment import Attachment
from session_reuse.browsers.cdp import Chromium
from session_reuse.browsers.checks import cookie_alive
from session_reuse.errors import AdapterError
from session_reuse.testing import memory_manager, state_with_cookie
from tests.browsers.visits import fresh, reused, storing
from tests.harness.polling import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


A, B = "https://a.example", "https://b.example"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Shop.Example:443/x?y#z", "https://shop.example"),
        ("http://shop.example:8080/", "http://shop.example:8080"),
        ("http://shop.example:80", "http://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("https://shop.example:65535", "https://shop.example:65535"),
        ("https://shop.example:99999", None),
        ("http://user:word@[::1]:80/", "http://[::1]"),
        ("about:blank", None),
        ("chrome-error://chromewebdata/", None),
        ("http://shop.example:port/", None),
    ],
)
def test_origins_of_urls(url: str, origin: str | None) -> None:
    """Origins are written as browsers write them, or there is none."""
    assert origin_of(url) == origin


def test_partitioned_storage_has_no_origin_of_its_own() -> None:
    """What a frame stores under another site is not taken for what the site itself stores."""
    assert origin_of_storage({"storageKey": "https://a.example/"}) == A
    assert origin_of_storage({"storageKey": "https://a.example/^0https://b.example"}) is None
    assert origin_of_storage({"securityOrigin": A}) == A


@pytest.mark.parametrize(
    ("origin", "site"),
    [
        ("https://login.a.example", "https://a.example"),
        ("http://a.example:8080", "http://a.example"),
        ("https://x.a.co.uk", "https://a.co.uk"),
        ("https://login.abc.de", "https://abc.de"),
        ("https://a.github.io", "https://a.github.io"),
        ("https://x.a.github.io", "https://a.github.io"),
        ("https://github.io", "https://github.io"),
        ("https://mine.wixsite.com", "https://mine.wixsite.com"),
        ("https://x.mine.me.uk", "https://mine.me.uk"),
        ("http://x.a.localhost:8080", "http://a.localhost"),
        ("http://localhost:8080", "http://localhost"),
        ("http://[::1]:8080", "http://::1"),
        ("http://127.0.0.1", "http://127.0.0.1"),
    ],
)
def test_the_site_of_an_origin(origin: str, site: str) -> None:
    """Subdomains are of one site, but where a domain is shared by many."""
    assert site_of(origin) == site


@pytest.mark.parametrize(
    ("frames", "shares"),
    [
        ([(A, "a.example")], True),
        ([(A, "a.example"), ("https://login.a.example", "a.example")], True),
        ([(A, "a.example"), (B, "b.example")], False),
        ([(A, "a.example"), (B, "b.example"), (A, "a.example")], False),
        ([("https://a.github.io", "a.github.io"), ("https://b.github.io", "b.github.io")], False),
        ([("http://a.example", "a.example"), (A, "a.example")], False),
        ([("http://localhost:3000", ""), ("http://localhost:8080", "")], True),
        ([("http://127.0.0.1", ""), ("http://127.0.0.1:8080", "")], True),
        ([("http://127.0.0.1", ""), ("http://127.0.0.2", "")], False),
        ([("://", ""), (A, "a.example")], False),
    ],
)
def test_frames_that_share_the_storage_of_top_level_pages(frames: list[tuple[str, str]], shares: bool) -> None:
    """A frame counts where all frames around it are of its site, as the browser says."""
    tab = Tab("tab")
    target = Target("cdp", tab)
    for number, (origin, domain) in enumerate(frames):
        found = {"id": str(number), "securityOrigin": origin, "domainAndRegistry": domain}
        above = {"parentId": str(number - 1)} if number else {}
        tab.frames[str(number)] = frame_of({**found, **above}, target, 0.0)
    assert tab.frames[str(len(frames) - 1)].shares_storage is shares


def test_an_origin_that_is_filled_is_filled_no_more() -> None:
    """After an origin's document, and not before, the script leaves it alone, but not its neighbours."""
    entries = [storing(A, token="AAA")["origins"][0], storing(B, token="BBB")["origins"][0]]
    scripts = RestoreScripts(payloads_of(entries)[0])
    assert A not in scripts.code_source()
    scripts.delivered(A)
    assert (A in scripts.code_source(), B in scripts.code_source(), scripts.pending) == (True, False, {B})


class SilentDriver(BrowserDriver):
    """A browser that answers no command: what we know of it comes by events."""

    errors = (OSError,)

    def spawn(self, flow: Any) -> None:
        """Run a flow until its first command."""
        flow.close()

    def _refused(self, *_: Any) -> Any:
        raise OSError

    send = best_effort = add_script = remove_script = cookies = add_cookies = _refused
    follow = open_blank_page = close_blank_page = _refused


class ScriptDriver(SilentDriver):
    """A browser that takes init scripts and answers nothing else."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.flows: list[Any] = []

    def spawn(self, flow: Any) -> None:
        """Run a flow later."""
        self.flows.append(flow)

    def run(self) -> None:
        """Run the flows, each until a command that is not answered."""
        while self.flows:
            with suppress(OSError):
                run_sync(self.flows.pop(0))

    def add_script(self, source: str) -> str:
        """Register a script."""
        self.scripts.append(source)
        return source

    def remove_script(self, script: str) -> None:
        """Remove it."""
        self.scripts.remove(script)


class Followed:
    """A tab that is followed by its events alone, in a context whose state has a token of A if not said otherwise."""

    def __init__(
        self, driver: BrowserDriver | None = None, state: dict[str, Any] | None = None, *, is_new_profile: bool = True
    ) -> None:
        self.session = session = reused(state or storing(A, token="T"))
        driver = driver or SilentDriver(session)
        self.engine = BrowserEngine(session, driver, Settings(), is_new_profile=is_new_profile)
        self.target = Target("cdp", Tab("tab"))
        self.engine.follower.opened(self.target.tab)

    @property
    def is_pending(self) -> bool:
        """Whether the next document of A will be filled."""
        return A in self.engine.restorer.scripts.pending

    def commit(self, origin: str, loader: str, **of_frame: str) -> None:
        """Report that a document has taken over the tab, or a frame in it."""
        site = origin.partition("://")[2]
        frame = {"id": "frame", "loaderId": loader, "securityOrigin": origin, "domainAndRegistry": site, **of_frame}
        self.engine.follower.on_event(self.target, "Page.frameNavigated", {"frame": frame})

    def ask_for(self, url: str, disposition: str = "currentTab") -> None:
        """Report that the document of the tab wants to go to a URL."""
        asked = {"frameId": "frame", "url": url, "disposition": disposition}
        self.engine.follower.on_event(self.target, "Page.frameRequestedNavigation", asked)

    def receive(self, value: str) -> None:
        """Report what the init script of a document of A stamps on its timeline."""
        title = f"{self.engine.restorer.scripts.name} {A} {value}"
        self.engine.follower.on_event(self.target, "Performance.metrics", {"metrics": [], "title": title})


@pytest.mark.parametrize("value", ["filled", "failed", "skipped"])
def test_a_document_that_ran_the_script_is_not_filled_again(value: str) -> None:
    """A page that leaves at once for another process takes its localStorage events with it, not its receipt."""
    followed = Followed()
    followed.commit(A, "1")
    followed.receive(f"{value} localStorage")
    followed.commit(B, "2")
    assert not followed.is_pending
    assert followed.engine.mirror.progress(A).is_unconfirmed is (value != "filled")


def test_a_database_that_was_filled_and_removed_at_once_is_gone() -> None:
    """A document that logs out may delete its database before it is followed. The receipt tells that it was there."""
    stored = {"name": "app", "version": 1, "stores": [{"name": "s", "records": [{"key": 1, "value": 1}]}]}
    followed = Followed(state={"cookies": [], "origins": [{"origin": A, "localStorage": [], "indexedDB": [stored]}]})
    mirror = followed.engine.mirror
    followed.commit(A, "1")
    mirror.databases_read(A, databases.Dump([], []), CopyMark(0, None))
    assert mirror.state()["origins"]  # not seen in the browser: the restore may have failed
    followed.receive("filled database app")
    mirror.databases_read(A, databases.Dump([], []), mirror.dirty_databases[A])
    assert mirror.state()["origins"] == []
    assert not followed.is_pending


class IsolatedDriver(ScriptDriver):
    """A browser that evaluates in an isolated world."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluated: list[str] = []

    def send(self, _: object, method: str, params: Any, limit: float | None = None) -> Any:
        """Answer like Chromium, as far as isolated worlds go."""
        if method == "Page.createIsolatedWorld":
            return {"executionContextId": 1}
        if method != "Runtime.evaluate":
            raise OSError
        self.evaluated.append(params["expression"])
        return {"result": {"value": None}}


@pytest.mark.parametrize(("before", "answer"), [("", "fill"), ("filled", "leave"), ("failed", "leave")])
def test_a_second_document_fills_a_database_that_the_first_one_has_not(before: str, answer: str) -> None:
    """It asks, for the page may have deleted a filled one. One that cannot be filled holds up one document only."""
    stored = {"name": "app", "version": 1, "stores": [{"name": "s", "records": [{"key": 1, "value": 1}]}]}
    state = {"cookies": [], "origins": [{"origin": A, "localStorage": [], "indexedDB": [stored]}]}
    followed = Followed(driver := IsolatedDriver(), state)
    followed.commit(A, "1")
    if before:
        followed.receive(f"{before} database app")
    assert followed.engine.mirror.progress(A).is_unconfirmed is (before != "filled")
    followed.commit(A, "2")
    followed.receive("asks database app")
    driver.run()
    (found,) = [each for each in driver.evaluated if "dispatchEvent" in each]
    assert f"{answer} database app" in found


def test_the_receipt_of_a_frame_with_a_storage_of_its_own_proves_nothing() -> None:
    """The storage of a frame under another site is another one, as the browser says."""
    followed = Followed()
    followed.commit(B, "1")
    followed.commit(A, "2", id="inner", parentId="frame")
    followed.receive("filled localStorage")
    assert followed.is_pending
    assert followed.engine.mirror.progress(A).is_unconfirmed


def test_a_database_that_is_being_filled_is_not_there_yet() -> None:
    """Chromium tells of its records before they are there for good: a document that is left takes them along.

    5 of 180 runs of `session-reuse run --check-url` on a busy machine lost a database forever (2026-11-26).
    """
    stored = {"name": "app", "version": 1, "stores": [{"name": "s", "records": [{"key": 1, "value": 1}]}]}
    followed = Followed(state={"cookies": [], "origins": [{"origin": A, "localStorage": [], "indexedDB": [stored]}]})
    mirror = followed.engine.mirror
    followed.commit(A, "1")
    followed.receive("filled localStorage")
    of_app = {"origin": A, "storageKey": f"{A}/", "databaseName": "app", "objectStoreName": "s"}
    followed.engine.follower.on_event(followed.target, "Storage.indexedDBContentUpdated", of_app)
    followed.commit(B, "2")
    assert followed.is_pending
    mirror.databases_read(A, databases.Dump([], []), mirror.dirty_databases[A])
    assert mirror.state()["origins"][0]["indexedDB"] == [stored]


def test_a_failed_section_is_not_confirmed_whatever_a_database_is_called() -> None:
    """What could not be filled stays stored. A database may have the name of a section."""
    stored = {"name": "localStorage", "version": 1, "stores": []}
    entry = {"origin": A, "localStorage": [{"name": "token", "value": "T"}], "indexedDB": [stored]}
    followed = Followed(state={"cookies": [], "origins": [entry]})

    def fails(_: str) -> Any:
        return {"isOpen": False, "failed": ["databases: localStorage: QuotaExceededError"]}
        yield

    assert run_sync(followed.engine.restorer.fill(A, fails))
    assert followed.engine.mirror.progress(A).unseen_sections() == {"databases"}


def test_scripts_are_removed_with_the_last_receipt() -> None:
    """Nothing waits for scripts that are gone: no `goto` of the agent, no further update."""
    driver = ScriptDriver()
    followed = Followed(driver)
    run_sync(followed.engine.restorer.register())
    assert len(driver.scripts) == 2
    followed.commit(A, "1")
    followed.receive("filled localStorage")
    driver.run()
    assert driver.scripts == []
    assert not followed.engine.restorer.is_changing(A)


def test_a_receipt_is_nothing_that_a_site_has_stored() -> None:
    """What the init script reports does not reach the state."""
    followed = Followed()
    followed.commit(A, "1")
    followed.receive("filled localStorage")
    (stored,) = followed.engine.mirror.state()["origins"]
    assert stored == storing(A, token="T")["origins"][0]


@pytest.mark.parametrize("leads_to", [A, B])
def test_a_document_without_a_storage_leaves_the_restore_to_the_next(leads_to: str) -> None:
    """A sandboxed document has the URL of its site and sends no receipt. One whose process is busy sends it late."""
    followed = Followed()
    followed.commit(A, "1")
    assert followed.is_pending
    followed.commit(leads_to, "2")
    assert followed.is_pending
    followed.receive("filled localStorage")
    assert not followed.is_pending


class StorageDriver(ScriptDriver):
    """A browser whose localStorage can be read. It never reports a change."""

    items: ClassVar[list[list[str]]] = []
    session_items: ClassVar[list[list[str]]] = []

    def send(self, _: object, method: str, params: Any, limit: float | None = None) -> Any:
        """Answer like Chromium."""
        if method == "DOMStorage.getDOMStorageItems":
            return {"entries": self.items if params["storageId"]["isLocalStorage"] else self.session_items}
        return {"usageBreakdown": [], "result": {"objectId": "1"}, "listeners": []}


@pytest.mark.parametrize("is_asked_first", [True, False])
def test_what_a_document_stores_before_it_sends_its_visitor_on_is_read(*, is_asked_first: bool) -> None:
    """Events of a login's last writes are lost when the next document takes over, and those of a first one may come too early."""
    driver = StorageDriver()
    followed = Followed(driver, {"cookies": [], "origins": []})
    if is_asked_first:
        followed.engine.follower.adopt(followed.target, {"frame": {"id": "frame", "loaderId": "0"}})
    followed.commit(A, "1")
    driver.items = [["token", "T"]]
    if is_asked_first:
        driver.run()
        followed.commit(A, "2")
    driver.run()
    assert followed.engine.mirror.state()["origins"] == storing(A, token="T")["origins"]


@pytest.mark.parametrize("leads_to", [A, B])
def test_a_document_that_is_left_before_its_last_read_arrives_is_unseen(leads_to: str) -> None:
    """A busy page that stores its login and sends its visitor on answers no more. A URL of its own may redirect elsewhere."""
    driver = StorageDriver()
    followed = Followed(driver, {"cookies": [], "origins": []})
    followed.commit(A, "1")
    driver.run()
    document = followed.target.tab.frames["frame"]
    document.is_loaded, document.committed_at = True, 0.0
    followed.ask_for(f"{B}/new-tab", "newTab")
    assert document.is_read is None
    followed.ask_for(f"{leads_to}/next")
    followed.commit(B, "2")
    assert followed.engine.mirror.unread.keys() == {A}


@pytest.mark.parametrize("is_news", [True, False])
def test_a_document_that_stores_something_after_its_last_read_is_unseen(*, is_news: bool) -> None:
    """A download was announced like an end. What a page stores later may be followed by more, of which no event arrives."""
    driver = StorageDriver()
    driver.items = [["token", "T"]]
    followed = Followed(driver, {"cookies": [], "origins": []})
    followed.commit(A, "1")
    followed.ask_for(f"{A}/download")
    driver.run()
    method, params = _event("Updated", A, "token", "newer" if is_news else "T")
    followed.engine.follower.on_event(followed.target, method, params)
    followed.engine.follower.target_gone(followed.target)
    assert followed.engine.mirror.unread.keys() == ({A} if is_news else set())


@pytest.mark.parametrize("is_closed", [True, False])
def test_frames_of_another_site_are_not_read_after_they_were_left(*, is_closed: bool) -> None:
    """Their storage is partitioned. Each visit to what would be another storage holds up the exit."""
    followed = Followed(state={"cookies": [], "origins": []})
    followed.commit(A, "1")
    followed.commit("https://ads.example", "2", id="inner", parentId="frame")
    if is_closed:
        followed.engine.follower.closed(followed.target.tab)
    else:
        followed.commit(B, "3")
    assert "https://ads.example" not in followed.engine.mirror.unread


def test_a_frame_that_closes_at_once_closes_no_tab() -> None:
    """A frame in a separate process may go before its tab has told which documents it has."""
    followed = Followed(state={"cookies": [], "origins": []})
    follower, tab = followed.engine.follower, followed.target.tab
    follower.target_gone(Target("inner", tab, is_page=False))
    assert follower.tabs == [tab]
    follower.target_gone(followed.target)
    assert follower.tabs == []


def test_a_document_is_newer_than_an_answer_that_is_handled_after_it() -> None:
    """The event of a document may be handled before the answer that says which one was there before."""
    followed = Followed(state={"cookies": [], "origins": []})
    followed.commit(B, "2")
    frame = {"id": "frame", "loaderId": "1", "securityOrigin": A, "url": f"{A}/"}
    followed.engine.follower.adopt(followed.target, {"frame": frame})
    assert followed.engine.follower.open_frames().keys() == {B}


class SecretiveDriver(StorageDriver):
    """A browser that does not answer in time how much an origin stores."""

    def send(self, cdp: object, method: str, params: Any, limit: float | None = None) -> Any:
        """Answer like Chromium, but for sizes."""
        if method == "Storage.getUsageAndQuota":
            raise OSError
        return super().send(cdp, method, params, limit)


def test_an_origin_of_unknown_size_may_have_databases() -> None:
    """No answer is not the answer that it has none: they were made before anything was followed."""
    driver = SecretiveDriver()
    followed = Followed(driver, {"cookies": [], "origins": []})
    followed.commit(A, "1")
    driver.run()
    assert followed.engine.mirror.dirty_databases.keys() == {A}


@pytest.mark.parametrize("profile", ["new", "of another", "followed again"])
def test_databases_that_a_profile_has_already_are_copied(profile: str) -> None:
    """Chromium reports changes before the first document commits, and never what was there before them."""
    driver = SecretiveDriver()
    followed = Followed(driver, {"cookies": [], "origins": []}, is_new_profile=profile != "of another")
    mirror, follower = followed.engine.mirror, followed.engine.follower
    if profile == "followed again":
        followed.commit(A, "0")
        follower.disconnected()
        followed.target = Target("cdp", Tab("tab"))
    followed.commit(B, "1")
    driver.run()
    mirror.dirty_databases.clear()
    starts = {"frameId": "frame", "url": f"{A}/", "navigationType": "differentDocument"}
    follower.on_event(followed.target, "Page.frameStartedNavigating", starts)
    driver.run()
    followed.commit(A, "2")
    driver.run()
    assert mirror.dirty_databases.keys() == (set() if profile == "new" else {A})


class RestlessDriver(StorageDriver):
    """A browser whose page ends each script of ours: it loads itself again and again. No hidden page can be opened."""

    def cookies(self) -> list[Any]:
        """Return none."""
        return []

    def send(self, cdp: object, method: str, params: Any, limit: float | None = None) -> Any:
        """Answer like Chromium, but for scripts."""
        if method == "Page.createIsolatedWorld":
            raise OSError
        return super().send(cdp, method, params, limit)


def test_a_copy_that_an_open_page_ends_is_made_on_a_hidden_page_at_the_exit() -> None:
    """An open page is no reason to leave its database unread without a report."""
    followed = Followed(RestlessDriver(), {"cookies": [], "origins": []})
    followed.commit(A, "1")
    followed.engine.mirror.databases_changed(A, "auth")
    run_sync(followed.engine.captured(is_final=True))
    assert [problem.where for problem in followed.session.problems] == [A]


class EndingDriver(StorageDriver):
    """A browser that ends after it has told its cookies."""

    def cookies(self) -> list[Any]:
        """Return none, and end."""
        self.is_gone = True
        return []


def test_a_browser_that_ends_in_the_midst_of_a_capture_is_reported() -> None:
    """What the rest of the capture would have read is missing, whatever the client."""
    followed = Followed(EndingDriver(), {"cookies": [], "origins": []})
    run_sync(followed.engine.captured(is_final=True))
    assert [problem.kind for problem in followed.session.problems] == [ProblemKind.BROWSER_GONE]


class BusyDriver(StorageDriver):
    """A browser whose pages take a moment for a script of ours, and end it."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = 0
        self.is_tracking = False

    def cookies(self) -> list[Any]:
        """Return none."""
        return []

    def send(self, cdp: object, method: str, params: Any, limit: float | None = None) -> Any:
        """Answer like Chromium, but for scripts of ours."""
        if method.endswith("IndexedDBForStorageKey"):
            self.is_tracking = method.startswith("Storage.track")
        if method == "Page.createIsolatedWorld":
            return {"executionContextId": 1}
        if method == "Runtime.evaluate" and "contextId" in params:
            self.copies += "auth" in params["expression"]
            time.sleep(0.05)
            raise OSError
        return super().send(cdp, method, params, limit)


def test_a_copy_that_took_too_long_is_not_begun_again_at_once() -> None:
    """The first one goes on in the page, which waits for both."""
    followed = Followed(driver := BusyDriver(), {"cookies": [], "origins": []})
    followed.commit(A, "1")
    followed.engine.mirror.databases_changed(A, "auth")
    for _ in range(2):
        run_sync(followed.engine.refresh())
    assert driver.copies == 1


def test_changes_are_reported_until_the_first_one_and_again_before_a_copy_begins() -> None:
    """There is an event for each value that a page puts. One that comes during a copy marks the databases again."""
    followed = Followed(driver := BusyDriver(), {"cookies": [], "origins": []})
    followed.commit(A, "1")
    driver.run()
    assert driver.is_tracking
    change = {"origin": A, "storageKey": f"{A}/", "databaseName": "auth", "objectStoreName": "users"}
    followed.engine.follower.on_event(followed.target, "Storage.indexedDBContentUpdated", change)
    driver.run()
    assert not driver.is_tracking
    run_sync(followed.engine.refresh())
    assert driver.is_tracking


class VisitedDriver(RestlessDriver):
    """A browser whose hidden page opens no origin."""

    def __init__(self) -> None:
        super().__init__()
        self.visited: list[str] = []

    def open_blank_page(self, _: object) -> Any:
        """Return the session with the hidden page."""
        return "hidden"
        yield

    def close_blank_page(self, _: object) -> Any:
        """Close it."""
        yield

    def send(self, cdp: object, method: str, params: Any, limit: float | None = None) -> Any:
        """Note where the hidden page is sent to."""
        if method == "Page.navigate":
            self.visited.append(params["url"].rstrip("/"))
            raise OSError
        return super().send(cdp, method, params, limit)


def test_what_was_marked_last_is_visited_first_at_the_exit() -> None:
    """The time for visits may not do for all, and the agent has logged in where it was last."""
    followed = Followed(driver := VisitedDriver(), {"cookies": [], "origins": []})
    mirror = followed.engine.mirror
    for mark in (mirror.databases_changed, mirror.mark_unread):
        for number in range(3):
            mark(f"https://{mark.__name__[0]}{number}.example")
    mirror.mark_unread("https://d0.example")
    run_sync(followed.engine.captured(is_final=True))
    assert driver.visited == [f"https://{name}.example" for name in ("d0", "m2", "m1", "m0", "d2", "d1")]


def test_a_document_that_was_there_before_us_is_not_waited_for() -> None:
    """Its receipt was sent before anything listened. It may have logged out since."""
    driver = ScriptDriver()
    followed = Followed(driver)
    frame = {"id": "frame", "loaderId": "1", "securityOrigin": A, "url": f"{A}/"}
    followed.engine.follower.adopt(followed.target, {"frame": frame})
    driver.run()
    assert not followed.is_pending


def test_what_a_connection_that_was_lost_has_not_read_is_read_over_the_next() -> None:
    """A page that was open, or left unread, may have stored something, and may be open no more."""
    followed = Followed(state={"cookies": [], "origins": []})
    followed.commit(A, "1")
    followed.commit(B, "2")
    followed.engine.follower.disconnected()
    assert followed.engine.mirror.unread.keys() == followed.engine.mirror.dirty_databases.keys() == {A, B}
    assert followed.engine.follower.tabs == []


def test_scripts_are_registered_once_when_an_open_tab_is_noticed_early() -> None:
    """A second pair of them would stay forever, and fill an origin once more after its logout."""
    driver = ScriptDriver()
    origins = [*storing(A, token="T")["origins"], *storing(B, token="T")["origins"]]
    followed = Followed(driver, {"cookies": [], "origins": origins})
    frame = {"id": "frame", "loaderId": "1", "securityOrigin": A, "url": f"{A}/"}
    followed.engine.follower.adopt(followed.target, {"frame": frame})
    driver.run()
    restorer = followed.engine.restorer
    with suppress(OSError):
        run_sync(restorer.fill_open(followed.engine.follower.open_frames(), followed.engine.follower.evaluate))
    run_sync(restorer.register())
    assert len(driver.scripts) == 2
    assert (A in driver.scripts[0], B in driver.scripts[0]) == (False, True)


def test_the_tab_after_a_check_gets_what_the_check_has_stored() -> None:
    """A database that is still to be confirmed does not bring the older sessionStorage back with it."""
    older = [{"name": "ticket", "value": "older"}]
    entry = {"origin": A, "localStorage": [], "sessionStorage": older, "indexedDB": [_AUTH]}
    driver = ScriptDriver()
    followed = Followed(driver, {"cookies": [], "origins": [entry]})
    restorer = followed.engine.restorer
    run_sync(restorer.register())
    followed.commit(A, "1")
    followed.receive("filled localStorage")
    run_sync(restorer.rearm_session_storage({A: {"ticket": "newer"}}))
    data, _ = driver.scripts
    assert ("older" in data, "newer" in data, "alice" in data) == (False, True, True)


async def test_an_error_of_a_flow_is_raised_where_the_flow_is_a_step() -> None:
    """A hidden page that does not answer costs its own origin, in both kinds of clients."""

    def fails() -> Any:
        raise OSError
        yield

    def goes_on(*, in_a_list: bool) -> Any:
        try:
            yield [fails()] if in_a_list else fails()
        except OSError:
            return "caught"

    for in_a_list in (True, False):
        assert run_sync(goes_on(in_a_list=in_a_list)) == "caught"
        assert await run_async(goes_on(in_a_list=in_a_list)) == "caught"


def test_a_new_connection_restores_what_is_left_alone() -> None:
    """The scripts have gone with the old one. An origin that was filled may have been logged out since."""
    driver = ScriptDriver()
    origins = [*storing(A, token="T")["origins"], *storing(B, token="T")["origins"]]
    followed = Followed(driver, {"cookies": [], "origins": origins})
    restorer = followed.engine.restorer
    run_sync(restorer.register())
    followed.commit(A, "1")
    followed.receive("filled localStorage")
    driver.run()
    followed.engine.follower.disconnected()
    restorer.disconnected()
    driver.scripts.clear()
    run_sync(restorer.register())
    assert (A in driver.scripts[0], B in driver.scripts[0]) == (False, True)


class FakeChromium:
    """A transport to a browser that answers each command. All documents are of A.

    Attributes:
        commands: those that have arrived.
        cookies: what it has.
        fragment: of the URL of all documents.
        urls: where pages were sent to.
        is_hung: called with method and session id of a command. It is not answered when this returns True.
    """

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.cookies: list[dict[str, Any]] = []
        self.fragment = ""
        self.urls: list[str] = []
        self.is_hung: Callable[[str, str], bool] = lambda *_: False
        self.is_closed = False
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, message: str) -> None:
        """Answer a command."""
        command = json.loads(message)
        self.commands.append(command["method"])
        if command["method"] == "Page.navigate":
            self.urls.append(command["params"]["url"])
        frame = {"id": command.get("sessionId"), "loaderId": "1", "securityOrigin": A, "url": f"{A}/"}
        frame |= {"urlFragment": self.fragment} if self.fragment else {}
        result = {
            "frameTree": {"frame": frame},
            "frameId": "tab",
            "loaderId": "1",
            "identifier": "1",
            "entries": [],
            "usageBreakdown": [],
            "browserContextIds": [],
            "defaultBrowserContextId": "default",
            "cookies": self.cookies,
            "targetInfo": {"targetId": "first", "browserContextId": "private"},
            "targetId": "hidden",
            "sessionId": "hidden",
            "executionContextId": 1,
            "result": {"value": {"isOpen": False, "failed": []}},
        }
        if not self.is_hung(command["method"], command.get("sessionId", "")):
            self._messages.put_nowait({"id": command["id"], "result": result})

    def emit(self, method: str, session_id: str = "", **params: Any) -> None:
        """Report an event."""
        self._messages.put_nowait({"method": method, "sessionId": session_id, "params": params})

    def open_tab(self, name: str) -> None:
        """Report a tab that was opened."""
        info = {"targetId": name, "type": "page"}
        params = {"sessionId": name, "waitingForDebugger": True, "targetInfo": info}
        self._messages.put_nowait({"method": "Target.attachedToTarget", "params": params})

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield what the browser sends."""
        while True:
            yield json.dumps(await self._messages.get())

    async def close(self) -> None:
        """End the connection."""
        self.is_closed = True


def _endpoint(chromiums: Callable[[], FakeChromium]) -> Any:
    """Return an endpoint whose every connection is to another double."""

    async def connect() -> tuple[str, FakeChromium]:
        return "ws://chromium", chromiums()

    return SimpleNamespace(connect=connect, accept=lambda _: None, is_alive=True, is_own=True)


def _attachment(chromiums: Callable[[], FakeChromium], session: BrowserSession | None = None) -> Attachment:
    return Attachment(session or fresh(), Settings(checkpoint_after=None), _endpoint(chromiums))


class DroppingChromium(FakeChromium):
    """A browser that ends each connection as soon as it is of use."""

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the answers to what a start needs."""
        answered = 0
        async for message in super().__aiter__():
            yield message
            answered += 1
            if "Target.setAutoAttach" in self.commands[:answered]:
                return


async def test_a_connection_that_drops_again_and_again_is_opened_at_longer_and_longer_intervals() -> None:
    """Each new connection restores the rest, which costs the browser and the agent their time."""
    opened: list[FakeChromium] = []

    def chromium() -> FakeChromium:
        opened.append(DroppingChromium())
        return opened[-1]

    attachment, began = _attachment(chromium), time.monotonic()
    await attachment.start()
    await until(lambda: len(opened) >= 6)
    assert time.monotonic() - began >= 0.1 + 0.2 + 0.4 + 0.8
    await attachment.release()


async def test_a_client_that_has_lost_its_browser_for_a_moment_is_followed_again() -> None:
    """Browser-use opens its own connection again, and says meanwhile that it has none."""
    opened: list[FakeChromium] = []

    def chromium() -> FakeChromium:
        opened.append(FakeChromium() if opened else DroppingChromium())
        return opened[-1]

    endpoint = _endpoint(chromium)
    attachment = Attachment(fresh(), Settings(checkpoint_after=None), endpoint)
    await attachment.start()
    endpoint.is_alive = False
    await asyncio.sleep(0.5)
    assert len(opened) == 1
    endpoint.is_alive = True
    await until(lambda: "Target.setAutoAttach" in opened[-1].commands and len(opened) == 2)
    await until(lambda: opened[-1].commands.count("Storage.getCookies") >= 2, message="the browser is looked at")
    await attachment.release()


async def test_a_connection_over_which_nothing_arrives_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that has gone for a moment leaves a connection that never ends. A page that hangs ends none."""
    monkeypatch.setattr(limits, "BROWSER", 0.4)
    monkeypatch.setattr("session_reuse.browsers._attachment._IDLE_INTERVAL", 0.1)
    opened: list[FakeChromium] = []

    def chromium() -> FakeChromium:
        opened.append(FakeChromium())
        return opened[-1]

    attachment = _attachment(chromium)
    await attachment.start()
    opened[0].is_hung = lambda method, _: method == "Storage.getCookies"
    await until(lambda: opened[0].commands.count("Browser.getVersion") == 3, message="it was asked twice")
    assert (opened[0].is_closed, len(opened)) == (False, 1)
    opened[0].is_hung = lambda *_: True
    await until(lambda: "Storage.getCookies" in opened[-1].commands and len(opened) == 2)
    assert opened[0].is_closed
    await attachment.release()


class LateChromium(FakeChromium):
    """A browser with a tab and a cookie, whose first connection fails."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 1

    async def send(self, message: str) -> None:
        """Answer a command."""
        if '"Target.setAutoAttach"' in message and "sessionId" not in message:
            self.open_tab("first")
        await super().send(message)

    def connected(self) -> LateChromium:
        """Return the browser, or refuse the connection."""
        if self.refusals:
            self.refusals -= 1
            raise OSError("refused")
        return self


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_browser_that_was_not_restored_is_not_restored_when_it_is_captured(*, is_stored: bool) -> None:
    """The agent has logged in meanwhile: stored cookies would replace its own, and be saved as if it had kept them."""
    session = reused(state_with_cookie("old")) if is_stored else fresh()
    chromium, given = LateChromium(), session.storage_state
    attachment = _attachment(chromium.connected, session)
    with pytest.raises(OSError, match="refused"):
        await attachment.start()
    await attachment.finish()
    await attachment.release()
    assert "Storage.setCookies" not in chromium.commands
    assert ("Storage.getCookies" in chromium.commands) is not is_stored  # with nothing to restore, nothing is mixed
    assert (session.storage_state is given, wiring_of(session).capture_reason is not None) == (is_stored, is_stored)


async def test_a_capture_merges_its_state_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To build a large state, merge it and measure it holds up the event loop of the agent."""
    attachment, states = _attachment(FakeChromium), []
    await attachment.start()
    driver: Any = attachment.driver
    monkeypatch.setattr(driver.engine, "fitted", lambda state: states.append(state) or state)
    driver.engine.follower.has_followed = True
    assert [await attachment.capture()] == states
    await attachment.release()


async def test_a_page_that_hangs_costs_no_cookie_of_the_last_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between saves, a look at such a page may take longer than an exit."""
    monkeypatch.setattr(limits, "CAPTURE", 0.5)
    session, chromium = fresh(), FakeChromium()
    chromium.is_hung = lambda method, _: method == "Page.createIsolatedWorld"
    attachment = _attachment(lambda: chromium, session)
    await attachment.start()
    chromium.open_tab("tab")
    await until(lambda: "Page.createIsolatedWorld" in chromium.commands)
    chromium.cookies = [{"name": "sid", "value": "S", "domain": "a.example", "path": "/", "expires": -1}]
    await attachment.finish()
    await attachment.release()
    assert [cookie["value"] for cookie in session.storage_state["cookies"]] == ["S"]


async def test_a_release_that_is_cancelled_leaves_no_connection() -> None:
    """Our tasks may take a moment to end, and the agent's loop may not wait for them."""
    chromium, is_cancelled, goes_on = FakeChromium(), asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await goes_on.wait()
        finally:
            is_cancelled.set()
            await goes_on.wait()

    attachment = _attachment(lambda: chromium)
    await attachment.start()
    attachment._tasks.append(asyncio.create_task(slow_to_end()))
    await asyncio.sleep(0)
    release = asyncio.create_task(attachment.release())
    await is_cancelled.wait()
    release.cancel()
    await asyncio.wait([release])
    assert (release.cancelled(), chromium.is_closed) == (True, True)
    goes_on.set()


@pytest.mark.parametrize("way", ["in another tab", "in the tab of a check", "before the start"])
async def test_a_tab_that_was_faster_than_the_restore_costs_no_origin_its_storage(way: str) -> None:
    """An origin that was restored already has something that nothing would restore again."""
    item = {"name": "ticket", "value": "K"}
    entry = {"origin": A, "localStorage": [item], "sessionStorage": [item], "indexedDB": [_AUTH]}
    session, chromium = reused({"cookies": [], "origins": [entry]}), FakeChromium()
    driver = DevToolsDriver(chromium, session, of_target=None, is_own=True)
    settings = Settings(preload_limit=1 if way == "before the start" else PRELOAD_LIMIT)
    engine = driver.engine = BrowserEngine(session, driver, settings, is_new_profile=True)
    await run_async(engine.start())
    if way == "in another tab":
        engine.restorer.started(A)
    elif way == "in the tab of a check":
        await run_async(engine.restorer.rearm_session_storage({A: {"ticket": "newer"}}))
    assert engine.restorer.scripts.sections(A)
    chromium.commands.clear()
    chromium.open_tab("another")
    while "Page.getFrameTree" not in chromium.commands:
        await asyncio.sleep(0.001)
    await driver.settle()
    await driver.connection.close()
    assert "Storage.clearDataForOrigin" not in chromium.commands


@pytest.mark.parametrize("fragment", ["", "#/inbox?id=1"])
async def test_a_tab_that_is_loaded_again_keeps_its_address(fragment: str) -> None:
    """Where a site has one document, the fragment says what the agent has opened."""
    session, chromium = reused(storing(A, token="T")), FakeChromium()
    chromium.fragment = fragment
    driver = DevToolsDriver(chromium, session, of_target=None, is_own=True)
    driver.engine = BrowserEngine(session, driver, Settings(), is_new_profile=True)
    await run_async(driver.engine.start())
    chromium.open_tab("fast")
    await until(lambda: len(chromium.urls) == 2)
    await driver.close()
    assert chromium.urls == ["about:blank", f"{A}/{fragment}"]


async def test_a_tab_that_never_answers_is_waited_for_once() -> None:
    """A tab that Chromium has discarded keeps no capture and no change of the init scripts waiting."""
    session, chromium = fresh(), FakeChromium()
    chromium.is_hung = lambda _, cdp_session_id: cdp_session_id == "discarded"
    driver = DevToolsDriver(chromium, session, of_target="first", is_own=False)
    driver.settle_limit = 1.0
    driver.engine = BrowserEngine(session, driver, Settings(), is_new_profile=False)
    await run_async(driver.follow(is_new_profile=False))
    chromium.open_tab("discarded")
    await until(lambda: "Page.getFrameTree" in chromium.commands)
    await driver.settle()
    began = time.monotonic()
    await driver.remove_script(await driver.add_script("0"))
    for _ in range(2):
        await driver.settle()
    assert time.monotonic() - began < driver.settle_limit
    await driver.close()


async def test_a_tab_that_never_answers_hides_no_cookie_of_a_private_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookies of `--incognito` and `--guest` are reached through a page. One that was discarded is no help."""
    monkeypatch.setattr(limits, "BROWSER", 0.5)
    session, chromium = fresh(), FakeChromium()
    chromium.is_hung = lambda _, cdp_session_id: cdp_session_id == "discarded"
    driver = DevToolsDriver(chromium, session, of_target="first", is_own=False)
    driver.engine = BrowserEngine(session, driver, Settings(), is_new_profile=False)
    await driver.find_context()
    await run_async(driver.follow(is_new_profile=False))
    for name in ("discarded", "first"):
        chromium.open_tab(name)
    await until(lambda: len(driver.engine.follower.open_frames()) == 1)
    chromium.cookies = [{"name": "sid", "value": "S", "domain": "a.example", "path": "/", "expires": -1}]
    assert [cookie["value"] for cookie in await driver.cookies()] == ["S"]
    await driver.close()


class BriefChromium(FakeChromium):
    """A browser whose tab is closed before it has told which documents it has."""

    async def send(self, message: str) -> None:
        """Answer a command, or close the tab."""
        if "Page.getFrameTree" in self.commands:
            self._messages.put_nowait({"id": json.loads(message)["id"], "error": {"message": "Session not found"}})
            return
        if '"Page.getFrameTree"' not in message:
            await super().send(message)
            return
        self.commands.append("Page.getFrameTree")
        storage = {"storageKey": f"{A}/", "isLocalStorage": True}
        frame = {"id": "popup", "loaderId": "1", "securityOrigin": A, "url": f"{A}/"}
        self.emit("Page.frameNavigated", "popup", frame=frame)
        self.emit("DOMStorage.domStorageItemAdded", "popup", storageId=storage, key="token", newValue="T")
        self.emit("Target.detachedFromTarget", sessionId="popup")


async def test_what_a_popup_has_reported_before_it_closed_is_kept() -> None:
    """A popup of a login stores its token and closes at once. In a shared browser it does not wait for us."""
    session, chromium = fresh(), BriefChromium()
    driver = DevToolsDriver(chromium, session, of_target="first", is_own=False)
    engine = driver.engine = BrowserEngine(session, driver, Settings(), is_new_profile=False)
    await run_async(driver.follow(is_new_profile=False))
    chromium.open_tab("popup")
    await until(lambda: "Page.getFrameTree" in chromium.commands)
    await driver.settle()
    await driver.connection.close()
    (stored,) = engine.mirror.state()["origins"]
    assert stored["localStorage"] == [{"name": "token", "value": "T"}]
    assert A in engine.mirror.unread
    assert session.problems == []


def test_origins_that_are_filled_early_never_cost_the_whole_restore() -> None:
    """Those that are late are reported one by one. A start that is late ends without a state, and captures nothing."""
    assert 1.5 * limits.FILL < limits.START


def test_databases_are_filled_until_they_are_confirmed() -> None:
    """A document may go on before its databases are filled, so the next one of its origin fills them."""
    store = {"name": "users", "autoIncrement": True, "indexes": [], "records": [{"key": 1, "value": "alice"}]}
    stored = {"origin": A, "indexedDB": [{"name": "auth", "version": 1, "stores": [store]}]}
    scripts = RestoreScripts(payloads_of([stored])[0])
    scripts.delivered(A)
    assert scripts.pending == {A}
    scripts.finish(A, {"database auth"})
    assert scripts.pending == set()


def test_values_cannot_break_out_of_a_script() -> None:
    """Whatever a site has stored stays data in the script that brings it back."""
    nasty = "</script>`${alert(1)}`\u2028\ud800\"'\\"
    source = RestoreScripts(payloads_of(storing(A, token=nasty)["origins"])[0]).data_source
    assert json.dumps(nasty) in source
    assert source.encode()


def test_the_largest_origins_are_restored_before_the_start() -> None:
    """Small ones travel with pages, as many as fit. The sessionStorage of a large one does too."""
    large = {**storing(A, big="x" * PRELOAD_LIMIT)["origins"][0], "sessionStorage": [{"name": "s", "value": "S"}]}
    keyed = {"origin": B, "indexedDBRich": [{"name": "d", "version": 1, "keys": [{}], "dump": "[]"}]}
    preloaded, early = plan_restore(payloads_of([large, keyed])[0])
    assert [payload.origin for payload in early] == [A]
    assert [(each.origin, each.local, each.session) for each in preloaded] == [(B, [], []), (A, [], [["s", "S"]])]
    assert payloads_of([keyed], indexed_db=False)[0] == []


def test_cookies_go_through_the_debugging_protocol_and_back() -> None:
    """Both forms of a cookie say the same. What Chromium refuses of its export is left out."""
    seen = {
        "name": "n", "value": "v", "domain": "a.example", "path": "/", "expires": -1, "size": 2, "httpOnly": True,
        "secure": True, "session": True, "priority": "Medium", "sourceScheme": "NonSecure", "sourcePort": 80,
        "partitionKey": {"topLevelSite": "https://b.example", "hasCrossSiteAncestor": False},
    }  # fmt: skip
    kept = from_cdp(seen)
    assert (kept["partitionKey"], kept["_crHasCrossSiteAncestor"], kept["sameSite"]) == (B, False, "Lax")
    param = to_cdp(clean_cookies([kept], 0.0)[0][0])
    assert param["partitionKey"] == seen["partitionKey"]
    assert not {"expires", "sourceScheme", "sourcePort", "size"} & param.keys()


def _event(
    kind: str, origin: str, key: str = "", value: str = "", *, is_local: bool = True
) -> tuple[str, dict[str, Any]]:
    params = {"storageId": {"storageKey": f"{origin}/", "isLocalStorage": is_local}, "key": key, "newValue": value}
    return f"DOMStorage.domStorageItem{kind}", params


def _local(mirror: StorageMirror, section: str = "localStorage") -> dict[str, dict[str, str]]:
    return {
        entry["origin"]: {item["name"]: item["value"] for item in entry.get(section, ())}
        for entry in mirror.state()["origins"]
    }


def test_events_during_a_reading_are_newer_than_its_result() -> None:
    """An answer that was overtaken by events does not undo them."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    reading = mirror.begin_read(1, A)
    mirror.storage_event(1, *_event("Updated", A, "k", "new"))
    mirror.storage_event(1, *_event("Removed", A, "gone"))
    mirror.finish_read(reading, [["k", "old"], ["gone", "x"], ["other", "o"]], [])
    assert _local(mirror) == {A: {"k": "new", "other": "o"}}


def test_a_reading_that_is_overtaken_by_a_later_one_counts_no_more() -> None:
    """A slow answer does not undo what a document told when it was left."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    slow, fast = mirror.begin_read(1, A), mirror.begin_read(1, A)
    mirror.finish_read(fast, [["k", "v"]], [])
    mirror.finish_read(slow, [], [])
    assert _local(mirror) == {A: {"k": "v"}}


def test_a_reading_clears_no_mark_that_was_made_after_it_began() -> None:
    """A document that is left while another one is being read may have stored more."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    mirror.mark_unread(A)
    before = mirror.begin_read(1, A)
    mirror.mark_unread(A)
    mirror.finish_read(before, [], [])
    assert A in mirror.unread
    mirror.finish_read(mirror.begin_read(1, A), [], [])
    assert A not in mirror.unread


def test_events_without_a_reading_build_on_what_was_restored() -> None:
    """A page that was gone before it could be read leaves its changes on top of the restored state."""
    mirror = StorageMirror(storing(A, kept="1", changed="1"))
    mirror.mark_unread(A)
    mirror.storage_event(1, *_event("Updated", A, "changed", "2"))
    assert _local(mirror) == {A: {"kept": "1", "changed": "2"}}
    mirror.storage_event(1, *_event("sCleared", A))
    assert mirror.state()["origins"] == []
    assert mirror.unread.keys() == {A}


def test_only_changes_make_a_mirror_dirty() -> None:
    """Repeated events and unchanged readings do not cause saves."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    mirror.storage_event(1, *_event("Added", A, "k", "v"))
    version = mirror.version
    mirror.storage_event(2, *_event("Added", A, "k", "v"))
    mirror.finish_read(mirror.begin_read(1, A), [["k", "v"]], None)
    mirror.cookies_read([])
    assert mirror.version == version


@pytest.mark.parametrize("is_restored", [True, False])
@pytest.mark.parametrize(
    ("expires", "kept"),
    [
        (1_000_000.0, True),
        (1_000_001.0, False),
        (1_000_000.0 - 86_399, True),
        (1_000_000.0 - 86_400, False),
        (-1, False),
    ],
)
def test_a_cookie_that_has_just_expired_stays_stored(expires: float, kept: bool, is_restored: bool) -> None:
    """The clock of this host may be ahead, and the login of all others would end. A cookie that lives was removed."""
    cookie: Any = {"name": "a", "value": "1", "domain": "a.example", "path": "/", "expires": expires}
    restored = cookie if is_restored else {**cookie, "value": "older", "expires": expires - 10}
    mirror = StorageMirror({"cookies": [restored], "origins": []}, clock=lambda: 1_000_000.0)
    mirror.cookies_read([cookie])
    version = mirror.version
    assert bool(mirror.cookies_read([])) is not kept
    assert mirror.state()["cookies"] == [cookie] * kept
    assert (mirror.version == version) is kept


def test_a_look_at_an_empty_storage_is_no_change() -> None:
    """An agent that has only been somewhere causes no save."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    version = mirror.version
    mirror.finish_read(mirror.begin_read(1, A), [], None)
    assert mirror.version == version


def test_the_session_storage_of_several_tabs() -> None:
    """It is merged key by key. A key goes when a tab that has it removes it, and not for being absent elsewhere."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    for tab, items in ((1, [["t", "first"]]), (2, [])):
        mirror.finish_read(mirror.begin_read(tab, A), [], items)
    mirror.storage_event(2, *_event("Added", A, "tabId", "2", is_local=False))
    assert _local(mirror, "sessionStorage") == {A: {"t": "first", "tabId": "2"}}
    mirror.storage_event(2, *_event("Updated", A, "t", "second", is_local=False))
    assert _local(mirror, "sessionStorage") == {A: {"t": "second", "tabId": "2"}}
    mirror.tab_closed(2)
    assert _local(mirror, "sessionStorage") == {A: {"t": "second", "tabId": "2"}}
    mirror.storage_event(1, *_event("Removed", A, "t", is_local=False))
    mirror.storage_event(1, *_event("Removed", A, "tabId", is_local=False))
    assert mirror.state()["origins"] == []


def test_a_popup_that_starts_with_an_older_copy_replaces_nothing() -> None:
    """It has the sessionStorage of its opener, which may go on before the popup is read."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    mirror.finish_read(mirror.begin_read(1, A), [], [["ticket", "first"]])
    mirror.storage_event(1, *_event("Updated", A, "ticket", "second", is_local=False))
    mirror.finish_read(mirror.begin_read(2, A), [], [["ticket", "first"], ["own", "1"]])
    assert _local(mirror, "sessionStorage") == {A: {"ticket": "second", "own": "1"}}
    mirror.finish_read(mirror.begin_read(2, A), [], [["ticket", "third"], ["own", "1"]])
    assert _local(mirror, "sessionStorage") == {A: {"ticket": "third", "own": "1"}}


def test_what_is_unconfirmed_is_not_replaced() -> None:
    """A document without anything that is stored was not filled: what it adds is added, until it is known to be filled."""
    mirror = StorageMirror(storing(A, token="T", refresh="R"))
    mirror.finish_read(mirror.begin_read(1, A), [["seen", "1"]], [])
    assert _local(mirror) == {A: {"token": "T", "refresh": "R", "seen": "1"}}
    assert mirror.progress(A).is_unconfirmed
    mirror.finish_read(mirror.begin_read(1, A), [["token", "newer"]], [])
    assert _local(mirror) == {A: {"token": "newer", "refresh": "R"}}
    mirror.finish_read(mirror.begin_read(1, A), [], [])
    assert _local(mirror) == {A: {"refresh": "R"}}
    mirror.finish_read(mirror.begin_read(1, A), [["token", "newer"]], [])
    mirror.progress(A).confirm()
    assert _local(mirror) == {A: {"token": "newer"}}


def test_session_storage_that_is_unconfirmed_is_kept() -> None:
    """It goes to one tab only, and that tab may not have come that far."""
    entry = {"origin": A, "localStorage": [], "sessionStorage": [{"name": "ticket", "value": "K"}]}
    mirror = StorageMirror({"cookies": [], "origins": [entry]})
    mirror.finish_read(mirror.begin_read(1, A), [], [["seen", "1"]])
    assert _local(mirror, "sessionStorage") == {A: {"ticket": "K", "seen": "1"}}


def _copied(mirror: StorageMirror, *plain: dict[str, Any], names: set[str] | None = None, lost: Any = ()) -> None:
    mirror.databases_changed(A)
    found = frozenset(names or {each["name"] for each in plain})
    mirror.databases_read(A, databases.Dump([*plain], [*lost], found), mirror.dirty_databases[A])


_STORE = {"name": "users", "autoIncrement": True, "indexes": [], "records": [{"key": 1, "value": "alice"}]}
_AUTH = {"name": "auth", "version": 1, "stores": [_STORE]}


def test_databases_that_are_unconfirmed_are_kept() -> None:
    """A database of the same name is the one that was restored, unless it is empty. Others are added, until then."""
    made = {"name": "cache", "version": 1, "stores": []}
    mirror = StorageMirror({"cookies": [], "origins": [{"origin": A, "localStorage": [], "indexedDB": [_AUTH]}]})
    _copied(mirror, made)
    assert mirror.state()["origins"][0]["indexedDB"] == [_AUTH, made]
    _copied(mirror, {**_AUTH, "stores": [{**_STORE, "records": []}]}, made)
    assert mirror.state()["origins"][0]["indexedDB"] == [_AUTH, made]
    _copied(mirror, _AUTH)
    _copied(mirror, made)
    assert mirror.state()["origins"][0]["indexedDB"] == [made]


def test_a_deeply_nested_value_ends_no_start() -> None:
    """A copy of 400 levels of maps has more levels than Python decodes. It is as good as any other."""
    deep = "[" * 1300 + "]" * 1300
    dump = {"name": "auth", "version": 1, "keys": [], "dump": f'[{{"name": "users", "records": [[1, {deep}]]}}]'}
    mirror = StorageMirror({"cookies": [], "origins": [{"origin": A, "localStorage": [], "indexedDBRich": [dump]}]})
    _copied(mirror, dump)
    assert not mirror.progress(A).is_unconfirmed


def test_databases_that_are_left_out_are_not_waited_for() -> None:
    """With `indexed_db=False`, a restored origin is complete without them. They stay stored, and are no problem."""
    entry = {**storing(A, token="T")["origins"][0], "indexedDB": [_AUTH]}
    driver = ScriptDriver()
    session = reused({"cookies": [], "origins": [entry]})
    engine = BrowserEngine(session, driver, Settings(indexed_db=False), is_new_profile=True)
    run_sync(engine.restorer.register())
    engine.restorer.started(A)
    engine.restorer.take_receipt(A, "filled localStorage")
    driver.run()
    engine.restorer.report_unconfirmed({A})
    assert (session.problems, driver.scripts) == ([], [])
    assert engine.mirror.state()["origins"][0]["indexedDB"] == [_AUTH]


def test_a_database_that_cannot_be_copied_keeps_its_last_copy() -> None:
    """One that has grown too large is not removed, one that no longer exists is removed."""
    mirror = StorageMirror({"cookies": [], "origins": [{"origin": A, "localStorage": [], "indexedDB": [_AUTH]}]})
    mirror.progress(A).confirm()
    _copied(mirror, names={"auth"}, lost=[databases.Loss(A, "auth", "over the size cap", 1)])
    assert mirror.state()["origins"][0]["indexedDB"] == [_AUTH]
    _copied(mirror, names={"other"})
    assert mirror.state()["origins"] == []


def test_a_change_during_a_copy_is_copied_again() -> None:
    """A mark is cleared by the copy that was begun after it, and by no other."""
    mirror = StorageMirror({"cookies": [], "origins": []})
    mirror.databases_changed(A, "auth")
    mark = mirror.dirty_databases[A]
    mirror.databases_changed(A, "auth")
    mirror.databases_read(A, databases.Dump([_AUTH], [], frozenset({"auth"})), mark)
    assert mirror.dirty_databases[A].names == {"auth"}
    mirror.databases_read(A, databases.Dump([_AUTH], [], frozenset({"auth"})), mirror.dirty_databases[A])
    assert mirror.dirty_databases == {}


def test_losses_are_kept_until_the_origin_is_copied_again() -> None:
    """What an earlier run could not copy stays listed while its origin is only passed on."""
    lost = [["db/s", "reason"], ["db/s", "reason"]]
    dump = databases.read_dump(A, json.dumps({"databases": [], "lost": lost, "names": ["db"]}))
    first = StorageMirror({"cookies": [], "origins": []}, clock=lambda: 5.0)
    first.databases_changed(A)
    first.databases_read(A, dump, first.dirty_databases[A])
    state = first.state()
    assert state["session_reuse"]["lost"] == [{"origin": A, "where": "db/s", "reason": "reason", "number": 2}]
    second = StorageMirror(state)
    assert second.state()["session_reuse"]["lost"] == state["session_reuse"]["lost"]
    _copied(second)
    assert second.state()["session_reuse"]["lost"] == []


@pytest.mark.parametrize("kind", ["seen as it was stored", "an item removed", "all cleared"])
def test_a_logout_counts_wherever_anything_was_there(kind: str) -> None:
    """Whoever removes the stored state, or has been seen to hold it, was filled: what was deleted stays deleted."""
    mirror = StorageMirror(storing(A, token="T", refresh="R"))
    if kind == "an item removed":
        mirror.finish_read(mirror.begin_read(1, A), [["token", "newer"], ["refresh", "newer"]], [])
        for key in ("token", "refresh"):
            mirror.storage_event(1, *_event("Removed", A, key))
    elif kind == "all cleared":
        mirror.finish_read(mirror.begin_read(1, A), [["token", "newer"]], [])
        mirror.storage_event(1, *_event("sCleared", A))
    else:
        mirror.finish_read(mirror.begin_read(1, A), [["token", "T"], ["refresh", "newer"]], [])
        mirror.finish_read(mirror.begin_read(1, A), [], [])
    assert mirror.state()["origins"] == []


def test_clearing_a_storage_that_was_not_filled_is_no_logout() -> None:
    """Pages clear their storage at the start for tidiness too."""
    mirror = StorageMirror(storing(A, token="T"))
    mirror.finish_read(mirror.begin_read(1, A), [["seen", "1"]], [])
    mirror.storage_event(1, *_event("sCleared", A))
    assert _local(mirror) == {A: {"token": "T"}}


def test_a_recorded_environment_gives_way_to_options() -> None:
    """What the caller gives wins. What is malformed in a state is ignored."""
    recorded = {"user_agent": "U", "locale": 5, "timezone": "UTC", "viewport": {"width": 1, "height": True}, "more": 1}
    known = environment.recorded({"session_reuse": {"environment": recorded}})
    assert known == {"user_agent": "U", "timezone": "UTC"}
    assert environment.context_options(known, {"timezone_id": "Asia/Tokyo"}) == {"user_agent": "U"}
    assert environment.changed(known, {"user_agent": "V", "timezone": "UTC", "locale": "de"}) == ["user_agent"]
    assert environment.recorded({"session_reuse": None}) == {}


def test_the_token_of_a_browser_service_is_not_shown() -> None:
    """A browser may be logged, and both of its addresses may have the token in them."""
    shown = repr(Chromium("https://service.example?token=SECRET", "wss://service.example/?token=SECRET"))
    assert "SECRET" not in shown


def test_where_chromium_is_found(tmp_path: Path) -> None:
    """The argument wins, then the variable, then Playwright's folder, then PATH. One that has no windows is the last choice."""
    names = (
        "named",
        "variable",
        "browsers/chromium-9/chrome-linux64/chrome",
        "browsers/chromium-10/chrome-linux/chrome",
    )
    named, variable, _, newest = (_executable(tmp_path / name) for name in names)
    on_path = _executable(tmp_path / "bin" / "chromium")
    everything = {
        "SESSION_REUSE_CHROMIUM": variable,
        "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "browsers"),
        "PATH": str(tmp_path / "bin"),
        "HOME": str(tmp_path),
    }
    assert chromium.find_chromium(named, everything) == named
    assert chromium.find_chromium(None, everything) == variable
    del everything["SESSION_REUSE_CHROMIUM"]
    assert chromium.find_chromium(None, everything) == newest
    del everything["PLAYWRIGHT_BROWSERS_PATH"]
    assert chromium.find_chromium(None, everything) == on_path
    everything["PLAYWRIGHT_BROWSERS_PATH"] = str(tmp_path / "shells")
    shell = _executable(tmp_path / "shells/chromium_headless_shell-11/chrome-linux/headless_shell")
    assert chromium.find_chromium(None, everything) == on_path
    assert chromium.find_chromium(None, everything | {"PATH": str(tmp_path)}) == shell


def test_a_missing_chromium_is_named(tmp_path: Path) -> None:
    """The message names what was asked for, or says how to get a browser."""
    nothing = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    with pytest.raises(AdapterError, match="playwright install chromium"):
        chromium.find_chromium(None, nothing)
    with pytest.raises(AdapterError, match="/no/such"):
        chromium.find_chromium("/no/such", nothing)
    with pytest.raises(AdapterError, match="SESSION_REUSE_CHROMIUM"):
        chromium.find_chromium(None, {**nothing, "SESSION_REUSE_CHROMIUM": "missing"})


def _executable(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return str(path)


def test_a_cookie_that_lives() -> None:
    """A cookie counts while it has not expired, for its domain and those above."""
    session = fresh()
    assert not cookie_alive("sid")(session)
    session.storage_state["cookies"] = [
        {"name": "sid", "value": "S", "domain": ".login.shop.example", "path": "/"},
        {"name": "old", "value": "S", "domain": "shop.example", "path": "/", "expires": 5},
    ]
    assert cookie_alive("sid")(session)
    assert cookie_alive("sid", "shop.example")(session)
    assert not cookie_alive("sid", "op.example")(session)
    assert not cookie_alive("old")(session)


def test_a_site_that_stores_too_much_costs_no_other_its_save() -> None:
    """The largest values are left out until the rest fits. Their stored values stay if they are smaller."""
    huge = storing(A, token="T", cache="x" * 900)
    state = {"cookies": [], "origins": [huge["origins"][0], storing(B, token="U")["origins"][0]]}
    stored = storing(A, cache="old")
    assert trim(state, stored, limit=500) == [f"localStorage of {A}"]
    named = [{item["name"]: item["value"] for item in each["localStorage"]} for each in state["origins"]]
    assert named == [{"token": "T", "cache": "old"}, {"token": "U"}]
    assert trim(state, stored, limit=500) == []


class UnattachableBrowser:
    """A browser of Playwright's synchronous API that makes hidden targets and refuses to attach to them."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.is_detached = False

    def new_browser_cdp_session(self) -> UnattachableBrowser:
        """Return the session with the browser."""
        return self

    def on(self, event: str, handler: Any) -> None:
        """Send no event."""

    def send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Refuse all but the making of targets."""
        self.commands.append(method)
        if method != "Target.createTarget":
            raise SyncPlaywrightDriver.errors[0](method)
        return {"targetId": "hidden"}

    def detach(self) -> None:
        """End the session, and its targets."""
        self.is_detached = True


def test_a_hidden_page_that_cannot_be_used_is_closed() -> None:
    """One that outlives its context can crash the browser."""
    browser = UnattachableBrowser()
    driver = SyncPlaywrightDriver(fresh())
    driver.context = SimpleNamespace(browser=browser)
    driver.context_id = "context"
    with pytest.raises(SyncPlaywrightDriver.errors):
        run_sync(driver.open_blank_page(lambda *_: None))
    assert browser.commands == ["Target.createTarget", "Target.attachToTarget"]
    assert browser.is_detached


def test_a_page_for_the_restore_that_cannot_be_used_is_closed() -> None:
    """Firefox and WebKit open it and have no DevTools session for it. The agent has opened no page yet."""
    is_closed = []

    def refuse(_: object) -> None:
        raise SyncPlaywrightDriver.errors[0]("CDP session is only available in Chromium")

    page = SimpleNamespace(close=lambda: is_closed.append(True))
    driver = SyncPlaywrightDriver(fresh())
    driver.context = SimpleNamespace(new_page=lambda: page, new_cdp_session=refuse)
    with pytest.raises(SyncPlaywrightDriver.errors):
        run_sync(driver.open_blank_page(lambda *_: None))
    assert is_closed


class PlainPage:
    """A page of a browser without DevTools, at A.

    Attributes:
        handlers: of its events.
    """

    url = f"{A}/"
    parent_frame = None

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        self.on = self.handlers.__setitem__

    def is_closed(self) -> bool:
        """Return whether it was closed."""
        return False

    def goto(self) -> None:
        """Do nothing."""

    go_back = go_forward = reload = close = goto


@pytest.mark.parametrize("has_scripts", [True, False])
def test_without_scripts_an_empty_storage_is_no_logout(*, has_scripts: bool) -> None:
    """Firefox with JavaScript switched off has the cookies only. With scripts, what a page has removed is gone."""
    session, page = reused(storing(A, token="T")), PlainPage()
    driver = SyncPlaywrightDriver(session)
    script = SimpleNamespace(close=lambda: None)
    driver.context = SimpleNamespace(pages=[page], on=lambda *_: None, add_init_script=lambda _: script)
    driver.has_protocol = False
    engine = driver.engine = BrowserEngine(session, driver, Settings(), is_new_profile=True)
    run_sync(engine.start(has_scripts=has_scripts))
    page.handlers["framenavigated"](page)
    engine.captured_from([], {}, {})
    assert session.storage_state["origins"] == ([] if has_scripts else storing(A, token="T")["origins"])


def state_of(**values: str) -> Any:
    """Return a storage state with these items in the localStorage of A."""
    items = [{"name": name, "value": value} for name, value in values.items()]
    return {"cookies": [], "origins": [{"origin": A, "localStorage": items}]}


def stored_at_a(session: BrowserSession) -> dict[str, str]:
    """Return the localStorage of A in a session."""
    return {
        item["name"]: item["value"]
        for each in session.storage_state["origins"]
        if each["origin"] == A
        for item in each["localStorage"]
    }


def engine_of(session: BrowserSession) -> BrowserEngine:
    """Return an engine whose browser is never asked."""
    return BrowserEngine(session, SilentDriver(session), Settings(), is_new_profile=True)


def test_what_two_clients_capture_is_merged() -> None:
    """Each captures the whole state, again and again. Deletions of one count for both."""
    session = reused(state_of(old="1"))
    one, other = engine_of(session), engine_of(session)
    one.fitted(state_of(old="1", mine="1"))
    other.fitted(state_of(old="1", theirs="1"))
    assert stored_at_a(session) == {"old": "1", "mine": "1", "theirs": "1"}
    one.fitted(state_of(mine="2"))
    assert stored_at_a(session) == {"mine": "2", "theirs": "1"}
    one.fitted(state_of(mine="3"))
    other.fitted(state_of(old="1", theirs="2"))
    assert stored_at_a(session) == {"mine": "3", "theirs": "2"}


def test_what_two_clients_have_captured_together_fits() -> None:
    """The largest values are left out of the merged state, not of each part."""
    session = reused(state_of(old="1"))
    one, other = engine_of(session), engine_of(session)
    one.fitted(state_of(old="1", mine="x" * 6_000_000))
    other.fitted(state_of(old="1", theirs="y" * 6_000_000))
    assert len(json.dumps(session.storage_state)) < 8_000_000
    assert stored_at_a(session)["old"] == "1"
    assert [problem.kind for problem in session.problems] == ["too_large"]


async def test_what_is_captured_fits_into_the_limit_of_the_manager() -> None:
    """A site that stores more than a small `max_state_bytes` does not cost the session its save."""
    async with (
        memory_manager(max_state_bytes=10_000) as manager,
        reusable_session("shop/alice", manager=manager) as session,
    ):
        engine_of(session).fitted(state_of(token="T", cache="x" * 20_000))
    assert session.save_outcome is SaveOutcome.SAVED
    assert stored_at_a(session) == {"token": "T"}
    assert [problem.kind for problem in session.problems] == ["too_large"]


def test_a_state_that_the_agent_assigns_is_no_capture() -> None:
    """`context.storage_state()` of Playwright holds a part only. The browser itself is asked at the next capture."""
    session = reused(state_of(old="1", kept="1"))
    engine = engine_of(session)
    engine.fitted(state_of(old="1", kept="1"))
    session.storage_state = {"cookies": [], "origins": []}
    engine.fitted(state_of(old="2", kept="1"))
    assert stored_at_a(session) == {"old": "2", "kept": "1"}


async def test_a_look_that_reads_nothing_ends_no_checkpoints() -> None:
    """A session without a store keeps its state in memory. What the next checkpoint reads is kept again."""
    asynchronous, blocking = BrowserSession("a"), BrowserSession("b")

    async def keep() -> None:
        raise AdapterError("nothing could be read")

    def keep_blocking() -> None:
        raise AdapterError("nothing could be read")

    await save_checkpoint(asynchronous, keep)
    save_checkpoint_blocking(blocking, keep_blocking)
    for session in (asynchronous, blocking):
        assert [problem.kind for problem in session.problems] == [ProblemKind.CHECKPOINT_FAILED]
