"""Faults that cost logins, or hurt other agents, each as the smallest visit that shows it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import Error

from session_reuse import reusable_session
from session_reuse._browser import javascript
from session_reuse.browsers.playwright import attach_context, open_context
from session_reuse.testing import memory_manager
from tests.browsers.probes import follower_of, frames_with_a_session, leftovers, pending_origins
from tests.browsers.visits import (
    LAUNCH,
    checkpoints_of,
    entry,
    fresh,
    items,
    next_session,
    reused,
    shown,
    storing,
    visited,
)
from tests.harness.polling import until
from tests.harness.probes import capture_reason_of

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


HAS_DATABASE = """async () => {
  while (!(await indexedDB.databases()).length) await new Promise((later) => setTimeout(later, 10));
}"""


async def logged_in(sites: Sites, browser: Any, host: str, path: str = "/idb-plain") -> Any:
    """Return the session after a login of one agent, for the next."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url(host, f"{path}/login")) == "in"
    return next_session(session)


async def test_a_copy_that_is_cut_off_is_made_again(sites: Sites, browser: Any) -> None:
    """An agent that leaves while a checkpoint copies a database finds it saved."""
    session = fresh()
    checkpoints_of(session)
    async with open_context(session, browser, checkpoint_after=0.05) as context:
        page = await context.new_page()
        await page.goto(sites.url("cut-off", "/idb-plain/login"))
        await page.wait_for_url("**/idb-plain")
        assert await shown(page) == "in"
        await page.evaluate("const end = performance.now() + 1500; while (performance.now() < end);")
    assert entry(session, sites.origin("cut-off"))["indexedDB"]


async def test_a_context_of_which_nothing_could_be_read_is_no_capture(browser: Any) -> None:
    """The stored login is kept, and nothing vouches for it."""
    session = reused(storing("https://a.example", token="T"))

    async def refuse() -> None:
        raise Error("the browser is gone")

    async with open_context(session, browser) as context:
        context.cookies = refuse
    assert capture_reason_of(session) == "nothing could be read from the browser"
    assert items(session, "https://a.example") == {"token": "T"}


async def test_a_context_that_is_closed_while_it_is_attached_does_not_hold_up_the_start(browser: Any) -> None:
    """Playwright never answers a call that adds cookies to a context on its way out."""
    session = reused({"cookies": [{"name": "a", "value": "b", "domain": "a.example", "path": "/"}], "origins": []})
    context = await browser.new_context()
    closing = asyncio.create_task(context.close())
    async with asyncio.timeout(10), attach_context(session, context):
        await closing
    assert capture_reason_of(session) == "nothing could be read from the browser"
    assert session.storage_state["cookies"]


async def test_a_context_that_was_not_opened_is_no_capture(browser: Any) -> None:
    """The exit would store an empty session in place of none."""
    session = fresh()
    with pytest.raises(Error):
        async with open_context(session, browser, color_scheme="nonsense"):
            pass
    assert capture_reason_of(session) == "no context was opened"


@pytest.mark.parametrize("how", ["by the page's own request", "by a page of another site", "by the agent"])
async def test_a_logout_that_the_browser_carries_out_counts(how: str, sites: Sites, browser: Any) -> None:
    """`Clear-Site-Data` and `Storage.clearDataForOrigin` send no event for a page that was left."""
    host = f"cleared-{how.rpartition(' ')[2]}"
    session = fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        for path in ("/cookie/login?kind=httponly", "/local/login", "/idb-plain/login"):
            await page.goto(sites.url(host, path))
            assert await shown(page) == "in"
        if how == "by the page's own request":
            await page.evaluate("fetch('/clear')")
        else:
            await page.goto(sites.url("elsewhere", "/blank"))
            if how == "by the agent":
                cdp = await context.new_cdp_session(page)
                kinds = {"origin": sites.origin(host), "storageTypes": "all"}
                await cdp.send("Storage.clearDataForOrigin", kinds)
            else:
                await page.evaluate(
                    "(url) => fetch(url, { mode: 'no-cors', credentials: 'include' })", sites.url(host, "/clear")
                )
        await asyncio.sleep(0.1)
    assert [each for each in session.storage_state["origins"] if each["origin"] == sites.origin(host)] == []


@pytest.mark.parametrize("way", ["goto", "close"])
async def test_what_a_page_stores_when_it_is_left_is_captured(way: str, sites: Sites, browser: Any) -> None:
    """It may ask to be told of its end long after it was loaded."""
    session, host = fresh(), f"leaving-{way}"
    async with open_context(session, browser, checkpoint_after=None) as context:
        page = await context.new_page()
        await page.goto(sites.url(host, "/blank"))
        await page.evaluate("addEventListener('pagehide', () => localStorage.setItem('token', 'T'))")
        if way == "goto":
            await page.goto(sites.url("elsewhere", "/blank"))
        else:
            await page.close()
    assert items(session, sites.origin(host)) == {"token": "T"}


