"""Whatever leads to an origin finds it filled, once, and at no cost to others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse._browser.plan import RestoreScripts
from session_reuse.browsers.http_clients import open_httpx_async
from session_reuse.browsers.playwright import open_context
from tests.browsers.probes import has_scripts
from tests.browsers.visits import fresh, items, kinds, reused, shown, storing, visited
from tests.harness.polling import until

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


def storing_all(sites: Sites, *hosts: str, token: str = "T") -> dict[str, Any]:
    """Return a state with a token for each host."""
    return {"cookies": [], "origins": [storing(sites.origin(host), token=token)["origins"][0] for host in hosts]}


async def go(page: Any, url: str) -> None:
    """Lead a page to a URL otherwise than by `goto`, as a link does."""
    await page.evaluate("(url) => { location.href = url }", url)
    await page.wait_for_url(url)


async def test_the_session_storage_of_the_page_asked_for_first(sites: Sites, browser: Any) -> None:
    """Both of its storages are filled, once: another tab of the same origin starts with its own sessionStorage."""
    state = storing_all(sites, "both")
    state["origins"][0]["sessionStorage"] = [{"name": "view", "value": "S"}]
    session = reused(state)
    bound = open_context(session, browser)
    async with bound as context:
        found = []
        for _ in range(2):
            page = await context.new_page()
            await page.goto(sites.url("both", "/inner"))
            found.append(await page.evaluate("[localStorage.token, sessionStorage.view ?? null]"))
            await until(lambda: not has_scripts(bound))
        assert found == [["T", "S"], ["T", None]]
    assert session.problems == []


async def test_a_tab_on_its_way_keeps_no_other_waiting(sites: Sites, browser: Any) -> None:
    """A tab whose site does not answer takes no script and gives none back. The next one is logged in, and out, anyway."""
    session = reused(storing_all(sites, "prompt"))
    async with open_context(session, browser) as context:
        stuck, page = await context.new_page(), await context.new_page()
        await stuck.route("**/*", lambda _: None)
        going = asyncio.ensure_future(stuck.goto(sites.url("elsewhere", "/blank")))
        await stuck.wait_for_event("request")
        await page.goto(sites.url("prompt", "/inner"), timeout=20_000)
        assert await shown(page) == "in"
        await page.evaluate("localStorage.clear()")
        for host, path in (("elsewhere", "/blank"), ("prompt", "/inner")):
            await page.goto(sites.url(host, path))
        assert await shown(page) == "out"
        await stuck.close()
        assert isinstance((await asyncio.gather(going, return_exceptions=True))[0], Exception)
    assert session.problems == []


@pytest.mark.parametrize("way", ["goto", "again", "frame", "link", "script", "popup", "noopener", "redirect", "form"])
async def test_whatever_leads_to_an_origin_finds_it_filled(way: str, sites: Sites, browser: Any) -> None:
    """New tabs, links, popups with and without an opener, server redirects and form posts meet the same storage."""
    host = f"by-{way}"
    url = sites.url(host, "/inner")
    session = reused(storing_all(sites, host, "bystander"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        if way not in ("goto", "frame", "redirect"):
            await page.goto(sites.url("elsewhere", "/blank"))
        if way in ("goto", "again"):
            await page.goto(url)
        elif way == "frame":
            await page.main_frame.goto(url)
        elif way == "redirect":
            await page.goto(sites.url("bystander", f"/redirect?to={sites.url('other', f'/redirect?to={url}')}"))
        elif way == "form":
            form = f"<form method=post action={sites.url(host, '/inner')}><button>go</button></form>"
            await page.set_content(form)
            await page.click("button")
            await page.wait_for_url("**/cookie")  # where the answer to the post leads
            assert await page.evaluate("localStorage.token") == "T"
        elif way in ("popup", "noopener"):
            async with context.expect_page() as opened:
                await page.evaluate(f"void window.open('{url}', '', '{'noopener' if way == 'noopener' else ''}')")
            page = await opened.value
        else:
            link = "document.body.innerHTML = `<a href=${url}>go</a>`; document.querySelector('a').click()"
            await page.evaluate(f"(url) => {{ {link if way == 'link' else 'location.href = url'} }}", url)
            await page.wait_for_url(url)
        assert way == "form" or await shown(page) == "in"
        assert (await page.evaluate("window.history.length")) <= 3
    assert session.problems == []


async def test_a_storage_filled_on_a_hidden_page_is_filled_once(sites: Sites, browser: Any) -> None:
    """A page that was led to, cleared its storage and is led to again stays logged out."""
    session = reused(storing_all(sites, "gone"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(elsewhere := sites.url("elsewhere", "/blank"))
        await page.evaluate(
            "(url) => { location.href = url }", f"{sites.url('gone', '/stale/elsewhere')}?{elsewhere}#1"
        )
        await page.wait_for_url("**/blank#1")
        for tab in (page, await context.new_page()):
            await tab.goto(sites.url("gone", "/inner"))
            assert await shown(tab) == "out"
    assert session.storage_state["origins"] == []


async def test_tabs_that_ask_at_once_wait_for_the_same_filling(sites: Sites, browser: Any) -> None:
    """Tabs, links and popups that meet at one origin are all logged in."""
    url = sites.url("crowd", "/inner")
    session = reused(storing_all(sites, "crowd"))
    async with open_context(session, browser) as context:
        tabs = [await context.new_page() for _ in range(4)]
        for tab in tabs[2:]:
            await tab.goto(sites.url("elsewhere", "/blank"))
        await asyncio.gather(*(tab.goto(url) for tab in tabs))
        assert [await shown(tab) for tab in tabs] == ["in"] * 4
    assert session.problems == []


async def test_a_tab_does_not_count_on_another_one_that_is_busy(
    sites: Sites, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document that is there is not filled yet when its process has no time: until it is, others are filled, too."""
    code = RestoreScripts.code_source
    busy = "if (location.hash === '#busy') { const end = Date.now() + 2000; while (Date.now() < end) {} }"
    monkeypatch.setattr(RestoreScripts, "code_source", lambda scripts: f"{busy}{code(scripts)}")
    url = sites.url("crowd-busy", "/inner")
    is_answered = asyncio.Event()

    async def answer_late(route: Any) -> None:
        await is_answered.wait()
        await route.continue_()

    async with open_context(reused(storing_all(sites, "crowd-busy")), browser) as context:
        first, second = await context.new_page(), await context.new_page()
        await second.route("**/inner", answer_late)
        arrival = asyncio.create_task(second.goto(url))
        await first.goto(f"{url}#busy", wait_until="commit")
        await asyncio.sleep(0.5)
        is_answered.set()
        await arrival
        assert await shown(second) == "in"
        assert await shown(first) == "in"
        await first.evaluate("localStorage.clear()")
        assert await visited(context, url) == "out"


