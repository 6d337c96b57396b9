"""Whatever ends a run, the session has what the browser held, and says what it could not take."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import Error

from session_reuse._browser import follower
from session_reuse._browser.drivers.playwright import FollowedPage
from session_reuse._browser.drivers.playwright_async import AsyncPlaywrightDriver
from session_reuse._browser.drivers.tasks import background
from session_reuse._browser.storage import databases
from session_reuse._browser.storage.mirror import StorageMirror
from session_reuse.browsers import playwright as adapter
from session_reuse.browsers.playwright import open_context
from session_reuse.errors import ConfigurationError, LifecycleError
from tests.browsers.patience import limit, set_limit
from tests.browsers.probes import capture_now, leftovers, mirror_of
from tests.browsers.visits import (
    checkpoints_of,
    entry,
    fresh,
    items,
    kinds,
    next_session,
    reused,
    shown,
    storing,
    visited,
)
from tests.harness.polling import until
from tests.harness.probes import captures_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def test_a_logout_propagates(sites: Sites, browser: Any) -> None:
    """What a page removes, cookies and databases included, is not brought back for the next agent."""
    session = fresh()
    async with open_context(session, browser) as context:
        for path in ("/cookie/login?kind=httponly", "/local/login", "/idb-rich/login"):
            await visited(context, sites.url("leaver", path))
    assert session.storage_state["cookies"]
    assert entry(session, sites.origin("leaver"))
    session = next_session(session)
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("leaver", "/logout")) == "out"
    assert (session.storage_state["cookies"], session.storage_state["origins"]) == ([], [])


async def test_a_logout_of_a_page_that_was_logged_in_propagates(sites: Sites, browser: Any) -> None:
    """The same for a login that was seen at work before."""
    session = fresh()
    async with open_context(session, browser) as context:
        await visited(context, sites.url("user", "/idb-rich/login"))
    session = next_session(session)
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("user", "/idb-rich")) == "in"
        assert await visited(context, sites.url("user", "/logout")) == "out"
    assert session.storage_state["origins"] == []


async def test_origins_that_were_not_visited_are_carried_over(sites: Sites, browser: Any) -> None:
    """A short visit to one site does not cost the logins of all others."""
    kept = storing(sites.origin("kept"), token="T")["origins"][0]
    kept |= {
        "sessionStorage": [{"name": "s", "value": "S"}],
        "indexedDBRich": [{"name": "d", "version": 1, "dump": "[]"}],
    }
    session = reused({"cookies": [], "origins": [kept], "future": {"of": "another version"}})
    async with open_context(session, browser) as context:
        await visited(context, sites.url("new", "/local/login"))
    assert entry(session, sites.origin("kept")) == kept
    assert items(session, sites.origin("new")) == {"token": "T\0\ud800ü"}
    assert session.storage_state["future"] == {"of": "another version"}


async def test_an_agent_that_closes_its_context_itself(sites: Sites, browser: Any) -> None:
    """`context.close()` inside the body captures first."""
    session = fresh()
    async with open_context(session, browser) as context:
        await visited(context, sites.url("own", "/cookie/login?kind=session"))
        await context.close()
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["sid"]
    assert session.problems == []
    assert "close" not in vars(browser)


async def test_a_task_that_closes_the_context_while_its_state_is_captured(sites: Sites, browser: Any) -> None:
    """It waits for the capture of the exit, as at any other time."""
    session = fresh()
    async with open_context(session, browser, checkpoint_after=None) as context:
        page = await context.new_page()
        await page.goto(sites.url("closed-late", "/blank"))
        await page.evaluate("localStorage.setItem('token', 'T')")
        asyncio.get_running_loop().call_soon(lambda: closing.append(asyncio.create_task(context.close())))
        closing: list[asyncio.Task[None]] = []
    await asyncio.gather(*closing)
    assert items(session, sites.origin("closed-late")) == {"token": "T"}
    assert session.problems == []


async def test_an_agent_that_closes_its_browser_itself(sites: Sites, launch: Any) -> None:
    """`browser.close()` inside the body captures first."""
    session, browser = fresh(), await launch()
    async with open_context(session, browser) as context:
        await visited(context, sites.url("own", "/cookie/login?kind=session"))
        await browser.close()
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["sid"]


async def test_pages_that_are_closed_are_not_forgotten(sites: Sites, browser: Any) -> None:
    """Storage of pages closed long before the end is captured."""
    session = fresh()
    async with open_context(session, browser) as context:
        for host in ("closed1", "closed2"):
            page = await context.new_page()
            await page.goto(sites.url(host, "/session/login"))
            await page.wait_for_url("**/session")
            await shown(page)
            await page.close()
    assert [len(items(session, sites.origin(host), "sessionStorage")) for host in ("closed1", "closed2")] == [1, 1]


async def test_a_page_that_is_closed_at_once(sites: Sites, browser: Any) -> None:
    """What a page stores while it loads is captured, however soon the agent closes it."""
    hosts = [f"brief{number}" for number in range(8)]
    session = fresh()
    async with open_context(session, browser) as context:
        for host in hosts:
            page = await context.new_page()
            await page.goto(sites.url(host, "/session/login"), wait_until="commit")
            await page.wait_for_url("**/session", wait_until="commit")
            await page.close()
            assert page.is_closed()
    assert [len(items(session, sites.origin(host), "sessionStorage")) for host in hosts] == [1] * len(hosts)


async def test_what_no_event_has_told_is_read_at_the_end(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chromium may lose the last events of a document that is left, also long after it was loaded."""
    monkeypatch.setattr(StorageMirror, "storage_event", lambda *_: None)
    monkeypatch.setattr(follower, "_RECENT", 0.0)
    session = fresh()
    bound = open_context(session, browser)
    async with bound as context:
        page = await context.new_page()
        await page.goto(sites.url("untold", "/blank"))
        await until(lambda: sites.origin("untold") not in mirror_of(bound).unread)
        await page.evaluate("localStorage.token = 'T'")
        await page.goto(sites.url("elsewhere", "/blank"))
    assert items(session, sites.origin("untold")) == {"token": "T"}
    assert session.problems == []


