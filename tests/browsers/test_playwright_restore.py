"""What is restored is restored once, to whom it belongs, and to no one else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse._browser.drivers.playwright_async import AsyncPlaywrightDriver
from session_reuse.browsers.playwright import open_context
from tests.browsers.probes import has_scripts, pending_origins
from tests.browsers.visits import entry, fresh, items, kinds, next_session, reused, shown, storing, visited
from tests.harness.polling import until

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("way", ["reload", "replace"])
async def test_a_page_that_clears_its_storage_is_not_refilled(way: str, sites: Sites, browser: Any) -> None:
    """A page that finds its token stale, clears its storage and starts again ends logged out, not in a loop."""
    host = f"stale-{way}"
    sites.hits.clear()
    session = reused(storing(sites.origin(host), token="stale"))
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url(host, f"/stale/{way}")) == "out"
    assert sites.hits[host, f"/stale/{way}"] == 2
    assert items(session, sites.origin(host)) == {}


@pytest.mark.parametrize("way", ["reload", "replace"])
async def test_a_process_that_is_late_does_not_fill_a_storage_again(
    way: str, sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script is still registered in the second document of its origin, which knows that it is not the first."""
    release = asyncio.Event()
    add_script = AsyncPlaywrightDriver.add_script
    host = f"late-{way}"
    sites.hits.clear()
    session = reused(storing(sites.origin(host), token="stale"))
    async with open_context(session, browser) as context:

        async def held(driver: Any, source: str) -> Any:
            await release.wait()
            return await add_script(driver, source)

        monkeypatch.setattr(AsyncPlaywrightDriver, "add_script", held)
        monkeypatch.setattr(AsyncPlaywrightDriver, "remove_script", lambda *_: release.wait())
        assert await visited(context, sites.url(host, f"/stale/{way}")) == "out"
        release.set()
    assert sites.hits[host, f"/stale/{way}"] == 2
    assert items(session, sites.origin(host)) == {}


async def test_a_clock_of_playwrights_fills_no_storage_again(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hides from scripts that were registered after it where their document has come from."""
    state = storing(sites.origin("clock-first"), token="T")
    state["origins"] += storing(sites.origin("clock"), token="stale")["origins"]
    session, release = reused(state), asyncio.Event()
    async with open_context(session, browser) as context:
        await context.clock.install()
        await (await context.new_page()).goto(sites.url("clock-first", "/blank"))
        await until(lambda: pending_origins(session) == {sites.origin("clock")})
        monkeypatch.setattr(AsyncPlaywrightDriver, "add_script", lambda *_: release.wait())
        monkeypatch.setattr(AsyncPlaywrightDriver, "remove_script", lambda *_: release.wait())
        assert await visited(context, sites.url("clock", "/stale/reload")) == "out"
        release.set()
    assert items(session, sites.origin("clock")) == {}


async def test_a_process_that_is_late_does_not_fill_a_database_again(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that finds its login stale, deletes its database and goes on at once is logged out in the next document, too."""
    session, release = fresh(), asyncio.Event()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("late-database", "/idb-plain/login")) == "in"
    session = next_session(session)
    async with open_context(session, browser) as context:
        monkeypatch.setattr(AsyncPlaywrightDriver, "add_script", lambda *_: release.wait())
        monkeypatch.setattr(AsyncPlaywrightDriver, "remove_script", lambda *_: release.wait())
        page = await context.new_page()
        await page.goto(sites.url("late-database", "/stale/database"), wait_until="commit")
        await page.wait_for_url("**/idb-plain")
        assert await shown(page) == "out"
        release.set()
    (database,) = entry(session, sites.origin("late-database"))["indexedDB"]
    assert [store["records"] for store in database["stores"]] == [[], []]