async def test_a_storage_that_is_denied_is_not_taken_for_an_empty_one(browser: Any) -> None:
    """A page without a storage says nothing about what its site has stored."""
    page = await browser.new_page()
    await page.goto("data:text/html,denied")
    with pytest.raises(Error, match="SecurityError"):
        await page.evaluate(javascript.call("storage_read"))
    await page.close()


async def test_a_second_tab_does_not_replace_the_session_storage_of_the_first(sites: Sites, browser: Any) -> None:
    """Keys of several tabs are merged."""
    session = fresh()
    async with open_context(session, browser) as context:
        first, second = await context.new_page(), await context.new_page()
        for page, key in ((first, "token"), (second, "tab")):
            await page.goto(sites.url("merged", "/blank"))
            await page.evaluate(f"sessionStorage.setItem('{key}', '1')")
        await second.close()
    assert items(session, sites.origin("merged"), "sessionStorage") == {"token": "1", "tab": "1"}


@pytest.mark.parametrize("is_isolated", [False, True])
async def test_a_frame_of_the_same_site_is_captured(is_isolated: bool, sites: Sites, browser: Any) -> None:
    """What a frame stores is captured, its databases too, also where it has its own process."""
    session = await logged_in(sites, browser, "login.renew")
    path = "/isolated/framed" if is_isolated else "/framed"
    inner = sites.url("login.renew", "/isolated/renew" if is_isolated else "/renew")
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("app.renew", f"{path}?{inner}"))
        assert await shown(page) == "in"
    saved = entry(session, sites.origin("login.renew"))
    assert items(session, sites.origin("login.renew")) == {"renewed": "1"}
    assert "renewed" in str(saved["indexedDB"])


async def test_nothing_of_ours_is_seen_while_an_agent_works(sites: Sites, browser: Any) -> None:
    """No page, no paused document: neither in the agent's own context nor in that of another."""
    session = await logged_in(sites, browser, "unseen")
    opened: list[Any] = []
    async with open_context(session, browser, checkpoint_after=0.05) as context, await browser.new_context() as plain:
        context.on("page", lambda page: opened.append(page))  # noqa: PLW0108 - Playwright writes on it
        page, other = await context.new_page(), await plain.new_page()
        for tab, wanted in ((page, "in"), (other, "out")):
            await tab.goto(sites.url("unseen", "/idb-plain"))
            assert await shown(tab) == wanted
        await page.goto(sites.url("elsewhere", "/blank"))
        await asyncio.sleep(0.3)
    assert opened == [page]


async def test_a_page_cannot_tell_our_context_from_a_plain_one(sites: Sites, browser: Any) -> None:
    """Globals, natives, prototypes, listeners and entries are those of a plain context, before and after the restore."""
    look = """() => {
      const names = (object) => Object.getOwnPropertyNames(object).filter((name) => isNaN(name)).sort();
      const natives = [Storage.prototype.setItem, indexedDB.open, JSON.parse, Promise.all, Object.defineProperty].map(String);
      const entries = performance.getEntries().map(({ entryType }) => entryType).filter((type) => !/resource|frame/.test(type));
      return JSON.stringify([names(window), names(Storage.prototype), names(IDBFactory.prototype), natives, entries,
        window.seen.slice(0, 4), history.length, Object.keys(sessionStorage)]);
    }"""
    session = await logged_in(sites, browser, "mirror")
    entries = [*session.storage_state["origins"], storing(sites.origin("poor"), k="v")["origins"][0]]
    found = []
    async with (
        open_context(reused({"cookies": [], "origins": entries}), browser) as context,
        await browser.new_context() as plain,
    ):
        for each in (context, plain):
            page = await each.new_page()
            seen = []
            for host in ("other", "mirror", "mirror", "poor", "other"):
                await page.goto(sites.url(host, "/early"))
                seen.append(await page.evaluate(look))
            found.append(seen)
    assert found[0] == found[1]


async def test_a_context_without_javascript_loses_nothing(sites: Sites, browser: Any) -> None:
    """There is nothing to restore into, and the stored state stays."""
    session = reused(storing(sites.origin("scriptless"), token="T"))
    async with open_context(session, browser, java_script_enabled=False) as context:
        page = await context.new_page()
        await page.goto(sites.url("scriptless", "/blank"))
    assert items(session, sites.origin("scriptless")) == {"token": "T"}


