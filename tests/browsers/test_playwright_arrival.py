"""The stored state is lost to no one for not having arrived, and a document that only looks like the first uses nothing up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import Error

from session_reuse._browser.drivers.playwright_async import AsyncPlaywrightDriver
from session_reuse._browser.plan import RestoreScripts
from session_reuse._browser.storage import databases
from session_reuse.browsers.playwright import attach_context, open_context
from tests.browsers.probes import pending_origins
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

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

FIRST = ["/error/dropped", "/error/503", "/error/401", "/sandboxed"]


@pytest.mark.parametrize("then", ["the same tab", "another tab"])
@pytest.mark.parametrize("first", FIRST)
async def test_a_first_document_that_is_none_uses_nothing_up(first: str, then: str, sites: Sites, browser: Any) -> None:
    """After a network error, an empty error page or a sandboxed document, the next page finds the login."""
    session = reused(storing(sites.origin("unsteady"), token="T"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await _try(page, sites.url("unsteady", first))
        await asyncio.sleep(0.2)  # long enough to be taken for a page
        await until(lambda: sites.origin("unsteady") in pending_origins(session))
        page = page if then == "the same tab" else await context.new_page()
        await page.goto(sites.url("unsteady", "/inner"))
        assert await shown(page) == "in"
    assert items(session, sites.origin("unsteady")) == {"token": "T"}


@pytest.mark.parametrize("first", FIRST)
async def test_a_visit_that_came_to_nothing_loses_nothing(first: str, sites: Sites, browser: Any) -> None:
    """An agent that saw nothing of a site but this leaves its login as it was stored."""
    state = storing(sites.origin("unsteady"), token="T")
    state["origins"][0]["sessionStorage"] = [{"name": "ticket", "value": "K"}]
    session = reused(state)
    async with open_context(session, browser) as context:
        await _try(await context.new_page(), sites.url("unsteady", first))
        await asyncio.sleep(0.2)
    assert items(session, sites.origin("unsteady")) == {"token": "T"}
    assert items(session, sites.origin("unsteady"), "sessionStorage") == {"ticket": "K"}


async def _try(page: Any, url: str) -> None:
    try:
        await page.goto(url)
    except Error as error:
        assert "net::ERR" in str(error)  # noqa: PT017 - a sandboxed document raises nothing
        await until(lambda: page.url.startswith("chrome-error:"))


async def test_a_first_document_that_an_agent_goes_back_to(sites: Sites, browser: Any) -> None:
    """A site that did not answer at first is filled when the agent comes back to it."""
    session = reused(storing(sites.origin("later"), token="T"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.route("**/inner", lambda route: route.abort())
        await _try(page, sites.url("later", "/inner"))
        await page.unroute("**/inner")
        await page.goto(sites.url("elsewhere", "/blank"))
        await page.go_back()
        assert await shown(page) == "in"
    assert items(session, sites.origin("later")) == {"token": "T"}


async def test_a_service_worker_does_not_answer_for_us(sites: Sites, browser: Any) -> None:
    """A site whose worker serves a shell for any page is filled anyway, and none of its scripts runs meanwhile."""
    origin = sites.origin("shell")
    database = {"name": "auth", "version": 3, "stores": []}
    entries = [{**storing(origin, token="T")["origins"][0], "indexedDB": [database]}]
    context = await browser.new_context()
    assert await visited(context, sites.url("shell", "/register")) == "in"
    page = context.pages[0]
    await page.goto(sites.url("elsewhere", "/blank"))
    session = reused({"cookies": [], "origins": entries})
    async with attach_context(session, context):
        await page.goto(sites.url("shell", "/inner"), timeout=10_000)
        assert await shown(page) == "in"
    assert items(session, origin) == {"token": "T"}
    assert session.problems == []
    await context.close()


async def test_a_frame_without_an_origin_uses_nothing_up(sites: Sites, browser: Any) -> None:
    """A sandboxed frame of the same site has a URL of the origin, and none of its storage."""
    session = reused(storing(sites.origin("a.boxed"), token="T"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("boxed", f"/sandboxing?{sites.url('a.boxed', '/inner')}"))
        await page.frames[-1].wait_for_function("document.documentElement.dataset.login === 'out'")
        await until(lambda: sites.origin("a.boxed") in pending_origins(session))
        assert await visited(context, sites.url("a.boxed", "/inner")) == "in"
    assert items(session, sites.origin("a.boxed")) == {"token": "T"}


async def test_a_login_that_could_not_be_filled_in_is_kept(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser whose disk is full starts logged out, and what its pages store now does not replace the login."""
    monkeypatch.setattr(RestoreScripts, "code_source", lambda self: f"delete self.{self.name}")
    origin = sites.origin("refused")
    database = {"name": "auth", "version": 3, "stores": []}
    state = storing(origin, token="T")
    state["origins"][0]["indexedDB"] = [database]
    session = reused(state)
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("refused", "/inner"))
        assert await shown(page) == "out"
        await page.evaluate("localStorage.setItem('seen', '1')")
    assert items(session, origin) == {"token": "T", "seen": "1"}
    assert entry(session, origin)["indexedDB"] == [database]
    assert "restore_failed" in kinds(session)