async def test_a_first_try_that_failed_does_not_use_up_the_restore(sites: Sites, browser: Any) -> None:
    """A site that was down for one tab is logged in in another one, and in the same one."""
    url = sites.url("down-once", "/inner")
    session = reused(storing_all(sites, "down-once"))
    async with open_context(session, browser) as context:
        first, second = await context.new_page(), await context.new_page()
        await first.route("**/inner", lambda route: route.abort())
        with pytest.raises(Exception, match="ERR_FAILED"):
            await first.goto(url)
        await first.unroute("**/inner")
        assert await visited(context, url) == "in"
        await second.goto(sites.url("elsewhere", "/blank"))
        for tab in (second, first):
            await tab.goto(url)
            assert await shown(tab) == "in"
        await first.evaluate("localStorage.clear()")
        await first.goto(url)
        assert await shown(first) == "out"


async def test_a_tab_that_is_led_astray_gives_its_script_back(sites: Sites, browser: Any) -> None:
    """A tab sent to an origin that redirects it to another leaves the first to be filled later, once."""
    session = reused(storing_all(sites, "astray", "aim"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("astray", f"/redirect?to={sites.url('aim', '/inner')}"))
        assert await shown(page) == "in"
        assert await visited(context, sites.url("astray", "/inner")) == "in"
        await page.evaluate("localStorage.clear()")
        await page.goto(sites.url("aim", "/inner"))
        assert await shown(page) == "out"
    assert items(session, sites.origin("astray")) == {"token": "T"}


async def test_contexts_of_one_browser_get_their_own(sites: Sites, browser: Any) -> None:
    """Agents that share a browser, and start at the same moment, never get one another's login."""
    url = sites.url("shared", "/inner")

    async def agent(token: str) -> list[str | None]:
        session = reused(storing_all(sites, "shared", token=token))
        async with open_context(session, browser) as context:
            page = await context.new_page()
            await page.goto(sites.url("elsewhere", "/blank"))
            await page.goto(url)
            return [await page.evaluate("localStorage.token"), *kinds(session)]

    async def stranger() -> list[str | None]:
        async with await browser.new_context() as context:
            page = await context.new_page()
            await page.goto(url)
            return [await page.evaluate("localStorage.getItem('token')")]

    found = await asyncio.gather(agent("A"), stranger(), agent("B"), agent("C"), stranger())
    assert found == [["A"], [None], ["B"], ["C"], [None]]


async def test_the_agents_own_routes_and_scripts(sites: Sites, browser: Any) -> None:
    """A route that lets requests pass, and an init script that stores something, do not cost the login."""
    session = reused(storing_all(sites, "routed", "routed-too", "mocked", "mocked-link"))
    async with open_context(session, browser) as context:
        await context.route("**/*", lambda route: route.continue_())
        await context.route("**/mock", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html"))
        page = await context.new_page()
        await page.goto(sites.url("mocked", "/mock"))
        assert await page.evaluate("localStorage.token") == "T"
        await page.add_init_script("try { localStorage.setItem('mine', '1'); } catch {}")
        await page.goto(sites.url("routed", "/inner"))
        assert await shown(page) == "in"
        tab = await context.new_page()
        await tab.add_init_script("try { localStorage.setItem('mine', '1'); } catch {}")
        await tab.goto(sites.url("routed-too", "/inner"))
        assert await shown(tab) == "in"
        await go(page, sites.url("mocked-link", "/mock"))
        assert await page.evaluate("localStorage.token") == "T"
    for host in ("routed", "routed-too"):
        assert items(session, sites.origin(host)) == {"token": "T", "mine": "1"}
    assert session.problems == []


async def test_a_url_with_a_user_in_it(sites: Sites, browser: Any) -> None:
    """Credentials in a URL are no part of its origin."""
    session = reused(storing_all(sites, "basic"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("elsewhere", "/blank"))
        await page.evaluate(
            "(url) => { location.href = url }", sites.url("basic", "/inner").replace("//", "//user:word@")
        )
        await page.wait_for_url("**/inner")
        assert await shown(page) == "in"
    assert session.problems == []


async def test_what_a_hidden_page_could_not_fill_is_reported(sites: Sites, browser: Any) -> None:
    """More than a storage holds is restored as far as it goes. The page comes anyway."""
    state = storing_all(sites, "full")
    state["origins"][0]["localStorage"].append({"name": "</script>", "value": "x" * 6_000_000})
    session = reused(state)
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("full", "/inner")) == "in"
    where = sites.origin("full")
    assert [(problem.where, problem.reason) for problem in session.problems if problem.kind == "restore_failed"] == [
        (where, "localStorage: QuotaExceededError")
    ]


async def test_two_contexts_of_one_session_keep_both_logins(sites: Sites, browser: Any) -> None:
    """Each captures the whole state. What the other one has changed meanwhile stays, a logout too."""
    session = reused(storing_all(sites, "shop"))
    async with open_context(session, browser) as one, open_context(session, browser) as other:
        assert await visited(one, sites.url("mail", "/local/login")) == "in"
        assert await visited(other, sites.url("bank", "/cookie/login?kind=persistent")) == "in"
        page = await one.new_page()
        await page.goto(sites.url("shop", "/blank"))
        await page.evaluate("localStorage.clear()")
    assert items(session, sites.origin("mail"))
    assert not items(session, sites.origin("shop"))
    assert [cookie["domain"] for cookie in session.storage_state["cookies"]] == ["bank.localhost"]


async def test_an_http_client_beside_a_browser_keeps_its_cookies(sites: Sites, browser: Any) -> None:
    """It renews a cookie while the context is open, which is captured after it."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("shop", "/local/login")) == "in"
        async with open_httpx_async(session) as client:
            client.cookies.set("api", "1", domain="shop.localhost", path="/")
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["api"]
    assert items(session, sites.origin("shop"))