async def test_a_document_that_goes_on_at_once_leaves_its_databases_to_the_next(sites: Sites, browser: Any) -> None:
    """A site that sends its visitors from `/` to its application is logged in there."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("moved", "/idb-rich/login")) == "in"
    session = next_session(session)
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("moved", "/moved"), wait_until="commit")
        await page.wait_for_url("**/idb-rich")
        assert await shown(page) == "in"
        assert await page.evaluate("sessionStorage.length") == 0
    assert session.problems == []


@pytest.mark.parametrize(("kind", "lists"), [("plain", "?lists"), ("rich", "")])
async def test_a_page_that_replaces_natives_gets_its_databases(
    kind: str, lists: str, sites: Sites, browser: Any
) -> None:
    """A page that wraps `put` would get its own values wrapped again. None of what it replaces is called or read."""
    host, session = f"patched-{kind}", fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url(host, f"/idb-{kind}/login")) == "in"
    session = next_session(session)
    async with open_context(session, browser) as context:
        page = await context.new_page()
        async with page.expect_console_message() as message:
            await page.goto(sites.url(host, f"/patched{lists}"), wait_until="commit")
        assert (await message.value).text == "[]"
        assert await visited(context, sites.url(host, f"/idb-{kind}")) == "in"
    assert session.problems == []


async def test_a_storage_that_was_cleared_stays_clear_after_a_detour(sites: Sites, browser: Any) -> None:
    """A page that logs out and goes through another site comes back logged out."""
    back = sites.url("detour", "/stale/elsewhere")
    over = sites.url("elsewhere", "/stale/elsewhere")
    session = reused(storing(sites.origin("detour"), token="stale"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(f"{back}?{over}?{back}")
        assert await shown(page) == "out"
        await page.goto(back)
        assert await shown(page) == "out"


async def test_a_logout_stays_one_while_other_tabs_are_on_their_way(sites: Sites, browser: Any) -> None:
    """Tabs that wait for slow sites give no script back. The tabs opened after them do, and so do they when they arrive."""
    session = reused(storing(sites.origin("prompt"), token="T"))
    async with open_context(session, browser) as context:
        slow = [await context.new_page() for _ in range(2)]
        page = await context.new_page()
        arrive = asyncio.Event()

        async def answer_late(route: Any) -> None:
            await arrive.wait()
            await route.continue_()

        going = []
        for number, tab in enumerate(slow):
            await tab.route("**/*", answer_late)
            going.append(asyncio.ensure_future(tab.goto(sites.url(f"slow{number}", "/blank"))))
            await tab.wait_for_event("request")
        await page.goto(sites.url("prompt", "/blank"), timeout=20_000)
        await page.evaluate("localStorage.clear()")
        await page.goto(sites.url("elsewhere", "/blank"))
        await page.goto(sites.url("prompt", "/blank"))
        assert await page.evaluate("localStorage.length") == 0
        arrive.set()
        await asyncio.gather(*going)
        for tab in slow:
            await tab.goto(sites.url("prompt", "/blank"))
            assert await tab.evaluate("localStorage.length") == 0
    assert session.problems == []


async def test_a_refreshed_token_is_not_rolled_back(sites: Sites, browser: Any) -> None:
    """Single-use refresh tokens survive reloads, detours, second tabs and the next agent."""
    host, url = "rotating", sites.url("rotating", "/rotating")
    sites.refresh_tokens[host] = "r1"
    session = reused(storing(sites.origin(host), refresh="r1"))
    for _ in range(2):
        async with open_context(session, browser) as context:
            page = await context.new_page()
            await page.goto(url)
            assert await shown(page) == "in"
            await page.goto(sites.url("other", "/blank"))
            await page.goto(url)
            assert await shown(page) == "in"
            await page.reload()
            assert await shown(page) == "in"
            assert await visited(context, url) == "in"
        session = next_session(session)
    assert items(session, sites.origin(host)) == {"refresh": sites.refresh_tokens[host]}


async def test_two_tabs_of_one_origin(sites: Sites, browser: Any) -> None:
    """Tabs opened at once are both logged in, and neither is filled over what the other has written."""
    host, url = "tabs", sites.url("tabs", "/inner")
    session = reused(storing(sites.origin(host), token="T"))
    async with open_context(session, browser) as context:
        first, second = await context.new_page(), await context.new_page()
        await first.goto(url)
        await first.evaluate("localStorage.setItem('token', 'newer')")
        await second.goto(url)
        assert (await shown(first), await shown(second)) == ("in", "in")
    assert items(session, sites.origin(host)) == {"token": "newer"}


async def test_a_redirect_chain_over_three_origins(sites: Sites, browser: Any) -> None:
    """An app with an old token is led over two other origins, each restored when it is met, and is logged in."""
    app, hub, idp = (sites.origin(host) for host in ("app", "hub", "idp"))
    state = {
        "cookies": [],
        "origins": [
            storing(app, app="old")["origins"][0],
            storing(hub, tenant="t")["origins"][0],
            {**storing(idp, idp="i")["origins"][0], "sessionStorage": [{"name": "ticket", "value": "t"}]},
        ],
    }
    session = reused(state)
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("app", "/sso/app"))
        await page.wait_for_url("**code=fresh")
        assert await shown(page) == "in"
    assert items(session, app) == {"app": "fresh"}
    assert items(session, hub) == {"tenant": "t"}
    assert items(session, idp, "sessionStorage") == {"ticket": "t"}
    assert session.problems == []


async def test_a_popup_login(sites: Sites, browser: Any) -> None:
    """What a popup of another origin writes before it closes itself is captured, and its opener's token too."""
    session = fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("app", "/popup"))
        await page.click("button")
        await page.wait_for_function("document.documentElement.dataset.login === 'in'")
    assert items(session, sites.origin("app")) == {"token": "T"}
    assert items(session, sites.origin("idp")) == {"idp": "I"}