@pytest.mark.parametrize("kind", ["plain", "cyclic"])
async def test_a_database_outlives_a_document_that_goes_on_at_once(kind: str, sites: Sites, browser: Any) -> None:
    """A first document that redirects by script takes none of the restored databases with it."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("hasty", f"/idb-{kind}/login")) == "in"
    for _ in range(3):
        session = next_session(session)
        async with open_context(session, browser) as context:
            page = await context.new_page()
            await page.goto(sites.url("hasty", f"/to/idb-{kind}"))
            await page.wait_for_url(f"**.localhost:*/idb-{kind}")
            assert await shown(page) == "in"


async def test_a_database_that_is_deleted_while_it_is_copied_stays_deleted(sites: Sites, browser: Any) -> None:
    """A copy that comes to a database that was deleted must not make an empty one: the page could not log in any more."""
    page = await browser.new_page()
    await page.goto(sites.url("race", "/idb-plain/login"))
    assert await shown(page) == "in"
    found = await page.evaluate(
        """async (dump) => {
          const databases = indexedDB.databases.bind(indexedDB);
          indexedDB.databases = async () => {
            const found = await databases();
            await new Promise((done) => { indexedDB.deleteDatabase('auth').onsuccess = done; });
            indexedDB.databases = databases;
            return found;
          };
          return [JSON.parse(await eval(dump)), await databases()];
        }""",
        databases.dump_script(),
    )
    assert found == [{"databases": [], "lost": [], "names": []}, []]
    await page.context.close()


@pytest.mark.parametrize(("change", "versions"), [("deleteDatabase('auth')", []), ("open('auth', 9)", [9])])
async def test_a_copy_is_in_nobodys_way(change: str, versions: list[int], sites: Sites, browser: Any) -> None:
    """A page that deletes or upgrades a database while it is copied is not `blocked`. The copy starts again."""
    page = await browser.new_page()
    await page.goto(sites.url("in-the-way", "/idb-plain/login"))
    assert await shown(page) == "in"
    found = await page.evaluate(
        """async ([dump, change]) => {
          let changed, isBlocked = false;
          const { result } = await new Promise((done) => { indexedDB.open('auth').onsuccess = ({ target }) => done(target); });
          const filling = result.transaction('loose', 'readwrite');
          for (let number = 0; number < 10_000; number++) filling.objectStore('loose').put(number);
          await new Promise((done) => { filling.oncomplete = done; });
          result.close();
          const transaction = IDBDatabase.prototype.transaction;
          IDBDatabase.prototype.transaction = function (...names) {
            changed ||= new Promise((done) => {
              const request = eval(`indexedDB.${change}`);
              request.onblocked = () => { isBlocked = true; };
              request.onsuccess = () => { request.result?.close(); done(); };
            });
            return transaction.apply(this, names);
          };
          const copy = JSON.parse(await eval(dump));
          await changed;
          return [isBlocked, copy.databases.map(({ version }) => version), copy.lost];
        }""",
        [databases.dump_script(), change],
    )
    assert found == [False, versions, []]
    await page.context.close()


@pytest.mark.parametrize("size", [1, 200_000])
async def test_an_open_page_is_newer_than_the_store(size: int, sites: Sites, browser: Any) -> None:
    """Whatever the size: what is open and not empty stays unchanged, and is saved over the stored state."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(sites.url("shared", "/blank"))
    await page.evaluate("localStorage.setItem('token', 'newer')")
    session = reused(storing(sites.origin("shared"), token="old", refresh="R", padding="x" * size))
    async with attach_context(session, context):
        assert await page.evaluate("({ ...localStorage })") == {"token": "newer"}
    assert items(session, sites.origin("shared")) == {"token": "newer", "refresh": "R", "padding": "x" * size}
    assert kinds(session) == ["origin_open"]
    await context.close()