async def test_a_storage_filled_to_the_quota_costs_no_other_origin_its_save(sites: Sites, browser: Any) -> None:
    """Excess is left out and reported."""
    session = fresh()
    async with open_context(session, browser) as context:
        await visited(context, sites.url("modest", "/local/login"))
        page = await context.new_page()
        await page.goto(sites.url("greedy", "/blank"))
        await page.evaluate(
            "localStorage.setItem('token', 'T'); localStorage.setItem('cache', '\\u00fc'.repeat(5_000_000))"
        )
    assert items(session, sites.origin("greedy")) == {"token": "T"}
    assert items(session, sites.origin("modest"))
    assert session.problems
    assert {problem.kind for problem in session.problems} <= {"too_large", "capture_limited"}


async def test_files_cookies_and_names_cost_no_other_origin_its_save(sites: Sites, browser: Any) -> None:
    """A site may fill its private files, its cookies, and give its databases long names."""
    fill = """async () => {
      const root = await navigator.storage.getDirectory();
      const file = await (await root.getFileHandle('big', { create: true })).createWritable();
      await file.write('x'.repeat(300_000));
      await file.close();
      for (let index = 0; index < 60; index++) document.cookie = `c${index}=${'x'.repeat(3_900)}`;
      const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 128 }, false, ['encrypt']);
      const opened = indexedDB.open('n'.repeat(300_000));
      opened.onupgradeneeded = () => opened.result.createObjectStore('s').put(key, 'k');
      await new Promise((done) => (opened.onsuccess = done));
    }"""
    async with (
        memory_manager(max_state_bytes=100_000) as manager,
        reusable_session("a", manager=manager) as session,
        open_context(session, browser, opfs=True) as context,
    ):
        await visited(context, sites.url("modest", "/local/login"))
        page = await context.new_page()
        await page.goto(sites.url("greedy", "/blank"))
        await page.evaluate(fill)
    assert session.save_outcome == "saved"
    assert items(session, sites.origin("modest"))
    assert (
        {"too_large", "lost"}
        <= {problem.kind for problem in session.problems}
        <= {"too_large", "lost", "capture_limited"}
    )
    assert max(len(problem.detail) for problem in session.problems) < 1_100


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_database_that_cannot_be_restored_brings_back_no_other(
    sites: Sites, browser: Any, *, is_open: bool
) -> None:
    """One that the page has deleted stays deleted, at its next visit and in the save. The bad one stays stored."""
    put = """name => new Promise((done) => {
      const opened = indexedDB.open(name, 1);
      opened.onupgradeneeded = () => opened.result.createObjectStore('s').put(new Date(1), 'k');
      opened.onsuccess = () => done(opened.result.close());
    })"""
    url, origin = sites.url("one-bad", "/blank"), sites.origin("one-bad")
    session = fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(url)
        for name in ("good", "bad"):
            await page.evaluate(put, name)
    session = next_session(session)
    (bad,) = [each for each in entry(session, origin)["indexedDBRich"] if each["name"] == "bad"]
    bad["dump"] = bad["dump"].replace('["d",1]', '["newer",1]')
    there = "async () => (await indexedDB.databases()).map((each) => each.name)"
    async with await browser.new_context() if is_open else open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(url)
        async with attach_context(session, context) if is_open else nullcontext():
            await page.evaluate(HAS_DATABASE)
            assert await page.evaluate(there) == ["good"]
            await page.evaluate(
                "new Promise((done) => (indexedDB.deleteDatabase('good').onsuccess = done)).then(() => 1)"
            )
            for host in ("elsewhere", "one-bad"):
                await page.goto(sites.url(host, "/blank"))
            assert await page.evaluate(there) == []
    assert [each["name"] for each in entry(session, origin)["indexedDBRich"]] == ["bad"]


async def test_a_logout_of_a_full_session_storage_stays(sites: Sites, browser: Any) -> None:
    """A storage that is restored to its quota has no room for a receipt, and is confirmed all the same."""
    fill = """() => {
      sessionStorage.setItem('token', 'T');
      for (let size = 2 ** 20, number = 0; size >= 1; size /= 2) {
        try {
          for (;;) sessionStorage.setItem(`c${number++}`, 'x'.repeat(size));
        } catch {}
      }
    }"""
    url, session = sites.url("full", "/blank"), fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(url)
        await page.evaluate(fill)
    session = next_session(session)
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(url)
        assert await page.evaluate("sessionStorage.getItem('token')") == "T"
        await until(lambda: not pending_origins(session))
        await page.evaluate("sessionStorage.clear()")
        for host in ("elsewhere", "full"):
            await page.goto(sites.url(host, "/blank"))
        assert await page.evaluate("sessionStorage.getItem('token')") is None
    assert items(session, sites.origin("full"), "sessionStorage") == {}