async def test_a_killed_browser_costs_one_debounce_at_most(sites: Sites, playwright: Any, tmp_path: Any) -> None:
    """After SIGKILL the session has everything up to the last checkpoint interval, cookies of requests included."""
    from tests.browsers.visits import LAUNCH

    session = fresh()
    context = await playwright.chromium.launch_persistent_context(str(tmp_path), **LAUNCH)
    async with adapter.attach_context(session, context, checkpoint_after=0.1) as context:
        page = await context.new_page()
        await page.goto(sites.url("killed", "/local/login"))
        await page.wait_for_url("**/local")
        assert await shown(page) == "in"
        await page.evaluate("fetch('/cookie/login?kind=httponly')")
        await until(lambda: session.storage_state["cookies"])
        os.kill(_browser_process(tmp_path), signal.SIGKILL)
        await until(lambda: page.is_closed() or not context.pages)
    assert items(session, sites.origin("killed")) == {"token": "T\0\ud800ü"}
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["sid"]
    assert "browser_gone" in kinds(session)


def _browser_process(folder: Any) -> int:
    """Return the pid of the browser that holds a profile: the lock names it."""
    return int(os.readlink(folder / "SingletonLock").rpartition("-")[2])


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_an_agent_that_is_cancelled(cancellations: int, sites: Sites, browser: Any) -> None:
    """Cancelled once or twice, also in the midst of the capture, the session has what the browser held."""
    session = fresh()
    bound = open_context(session, browser)
    ready = asyncio.Event()

    async def agent() -> None:
        async with bound as context:
            await visited(context, sites.url("cancelled", "/local/login"))
            await until(lambda: mirror_of(bound).has_content(sites.origin("cancelled")))
            ready.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(agent())
    await ready.wait()
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert items(session, sites.origin("cancelled")) == {"token": "T\0\ud800ü"}
    await until(lambda: not background)
    assert browser.contexts == []