@pytest.mark.parametrize(("top", "framed"), [("frame", "frame"), ("frame", "inner.frame"), ("a.frame", "b.frame")])
async def test_a_frame_of_the_same_site_is_logged_in(top: str, framed: str, sites: Sites, browser: Any) -> None:
    """A frame that shares its storage with top-level pages of its origin finds it filled."""
    session = reused(storing(sites.origin(framed), token="T"))
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url(top, f"/framed?{sites.url(framed, '/inner')}")) == "in"
    assert items(session, sites.origin(framed)) == {"token": "T"}


async def test_a_frame_of_another_site_gets_nothing(sites: Sites, browser: Any) -> None:
    """A frame under another site is not filled, and a later visit at the top is."""
    session = reused(storing(sites.origin("third"), token="T"))
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("embedder", f"/framed?{sites.url('third', '/inner')}")) == "out"
        assert await visited(context, sites.url("third", "/inner")) == "in"


async def test_a_page_that_overrides_storage_methods(sites: Sites, browser: Any) -> None:
    """A site that replaces the methods of Storage, JSON and Promise is restored and captured anyway."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("hostile", "/hostile/login")) in ("in", "out")
    session = next_session(session)
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("hostile", "/hostile")) == "in"
    assert items(session, sites.origin("hostile")) == {"token": "H"}


async def test_no_page_can_see_the_data_of_another_origin(sites: Sites, browser: Any) -> None:
    """A page finds nothing of ours in its window, and nothing of other origins in its storage."""
    session = reused(storing(sites.origin("rich"), token="T"))
    async with open_context(session, browser) as context, await browser.new_context() as plain:
        names = "Object.getOwnPropertyNames(window).filter((name) => isNaN(name)).sort()"
        pages = [await each.new_page() for each in (context, plain)]
        for page in pages:
            await page.goto(sites.url("poor", "/blank"))
        assert await pages[0].evaluate(names) == await pages[1].evaluate(names)
        assert await pages[0].evaluate("localStorage.length + sessionStorage.length") == 0


async def test_a_large_origin_is_restored_before_the_start(sites: Sites, browser: Any) -> None:
    """Megabytes of one origin do not travel with every page: they are there when the agent starts, whichever page wrote them."""
    origin = sites.origin("large")
    session = reused(storing(origin, token="T", big="x" * 4_900_000))
    session.storage_state["origins"][0]["sessionStorage"] = [{"name": "s", "value": "S"}]
    async with open_context(session, browser) as context:
        assert context.pages == []
        page = await context.new_page()
        await page.goto(sites.url("large", "/blank"))
        assert await page.evaluate("[(localStorage.big || ``).length, sessionStorage.s]") == [4_900_000, "S"], (
            session.problems
        )
    assert kinds(session) == ["restored_early"]


async def test_many_origins_are_each_filled_once(sites: Sites, browser: Any) -> None:
    """Whatever the order of visits."""
    hosts = [f"many{number}" for number in range(12)]
    entries = [storing(sites.origin(host), token=host, pad="x" * 20_000)["origins"][0] for host in hosts]
    session = reused({"cookies": [], "origins": entries})
    async with open_context(session, browser) as context:
        page = await context.new_page()
        for host in [*hosts[::2], *hosts[1::2]]:
            await page.goto(sites.url(host, "/blank"))
            assert await page.evaluate("localStorage.token") == host
            await page.evaluate("localStorage.clear()")
        for host in hosts:
            await page.goto(sites.url(host, "/blank"))
            assert await page.evaluate("localStorage.length") == 0
    assert session.storage_state["origins"] == []


async def test_one_bad_cookie_does_not_cost_the_others(sites: Sites, browser: Any) -> None:
    """Cookies of other tools, expired, malformed or impossible ones are dropped one by one, and each is reported."""
    good = {"name": "sid", "value": "S", "domain": "bad.localhost", "path": "/"}
    bad = [
        {**good, "name": "old", "expires": 5.0},
        {**good, "name": "__Host-x", "domain": ".bad.localhost", "secure": True},
        {**good, "name": "split;name"},
        {**good, "name": "long", "value": "x" * 5000},
        {**good, "name": "nowhere", "domain": "not a host"},
        {**good, "name": "surrogate", "value": "\ud800"},
        {**good, "name": "opaque", "partitionKeyOpaque": True},
    ]
    odd = [
        {**good, "name": "loose", "sameSite": "None"},
        {**good, "name": "extension", "sameSite": "no_restriction", "hostOnly": True, "storeId": "0"},
        {**good, "name": "driver", "expiry": 4_000_000_000, "sourceScheme": "NonSecure", "secure": True},
    ]
    session = reused({"cookies": [*bad, good, *odd], "origins": []})
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("bad", "/cookie")) == "in"
        names = {cookie["name"] for cookie in await context.cookies()}
    assert names == {"sid", "loose", "extension", "driver"}
    assert sorted(kinds(session)) == ["cookie_adjusted", "cookie_expired", *["cookie_rejected"] * 6]
    assert all("SECRET" not in problem.detail for problem in session.problems)


async def test_a_cookie_that_only_the_browser_refuses_is_dropped_alone(sites: Sites, browser: Any) -> None:
    """What slips through our own checks costs itself, not the others."""
    good = {"name": "sid", "value": "S", "domain": "late.localhost", "path": "/"}
    refused = {**good, "name": "p", "partitionKey": "not a site", "secure": True, "sameSite": "None"}
    session = reused({"cookies": [refused, good, {**good, "name": "b"}], "origins": []})
    async with open_context(session, browser) as context:
        assert {cookie["name"] for cookie in await context.cookies()} == {"sid", "b"}
    assert kinds(session) == ["cookie_rejected"]


async def test_states_of_playwright_itself_are_restored(sites: Sites, browser: Any) -> None:
    """A state that Playwright has saved with IndexedDB is restored, values in its own encoding included."""
    async with await browser.new_context() as plain:
        page = await plain.new_page()
        await page.goto(sites.url("native", "/idb-plain/login"))
        await page.wait_for_url("**/idb-plain")
        write = (
            "async () => { const db = await open(); await put(db, 'loose',"
            " { d: new Date(5), m: new Map([[1n, new Set([NaN])]]), b: new Uint8Array([7]) }); db.close(); }"
        )
        await page.evaluate(write)
        state = await plain.storage_state(indexed_db=True)
    session = reused(dict(state))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("native", "/idb-plain"))
        assert await shown(page) == "in"
        get = (
            "async () => { const db = await open(); const v = (await done(db.transaction('loose').objectStore('loose')"
            ".getAll()))[0]; db.close(); return [v.d.getTime(), v.m.get(1n).has(NaN), v.b[0]]; }"
        )
        assert await page.evaluate(get) == [5, True, 7]


async def test_origins_that_are_none_are_kept_and_reported(sites: Sites, browser: Any) -> None:
    """Origins of extensions and the like are carried on unchanged. Ports and IPv6 addresses are origins like others."""
    odd = storing("chrome-extension://abc", k="v")["origins"][0]
    six = storing("http://[::1]:8080", k="v")["origins"][0]
    session = reused({"cookies": [], "origins": [odd, six]})
    async with open_context(session, browser) as context:
        await context.new_page()
    assert session.storage_state["origins"] == [odd, six]
    assert kinds(session) == ["origin_unusable"]


async def test_a_database_that_is_opened_at_once_waits_for_the_restore(sites: Sites, browser: Any) -> None:
    """A page that opens its database in its first script finds the records, however many there are."""
    store = {"name": "s", "autoIncrement": True, "indexes": []}
    records = [{"key": number, "value": {"n": number}} for number in range(2000)]
    database = {"name": "auth", "version": 1, "stores": [{**store, "records": records}]}
    origin = sites.origin("quick")
    session = reused({"cookies": [], "origins": [{"origin": origin, "localStorage": [], "indexedDB": [database]}]})
    count = (
        "window.found = new Promise((resolve) => { const r = indexedDB.open('auth'); r.onsuccess = () => {"
        "r.result.transaction('s').objectStore('s').count().onsuccess = (e) => resolve(e.target.result); }; });"
    )
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.add_init_script(count)
        await page.goto(sites.url("quick", "/blank"))
        assert await page.evaluate("window.found") == 2000
    assert entry(session, origin)["indexedDB"] == [database]


async def test_a_failed_first_navigation_does_not_use_up_the_restore(sites: Sites, browser: Any) -> None:
    """A site that was down at the first attempt is logged in at the second."""
    session = reused(storing(sites.origin("down"), token="T"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await context.route("**/inner", lambda route: route.abort())
        with pytest.raises(Exception, match="ERR_FAILED"):
            await page.goto(sites.url("down", "/inner"))
        await context.unroute("**/inner")
        await page.goto(sites.url("down", "/inner"))
        assert await shown(page) == "in"


async def test_a_served_script_is_gone_after_the_first_page(sites: Sites, browser: Any) -> None:
    """After its origin's first page a script no longer travels with other pages."""
    session = reused(storing(sites.origin("once"), token="T"))
    bound = open_context(session, browser)
    async with bound as context:
        await visited(context, sites.url("once", "/inner"))
        await until(lambda: not has_scripts(bound))