@pytest.mark.parametrize(
    ("top", "inner", "is_credentialless"),
    [
        ("evil.wixsite.com", "mine.wixsite.com", False),
        ("evil.me.uk", "mine.me.uk", False),
        ("a.localhost", "b.a.localhost", True),
        ("a.localhost", "a.localhost", True),
    ],
)
async def test_a_login_enters_no_storage_but_its_own(
    sites: Sites, launch: Any, top: str, inner: str, *, is_credentialless: bool
) -> None:
    """A frame under another site of a shared domain, or without credentials, has a storage of its own."""
    rules = "--host-resolver-rules=MAP *.wixsite.com 127.0.0.1, MAP *.me.uk 127.0.0.1"
    args = [*LAUNCH["args"], rules, "--disable-features=LocalNetworkAccessChecks"]
    origin, outer = (sites.origin("x").replace("x.localhost", host) for host in (inner, top))
    session = reused(storing(origin, token="T"))
    async with open_context(session, await launch(args=args)) as context:
        page = await context.new_page()
        await page.goto(f"{outer}/blank")
        await page.evaluate("localStorage.clear()")
        await page.evaluate(
            """([url, credentialless]) => new Promise((onload) => document.body.append(
              Object.assign(document.createElement('iframe'), { credentialless, onload, src: url })))""",
            [f"{origin}/blank", is_credentialless],
        )
        assert await page.frames[1].evaluate("({ ...localStorage })") == {}


async def test_a_listener_of_ours_never_keeps_a_busy_page_open(sites: Sites, browser: Any) -> None:
    """A page in an endless loop can be left: there is no `beforeunload` of ours for it to answer."""
    async with open_context(fresh(), browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("loop", "/blank"))
        await page.evaluate("setTimeout(() => { for (;;) {} }, 0)")
        async with asyncio.timeout(45):
            await page.goto(sites.url("elsewhere", "/blank"))


async def test_many_navigations_leave_nothing_behind(sites: Sites, browser: Any) -> None:
    """Frames, tabs and tasks are released when their documents are gone."""
    session = fresh()
    bound = open_context(session, browser)
    async with bound as context:
        page = await context.new_page()
        for number in range(20):
            await page.goto(sites.url(f"visit{number % 8}", "/framed?/blank"))
        closing = [await context.new_page() for _ in range(3)]
        for tab in closing:
            await tab.goto(sites.url("visit0", "/blank"))
            await tab.close()
        await until(lambda: leftovers(bound)[0] <= 1)
        follower = follower_of(bound)
        assert len(follower.tabs) == 1
        assert len(follower.tabs[0].frames) <= 2
        assert leftovers(bound)[1:] == (1, 0)


async def test_frames_that_were_removed_are_forgotten(sites: Sites, browser: Any) -> None:
    """A site that renews its token in a frame makes a new one each time."""
    bound = open_context(fresh(), browser, checkpoint_after=None)
    async with bound as context:
        page = await context.new_page()
        await page.goto(sites.url("app.renewing", "/isolated/blank"))
        for _ in range(3):
            add = "(url) => { const frame = document.createElement('iframe'); frame.src = url; document.body.append(frame); }"
            await page.evaluate(add, sites.url("login.renewing", "/isolated/blank"))
            await until(lambda: len(follower_of(bound).open_frames()) == 2)
            await page.evaluate("document.querySelector('iframe').remove()")
            await until(lambda: len(follower_of(bound).open_frames()) == 1)
        assert len(frames_with_a_session(bound)) == 1


@pytest.mark.alone("20 agents in one browser keep two cores busy for 10 s")
async def test_twenty_agents_in_one_browser_are_all_logged_in(sites: Sites, launch: Any) -> None:
    """None of them holds up another, or gets its login."""
    browser = await launch()
    session = await logged_in(sites, browser, "crowd")
    (stored,) = session.storage_state["origins"]

    async def agent(number: int) -> tuple[str, str]:
        named = [{"name": "who", "value": str(number)}]
        own = reused({"cookies": [], "origins": [{**stored, "localStorage": named}]})
        async with open_context(own, browser) as context:
            page = await context.new_page()
            await page.goto(sites.url("crowd", "/idb-plain"), timeout=60_000)
            return await shown(page, timeout=30_000), await page.evaluate("localStorage.who")

    found = await asyncio.gather(*map(agent, range(20)))
    assert found == [("in", str(number)) for number in range(20)]