@pytest.mark.parametrize("closes", ["context", "browser"])
async def test_an_agent_that_is_cancelled_while_it_closes(closes: str, sites: Sites, launch: Any) -> None:
    """An agent that closes its context or browser itself, and is cancelled meanwhile, has lost nothing either."""
    session, browser = fresh(), await launch()

    async def agent() -> None:
        async with open_context(session, browser, checkpoint_after=None) as context:
            page = await context.new_page()
            await page.goto(sites.url("closing", "/cookie/login?kind=persistent"))
            await shown(page)
            await page.evaluate("localStorage.setItem('token', 'T')")
            asyncio.get_running_loop().call_later(0.001, task.cancel)
            await (context if closes == "context" else browser).close()

    task = asyncio.create_task(agent())
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not background)
    assert items(session, sites.origin("closing")) == {"token": "T"}
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["sid"]
    assert browser.contexts == []


async def test_a_start_that_is_cancelled_leaves_no_context(sites: Sites, launch: Any) -> None:
    """Whenever an agent is cancelled while it starts, in its check too, the browser is left as it was."""
    browser = await launch()
    control = await browser.new_browser_cdp_session()

    async def check(page: Any) -> None:
        await page.goto(sites.url("start", "/inner"))
        await asyncio.sleep(30)

    async def agent() -> None:
        async with open_context(reused(storing(sites.origin("start"), token="T")), browser, verify=check):
            raise AssertionError("the check does not come to its end")

    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.5):
        task = asyncio.create_task(agent())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not background)
    assert browser.contexts == []
    assert (await control.send("Target.getBrowserContexts"))["browserContextIds"] == []


async def test_an_error_of_the_agent_comes_out_unchanged(sites: Sites, browser: Any) -> None:
    """The body's own exception is raised unchanged, and the state is captured."""
    session = fresh()
    with pytest.raises(ZeroDivisionError):
        async with open_context(session, browser) as context:
            await visited(context, sites.url("error", "/local/login"))
            raise ZeroDivisionError
    assert items(session, sites.origin("error"))


async def test_changes_are_saved_while_the_agent_works(sites: Sites, browser: Any) -> None:
    """A checkpoint follows a change, and none follows when nothing has changed."""
    session = fresh()
    saved = checkpoints_of(session)
    async with open_context(session, browser, checkpoint_after=0.05) as context:
        page = await context.new_page()
        await page.goto(sites.url("saver", "/blank"))
        await page.evaluate("localStorage.setItem('n', '1')")
        await until(lambda: saved and saved[-1]["origins"])
        assert saved[-1]["origins"][0]["localStorage"] == [{"name": "n", "value": "1"}]
        count = len(saved)
        await page.evaluate("localStorage.setItem('n', '1'); localStorage.getItem('n')")
        await page.evaluate("document.cookie = 'c=1'")
        await until(lambda: saved[-1]["cookies"])
        assert len(saved) == count + 1