async def test_an_open_page_without_anything_gets_all(sites: Sites, browser: Any) -> None:
    """An open page that is empty is filled as it stands, databases too."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("waiting", "/idb-rich/login")) == "in"
    session = next_session(session)
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(sites.url("waiting", "/blank"))
    async with attach_context(session, context):
        await page.goto(sites.url("waiting", "/idb-rich"))
        assert await shown(page) == "in"
    assert entry(session, sites.origin("waiting"))["indexedDBRich"]
    assert kinds(session) == []
    await context.close()


async def test_a_database_that_cannot_be_made_is_kept(sites: Sites, browser: Any) -> None:
    """One that fails for itself costs neither the other nor the stored state of it, in an open page and in any other."""
    store = {"name": "users", "autoIncrement": False, "keyPath": "id", "indexes": [], "records": [{"value": {"id": 1}}]}
    broken = {"name": "broken", "version": 1, "stores": [{**store, "records": [{"value": {"no": "id"}}]}]}
    databases = [broken, {"name": "sound", "version": 1, "stores": [store]}]
    for host, is_open in (("half", False), ("open-half", True)):
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(sites.url(host if is_open else "elsewhere", "/blank"))
        session = reused({"cookies": [], "origins": [{"origin": sites.origin(host), "indexedDB": databases}]})
        async with attach_context(session, context):
            await page.goto(sites.url(host, "/blank"))
            await page.evaluate("new Promise((done) => { indexedDB.open('sound', 1).onsuccess = done; })")
            found = await page.evaluate("indexedDB.databases()")
            assert [database["name"] for database in found] == ["sound"]
        saved = entry(session, sites.origin(host))["indexedDB"]
        assert {database["name"] for database in saved} == {"broken", "sound"}
        assert kinds(session) == ["restore_failed"]
        await context.close()


async def test_an_open_page_that_knows_less_costs_no_login(sites: Sites, browser: Any) -> None:
    """An open page that holds something else than a login is left unchanged, and so is the login that is stored."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(sites.url("tracked", "/blank"))
    await page.evaluate("localStorage.setItem('_ga', '1'); localStorage.setItem('theme', 'dark')")
    session = reused(storing(sites.origin("tracked"), token="T", theme="dark"))
    async with attach_context(session, context):
        assert await page.evaluate("localStorage.token") is None
    assert items(session, sites.origin("tracked")) == {"token": "T", "theme": "dark", "_ga": "1"}
    await context.close()


async def test_a_database_that_an_open_page_holds_blocks_nobody(sites: Sites, browser: Any) -> None:
    """Attaching does not wait for a page to let go of an older version of a database, nor ask it to."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(sites.url("held", "/blank"))
    await page.evaluate(
        """() => new Promise((done) => {
          const request = indexedDB.open('auth', 1);
          request.onsuccess = () => {
            window.held = request.result;
            held.onversionchange = () => { window.disturbed = true; };
            done();
          };
        })"""
    )
    database = {"name": "auth", "version": 3, "stores": []}
    origin = {"origin": sites.origin("held"), "localStorage": [], "indexedDB": [database]}
    async with asyncio.timeout(25):
        async with attach_context(reused({"cookies": [], "origins": [origin]}), context):
            assert await page.evaluate("window.disturbed") is None
    await context.close()


@pytest.mark.usefixtures("default_limits")
async def test_a_tab_on_its_way_does_not_hold_up_the_start(sites: Sites, browser: Any) -> None:
    """A tab that waits for a slow site takes our scripts when it arrives. The agent starts before."""
    context = await browser.new_context()
    page, slow = await context.new_page(), await context.new_page()
    arrive = asyncio.Event()

    async def answer(route: Any) -> None:
        await arrive.wait()
        await route.continue_()

    await slow.route("**/*", answer)
    going = asyncio.ensure_future(slow.goto(sites.url("slow", "/inner")))
    await asyncio.sleep(0.2)
    session = reused(storing(sites.origin("punctual"), token="T"))
    async with asyncio.timeout(40):
        async with attach_context(session, context):
            await page.goto(sites.url("punctual", "/inner"))
            assert await shown(page) == "in"
            arrive.set()
            await going
    await context.close()


@pytest.mark.parametrize(
    "where", ["pagehide", "pageswap", "visibilitychange", "document-visibilitychange", "inner-pagehide", "frame"]
)
async def test_what_a_document_stores_last_is_read(where: str, sites: Sites, browser: Any) -> None:
    """A page that stores something while it is being left, or closed, is read again afterwards, unseen by the agent."""
    session, opened = fresh(), []
    async with open_context(session, browser, checkpoint_after=0.2) as context:
        context.on("page", lambda page: opened.append(page))  # noqa: PLW0108 - Playwright writes on it
        saved = checkpoints_of(session)
        for host, leave in (("left", "goto"), ("closed", "close")):
            page, url = await context.new_page(), sites.url(f"{host}.{where}", f"/last/{where}")
            if where == "frame":
                url = sites.url(f"top.{host}.{where}", f"/framed?{sites.url(f'{host}.{where}', '/last/pagehide')}")
            await page.goto(url)
            await until(lambda host=host: f"/{host}." in str(saved[-1:]))
            assert not await page.evaluate("window.wasCalled")
            if leave == "goto":
                await page.goto(sites.url("elsewhere", "/blank"))
            elif where != "pageswap":  # there is none in a page that is closed
                await page.close()
    for host in ("left", "closed")[: 1 if where == "pageswap" else 2]:
        assert items(session, sites.origin(f"{host}.{where}")) == {"token": "last"}
    assert len(opened) == 2  # those of the agent


@pytest.mark.alone("the answers of a page that is left come in time, and so do its events")
async def test_a_page_that_does_nothing_at_the_end_is_not_read_again(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most pages have told all when they are left. Reading them again would cost each agent time."""
    asked: list[str] = []
    monkeypatch.setattr(AsyncPlaywrightDriver, "open_blank_page", lambda *_: asked.append("blank page"))
    async with open_context(fresh(), browser) as context:
        page = await context.new_page()
        for host in ("one", "two", "three"):
            await page.goto(sites.url(host, "/local/login"))
            assert await shown(page) == "in"
            await page.wait_for_load_state()
            await asyncio.sleep(0.2)
    assert asked == []