async def test_what_cannot_be_copied_is_listed(sites: Sites, browser: Any) -> None:
    """A key that cannot be exported and a database over the cap are named as lost. What stands beside them is kept."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("key", "/idb-key/login")) == "in"
        assert await visited(context, sites.url("big", "/idb-big/login")) == "in"
    lost = {(each["origin"], each["where"], each["reason"]) for each in session.storage_state["session_reuse"]["lost"]}
    key, big = sites.origin("key"), sites.origin("big")
    assert lost == {(key, "auth/users", "non-extractable CryptoKey"), (big, "auth", "over the size cap")}
    assert kinds(session) == ["lost", "lost"]
    assert session.storage_state["session_reuse"]["complete"] is False
    assert '"kept"' in entry(session, key)["indexedDBRich"][0]["dump"]


_PUT = """async (value) => {
  const { result } = await new Promise((done) => {
    const request = indexedDB.open('auth');
    request.onupgradeneeded = () => request.result.createObjectStore('users');
    request.onsuccess = () => done(request);
  });
  const transaction = result.transaction('users', 'readwrite');
  transaction.objectStore('users').put(await eval(value), 'value');
  transaction.objectStore('users').put('alice', 'name');
  await new Promise((done) => { transaction.oncomplete = done; });
  result.close();
}"""


async def test_a_page_that_stores_much_sends_one_event_for_each_copy(sites: Sites, browser: Any) -> None:
    """There would be one for each value, over the connection that the agent waits for."""
    session, origin = fresh(), sites.origin("much")
    bound = open_context(session, browser, checkpoint_after=None)
    async with bound as context:
        page = await context.new_page()
        await page.goto(sites.url("much", "/blank"))
        for value in ("1", "2"):
            await page.evaluate(_PUT, value)
            await until(lambda: origin in mirror_of(bound).dirty_databases and not leftovers(bound)[0])
            known = mirror_of(bound).version
            await page.evaluate(f"(async () => {{ for (let n = 0; n < 50; n++) await ({_PUT})('{value}{value}'); }})()")
            assert mirror_of(bound).version == known
            await capture_now(session)
            assert origin not in mirror_of(bound).dirty_databases
            assert f"{value}{value}" in str(entry(session, origin)["indexedDB"])


@asynccontextmanager
async def followed_late(
    path: str, sites: Sites, session: Any, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Any, asyncio.Event]]:
    """Open a popup that is not followed before the event is set, or it has closed."""
    attach, is_time = AsyncPlaywrightDriver._attach, asyncio.Event()

    def attach_late(self: AsyncPlaywrightDriver, page: Any, followed: FollowedPage) -> Any:
        if self.context.pages[0] is not page:
            yield until(lambda: is_time.is_set() or page.is_closed())
        yield from attach(self, page, followed)

    monkeypatch.setattr(AsyncPlaywrightDriver, "_attach", attach_late)
    async with open_context(session, browser, checkpoint_after=None) as context:
        page = await context.new_page()
        await page.goto(sites.url("opener", "/blank"))
        async with page.expect_popup() as popup:
            await page.evaluate("(url) => void window.open(url)", sites.url("popped-late", path))
        yield await popup.value, is_time


async def test_a_new_database_of_a_popup_that_closes_at_once_is_captured(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login window may be gone before it can be followed."""
    session = fresh()
    async with followed_late("/popup/database", sites, session, browser, monkeypatch) as (popup, _):
        await until(popup.is_closed)
    assert "'T'" in str(entry(session, sites.origin("popped-late")).get("indexedDB"))


async def test_a_logout_in_a_popup_that_is_followed_late_propagates(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its receipts were missed, and what it deletes was never copied."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("popped-late", "/idb-plain/login")) == "in"
    session = next_session(session)
    async with followed_late("/idb-plain", sites, session, browser, monkeypatch) as (popup, is_time):
        assert await shown(popup) == "in"
        is_time.set()
        progress = mirror_of(captures_of(session)[-1].__self__).progress(sites.origin("popped-late"))
        await until(lambda: not progress.is_unconfirmed)
        await popup.evaluate("new Promise((done) => { indexedDB.deleteDatabase('auth').onsuccess = done; })")
    assert (entry(session, sites.origin("popped-late")), session.problems) == ({}, [])


async def test_what_a_popup_did_that_was_never_followed_is_reported(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty storage afterwards is a logout, or a restore that failed: what is stored is kept."""
    state = storing(sites.origin("popped-late"), token="T")
    session = reused(state)
    async with followed_late("/popup/logout", sites, session, browser, monkeypatch) as (popup, _):
        await until(popup.is_closed)
    assert items(session, sites.origin("popped-late")) == {"token": "T"}
    assert [(each.kind, each.where) for each in session.problems] == [("restore_failed", sites.origin("popped-late"))]


@pytest.mark.parametrize("is_new", [True, False])
async def test_what_a_worker_stores_when_its_tab_is_closed_is_captured(
    is_new: bool, sites: Sites, browser: Any
) -> None:
    """No tab is there to report it."""
    session, host = fresh(), f"late{int(is_new)}"
    async with open_context(session, browser, checkpoint_after=None) as context:
        await visited(context, sites.url("elsewhere", "/inner"))
        if not is_new:
            await visited(context, sites.url(host, "/idb-plain/login"))
            await context.pages[-1].close()
        assert await visited(context, sites.url(host, "/late")) == "in"
        await capture_now(session)
        await context.pages[-1].close()
        await until(lambda: sites.hits[host, "/written"])
    assert "'late'" in str(entry(session, sites.origin(host)).get("indexedDB"))


async def test_a_key_that_may_not_leave_costs_its_record_only(sites: Sites, browser: Any) -> None:
    """The public key beside it, whose record is lost, does not keep the database from being restored."""
    session = fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("pair", "/blank"))
        await page.evaluate(
            "crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify'])"
            ".then(({ publicKey, privateKey }) => { self.pair = { publicKey, privateKey }; })"
        )
        await page.evaluate(_PUT, "self.pair")
    session = next_session(session)
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("pair", "/blank"))
        found = await page.evaluate(
            """async () => {
              const done = (request) => new Promise((end) => { request.onsuccess = () => end(request.result); });
              return done((await done(indexedDB.open('auth', 1))).transaction('users').objectStore('users').getAll());
            }"""
        )
    assert found == ["alice"]
    assert kinds(session) == []


async def test_a_copy_looks_at_each_object_once(sites: Sites, browser: Any) -> None:
    """Pairs of pairs, and large typed arrays, would keep the page busy. An object that is met twice is one again."""
    page = await browser.new_page()
    await page.goto(sites.url("once", "/blank"))
    pairs = "(() => { let pair = { x: 1 }; for (let n = 0; n < 12; n++) pair = { pair, again: pair }; return pair; })()"
    await page.evaluate(_PUT, pairs)
    copied = json.loads(await page.evaluate(databases.dump_script()))["databases"]
    assert copied[0]["dump"].count('["r",') == 12
    await page.evaluate(_PUT, "({ bytes: new Uint8Array(9) })")
    is_listed = await page.evaluate(
        """async (dump) => {
          const listed = [];
          const { entries } = Object;
          Object.entries = (value) => (listed.push(ArrayBuffer.isView(value)), entries(value));
          await eval(dump);
          return listed.includes(true);
        }""",
        databases.dump_script(),
    )
    assert not is_listed
    await page.context.close()


@pytest.mark.parametrize(
    ("value", "dump", "lost"),
    [
        ("Object.assign([, 1], { x: 1 })", '["h",2,[["1",1],["x",1]]]', []),
        ("new ArrayBuffer(1, { maxByteLength: 9 })", '["y","AA==",9]', []),
        (
            "new Uint8Array(new ArrayBuffer(1, { maxByteLength: 9 }))",
            '"alice"',
            [["auth/users", "view of a resizable ArrayBuffer"]],
        ),
    ],
)
async def test_a_value_that_json_would_alter(
    value: str, dump: str, lost: list[list[str]], sites: Sites, browser: Any
) -> None:
    """A copy is exact, or names what it lacks."""
    page = await browser.new_page()
    await page.goto(sites.url("altered", "/blank"))
    await page.evaluate(_PUT, value)
    copied = json.loads(await page.evaluate(databases.dump_script()))
    assert dump in copied["databases"][0]["dump"]
    assert copied["lost"] == lost
    await page.context.close()


async def test_a_cookie_that_is_no_text_is_named(sites: Sites, browser: Any) -> None:
    """The browser does not return the value of a cookie that is not UTF-8. An empty one is nothing to report."""
    session = fresh()
    async with open_context(session, browser) as context:
        for host in ("latin", "empty"):
            await visited(context, sites.url(host, f"/cookie/login?kind={host}"))
    assert [(each.kind, each.where) for each in session.problems] == [("lost", "'sid' of latin.localhost")]


async def test_a_copy_is_of_one_moment(sites: Sites, browser: Any) -> None:
    """A page that writes to all its stores at once, again and again, is never copied halfway."""
    page = await browser.new_page()
    await page.goto(sites.url("moment", "/blank"))
    found = await page.evaluate(
        """async (dump) => {
          const request = indexedDB.open('auth');
          request.onupgradeneeded = () => { for (const name of ['access', 'refresh']) request.result.createObjectStore(name); };
          await new Promise((done) => { request.onsuccess = done; });
          const { transaction } = IDBDatabase.prototype;
          let number = 0;
          const write = () => {
            number++;
            const writing = transaction.call(request.result, ['access', 'refresh'], 'readwrite');
            for (let key = 0; key < 70; key++) writing.objectStore('access').put(number, key);
            writing.objectStore('refresh').put(number, 0);
            return new Promise((done) => { writing.oncomplete = done; });
          };
          await write();
          IDBDatabase.prototype.transaction = function (...names) {
            const made = transaction.apply(this, names);
            write();
            return made;
          };
          const [copy] = JSON.parse(await eval(dump)).databases;
          return copy.stores.map(({ records }) => [records.length, ...new Set(records.map(({ value }) => value))]);
        }""",
        databases.dump_script(),
    )
    assert found == [[70, 1], [1, 1]]
    await page.context.close()


@pytest.mark.parametrize("value", ["new Uint8Array(100_000)", "'x'.repeat(100_000)", "new Blob(['x'.repeat(100_000)])"])
async def test_a_copy_stops_at_the_record_that_is_too_much(value: str, sites: Sites, browser: Any) -> None:
    """A database far over the cap is not read into the memory of its page."""
    page = await browser.new_page()
    await page.goto(sites.url("far-over", "/blank"))
    found = await page.evaluate(
        """async ([dump, value]) => {
          const request = indexedDB.open('tiles');
          request.onupgradeneeded = () => {
            const store = request.result.createObjectStore('tiles');
            for (let key = 0; key < 30; key++) store.put([eval(value)], key);
          };
          await new Promise((done) => { request.onsuccess = done; });
          const result = Object.getOwnPropertyDescriptor(IDBRequest.prototype, 'result').get;
          let size = 0;
          const valuesOf = (read) => (read instanceof IDBCursor ? [read.value] : Array.isArray(read) ? read : []);
          Object.defineProperty(IDBRequest.prototype, 'result', { get() {
            const read = result.call(this);
            for (const [each] of valuesOf(read).filter(Array.isArray)) size += each.length ?? 0;
            return read;
          } });
          const { arrayBuffer } = Blob.prototype;
          Blob.prototype.arrayBuffer = function () { size += this.size; return arrayBuffer.call(this); };
          return [JSON.parse(await eval(dump)).lost, size];
        }""",
        [databases.dump_script(250_000), value],
    )
    assert found[0] == [["tiles", "over the size cap"]]
    assert found[1] <= 300_000
    await page.context.close()


async def test_a_database_of_a_page_that_is_gone(sites: Sites, browser: Any) -> None:
    """A database written by a page that the agent has left is copied from a hidden page, without a request."""
    session = fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("left", "/idb-cyclic/login"))
        await page.wait_for_url("**/idb-cyclic")
        assert await shown(page) == "in"
        await page.goto(sites.url("elsewhere", "/blank"))
        before = sites.hits.copy()
        pages = len(context.pages)
    assert [hit for hit in sites.hits - before if hit[1] != "/favicon.ico"] == []
    assert pages == 1
    assert entry(session, sites.origin("left"))["indexedDBRich"][0]["name"] == "auth"


@pytest.mark.usefixtures("default_limits")
@pytest.mark.parametrize("ending", ["crashed", "hangs"])
async def test_a_database_of_a_page_that_answers_no_more(ending: str, sites: Sites, browser: Any) -> None:
    """A page that crashed, or hangs, is open and does not answer. What it has stored is read on a hidden page."""
    session = fresh()
    async with open_context(session, browser, checkpoint_after=None) as context:
        page = await context.new_page()
        await page.goto(sites.url(ending, "/idb-plain/login"))
        await page.wait_for_url("**/idb-plain")
        assert await shown(page) == "in"
        if ending == "crashed":
            with pytest.raises(Error):
                await page.goto("chrome://crash")
        else:
            await page.evaluate("setTimeout(() => { for (;;) {} }, 0)")
    assert "alice" in str(entry(session, sites.origin(ending)))


@pytest.mark.parametrize("way", ["directly", "by a redirect"])
async def test_what_a_busy_page_stores_before_it_sends_its_visitor_on(way: str, sites: Sites, browser: Any) -> None:
    """A page that is busy when it is left reports nothing of its last writes, and does not answer either."""
    host, elsewhere = f"busy-{way.rpartition(' ')[2]}", sites.url("elsewhere", "/blank")
    session = fresh()
    async with open_context(session, browser, checkpoint_after=None) as context:
        page = await context.new_page()
        await page.goto(sites.url(host, "/blank"))
        await asyncio.sleep(2 * follower._RECENT)  # the page is no new one
        target = elsewhere if way == "directly" else f"/redirect?to={elsewhere}"
        await page.evaluate(
            """(target) => void setTimeout(() => {
              localStorage.token = 'T';
              location.href = target;
              for (const end = performance.now() + 1000; performance.now() < end; );
            })""",
            target,
        )
        await page.wait_for_url(elsewhere)
    assert items(session, sites.origin(host)) == {"token": "T"}


@pytest.mark.parametrize("way", ["go_back", "goto"])
async def test_what_a_busy_page_stores_before_its_agent_leaves_it(way: str, sites: Sites, browser: Any) -> None:
    """The browser announces a navigation of the agent's when the page answers no more. A URL of its own may lead elsewhere."""
    elsewhere = sites.url("elsewhere", "/blank")
    session = fresh()
    async with open_context(session, browser, checkpoint_after=None) as context:
        page = await context.new_page()
        await page.goto(elsewhere)
        await page.goto(sites.url(way.replace("_", "-"), "/blank"))
        await asyncio.sleep(2 * follower._RECENT)  # the page is no new one
        async with page.expect_console_message():
            await page.evaluate(
                """() => void setTimeout(() => {
                  localStorage.token = 'T';
                  console.log('busy');
                  for (const end = performance.now() + 1000; performance.now() < end; );
                })"""
            )
        await (page.go_back() if way == "go_back" else page.goto(sites.url("goto", f"/redirect?to={elsewhere}")))
    assert items(session, sites.origin(way.replace("_", "-"))) == {"token": "T"}


@pytest.mark.usefixtures("default_limits")
async def test_a_page_that_hangs_does_not_hold_up_the_exit(sites: Sites, browser: Any) -> None:
    """A page in an endless loop costs a time limit, and what it wrote before is captured."""
    session = fresh()
    async with asyncio.timeout(45), open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("hang", "/local/login"))
        await page.wait_for_url("**/local")
        await shown(page)
        await capture_now(session)  # a checkpoint: the event of the write may come after the page hangs
        await page.evaluate("setTimeout(() => { for (;;) {} }, 0)")
    assert items(session, sites.origin("hang")) == {"token": "T\0\ud800ü"}


@pytest.mark.alone("four tabs together take less than four in turn")
async def test_tabs_on_their_way_do_not_hold_up_the_exit(sites: Sites, browser: Any) -> None:
    """None of them answers. Together they cost one time limit, and what they wrote before is captured."""
    hosts = [f"leaving{number}" for number in range(4)]
    session = fresh()
    going = []
    async with open_context(session, browser) as context:
        for host in hosts:
            page = await context.new_page()
            await page.goto(sites.url(host, "/local/login"))
            await page.wait_for_url("**/local")
            await shown(page)
            await page.route("**/*", lambda _: None)
            going.append(asyncio.ensure_future(page.goto(sites.url("slow", "/blank"))))
            await page.wait_for_event("request")
        began = time.monotonic()
    assert time.monotonic() - began < 3.5 * limit("COMMAND")
    assert [items(session, sites.origin(host)) for host in hosts] == [{"token": "T\0\ud800ü"}] * 4
    assert session.problems == []
    await asyncio.gather(*going, return_exceptions=True)


async def test_a_browser_that_closes_nothing_does_not_hold_up_the_exit(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a page of our own nor the context itself is waited for without an end (Chromium, with 30 contexts at once)."""
    in_the_end = asyncio.Event()

    async def never(_: object) -> None:
        await in_the_end.wait()

    set_limit(monkeypatch, "CONTEXT", 1.0)
    session = fresh()
    bound = open_context(session, browser)
    async with asyncio.timeout(50):
        context = await bound.__aenter__()
        page = await context.new_page()
        await page.goto(sites.url("never", "/idb-plain/login"))
        await page.wait_for_url("**/idb-plain")
        await shown(page)
        await page.goto(sites.url("elsewhere", "/blank"))
        with monkeypatch.context() as patch:
            patch.setattr(type(context), "close", never)
            await bound.__aexit__(None, None, None)
    assert "context_left_open" in kinds(session)
    assert entry(session, sites.origin("never"))["indexedDB"]
    in_the_end.set()
    await context.close()


async def test_a_browser_without_the_protocol_is_read_at_save_time(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Firefox and WebKit have no live mirror: cookies and web storage are captured at exit, and the limit is said."""

    def refuse(self: AsyncPlaywrightDriver, page: Any, followed: FollowedPage) -> Any:
        self._not_attached(page, Error("CDP session is only available in Chromium"))
        followed.is_attached = True
        yield from ()

    monkeypatch.setattr(AsyncPlaywrightDriver, "_attach", refuse)
    session = reused(storing(sites.origin("unseen"), token="T"))
    async with open_context(session, browser) as context:
        for path in ("/local/login", "/session/login"):
            await visited(context, sites.url("other-browser", path))
    origin = sites.origin("other-browser")
    assert items(session, origin) == items(session, origin, "sessionStorage") == {"token": "T\0\ud800ü"}
    assert items(session, sites.origin("unseen")) == {"token": "T"}
    assert kinds(session) == ["capture_limited"]


async def test_an_empty_visit_keeps_the_state(browser: Any, sites: Sites) -> None:
    """An agent that opens no page passes the state on."""
    state = storing(sites.origin("idle"), token="T")
    session = reused({**state, "cookies": [{"name": "a", "value": "b", "domain": "idle.localhost", "path": "/"}]})
    async with open_context(session, browser):
        pass
    assert items(session, sites.origin("idle")) == {"token": "T"}
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["a"]


async def test_misuse_is_named(browser: Any) -> None:
    """Entering twice and passing a storage state are errors that say what to do."""
    with pytest.raises(ConfigurationError, match=r"session-reuse import .*session\.storage_state"):
        open_context(fresh(), browser, storage_state={})
    bound = open_context(fresh(), browser)
    async with bound:
        with pytest.raises(LifecycleError):
            await bound.__aenter__()
