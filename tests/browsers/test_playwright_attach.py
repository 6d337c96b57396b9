"""A context that others use too gets the session's state, and keeps everything of its own."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import Error

from session_reuse._browser.drivers.playwright_async import AsyncPlaywrightDriver
from session_reuse._browser.drivers.tasks import background
from session_reuse.browsers.playwright import attach_context, open_context
from tests.browsers.patience import set_limit
from tests.browsers.visits import LAUNCH, fresh, items, kinds, next_session, reused, shown, storing, visited
from tests.harness.chromium import plain_chromium
from tests.harness.polling import until

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
PLAIN = {**LAUNCH, "executable_path": plain_chromium()}
"""A browser with pages of its address bar, which are none of the agent's."""


async def test_a_persistent_context(sites: Sites, playwright: Any, tmp_path: Any) -> None:
    """A login of one persistent profile is reused in another, which stays open at the end."""
    session = fresh()
    for folder, path, expected in (("a", "/idb-rich/login", "in"), ("b", "/idb-rich", "in")):
        context = await playwright.chromium.launch_persistent_context(str(tmp_path / folder), **PLAIN)
        async with attach_context(session, context) as attached:
            assert attached is context
            assert await visited(attached, sites.url("profile", path)) == expected
        assert len(context.pages) == 2
        await context.close()
        session = next_session(session)


async def test_a_large_origin_gets_into_a_context_without_a_page(sites: Sites, browser: Any) -> None:
    """Such a context comes from a fixture. It has no page yet over which an origin could be filled."""
    origin = sites.origin("vacant")
    session = reused(storing(origin, token="T", big="x" * 600_000))
    context = await browser.new_context()
    async with attach_context(session, context):
        assert context.pages == []
        page = await context.new_page()
        await page.goto(sites.url("vacant", "/blank"))
        assert await page.evaluate("[localStorage.token, (localStorage.big || '').length]") == ["T", 600_000]
    assert kinds(session) == ["restored_early"]
    await context.close()


async def test_databases_of_a_profile_are_newer(sites: Sites, playwright: Any, tmp_path: Any) -> None:
    """A profile that has its own databases keeps them, and no origin of it is visited for their sake."""
    session, folder = fresh(), str(tmp_path / "profile")
    for _ in range(2):
        opened: list[Any] = []
        context = await playwright.chromium.launch_persistent_context(folder, **LAUNCH)
        context.on("page", lambda page, opened=opened: opened.append(page))
        async with attach_context(session, context) as attached:
            assert opened == []
            if not session.reused:
                assert await visited(attached, sites.url("owner", "/idb-plain/login")) == "in"
            assert await visited(attached, sites.url("owner", "/idb-plain")) == "in"
        await context.close()
        session = next_session(session)
        assert session.storage_state["origins"][0]["indexedDB"][0]["name"] == "auth"


async def test_many_databases_do_not_hold_up_the_start(sites: Sites, launch: Any) -> None:
    """Origins with databases are filled when they are asked for, in a context that exists already too."""
    session = fresh()
    async with open_context(session, await launch()) as context:
        assert await visited(context, sites.url("data0", "/idb-plain/login")) == "in"
    (stored,) = session.storage_state["origins"]
    state = {"cookies": [], "origins": [{**stored, "origin": sites.origin(f"data{number}")} for number in range(40)]}
    context = await (await launch()).new_context()
    page = await context.new_page()
    async with asyncio.timeout(45), attach_context(reused(state), context):
        assert len(context.pages) == 1
        for number in (0, 39):
            await page.goto(sites.url(f"data{number}", "/idb-plain"))
            assert await shown(page) == "in"
    await page.goto(sites.url("data20", "/idb-plain"))
    assert await shown(page) == "out"  # nobody holds documents any more


async def test_a_shared_browser_over_cdp(sites: Sites, playwright: Any, launch: Any) -> None:
    """Over CDP the default context gets our cookies and storage, keeps the cookies of others, and goes on living."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    await launch(**PLAIN | {"args": [*LAUNCH["args"], f"--remote-debugging-port={port}"]})
    shared = await playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
    context = shared.contexts[0] if shared.contexts else await shared.new_context()
    await context.add_cookies([{"name": "theirs", "value": "1", "domain": "them.localhost", "path": "/"}])
    theirs = await context.new_page()
    await theirs.goto(sites.url("open", "/inner"))
    await theirs.evaluate("localStorage.setItem('token', 'live')")
    empty = await context.new_page()
    await empty.goto(sites.url("empty", "/inner"))
    entries = [storing(sites.origin(host), token="old")["origins"][0] for host in ("open", "empty", "closed")]
    cookie = {"name": "sid", "value": "S", "domain": "mine.localhost", "path": "/"}
    session = reused({"cookies": [cookie], "origins": entries})
    async with attach_context(session, context) as attached:
        assert await visited(attached, sites.url("mine", "/cookie")) == "in"
        assert await visited(attached, sites.url("closed", "/inner")) == "in"
        await empty.reload()
        assert await shown(empty) == "in"
        assert await theirs.evaluate("localStorage.token") == "live"
    assert {cookie["name"] for cookie in await context.cookies()} == {"theirs", "sid"}
    assert not any("close" in vars(page) for page in context.pages)  # each has its own again
    assert "origin_open" in kinds(session)
    assert items(session, sites.origin("open")) == {"token": "live"}
    assert items(session, sites.origin("closed")) == {"token": "old"}
    await theirs.evaluate("localStorage.clear()")
    await theirs.reload()
    assert await shown(theirs) == "out"
    await shared.close()


async def test_a_context_is_left_as_it_was(sites: Sites, launch: Any) -> None:
    """Neither a regular end nor a cancelled start leaves a script, a listener or a hook of ours behind."""
    context = await (await launch()).new_context()
    pages = [await context.new_page() for _ in range(3)]
    before = [_listeners(target) for target in (context, *pages)]
    hosts = [f"attached{number}" for number in range(12)]
    entries = [storing(sites.origin(host), token="T")["origins"][0] for host in hosts]

    async def agent() -> None:
        async with attach_context(reused({"cookies": [], "origins": entries}), context):
            await asyncio.sleep(30)

    for delay in (0.005, 0.02, 0.05, 0.1, 0.4):
        task = asyncio.create_task(agent())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not background)
    for host in hosts:
        assert await visited(context, sites.url(host, "/inner")) == "out"
    assert [_listeners(target) for target in (context, *pages)] == before
    assert not any("close" in vars(target) for target in (context, *pages))


async def test_a_tab_that_arrives_later_gives_our_scripts_back(
    sites: Sites, launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that a slow tab takes only after the end of ours is taken out of the context then."""
    for name in ("ATTACH", "COMMAND", "INIT_SCRIPT"):
        set_limit(monkeypatch, name, 0.5)
    context = await (await launch()).new_context()
    slow, arrive = await context.new_page(), asyncio.Event()

    async def answer(route: Any) -> None:
        await arrive.wait()
        await route.continue_()

    await slow.route("**/*", answer)
    going = asyncio.ensure_future(slow.goto(sites.url("slow", "/inner")))
    await asyncio.sleep(0.2)
    async with attach_context(reused(storing(sites.origin("afterwards"), token="T")), context):
        pass
    arrive.set()
    await going
    await until(lambda: not background)
    assert await visited(context, sites.url("afterwards", "/inner")) == "out"


async def test_a_tab_that_goes_on_while_it_is_filled_takes_nothing_to_another_site(
    sites: Sites, launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame may hold the document of another site when the script that fills it arrives."""
    context = await (await launch()).new_context()
    page, send = await context.new_page(), AsyncPlaywrightDriver.send_to
    await page.goto(sites.url("left", "/blank"))

    async def send_late(driver: Any, cdp: Any, method: str, params: Any, limit: float | None = None) -> Any:
        if method == "Page.createIsolatedWorld":
            await page.goto(sites.url("stranger", "/blank"))
        return await send(driver, cdp, method, params, limit)

    session = reused(storing(sites.origin("left"), token="T"))
    with monkeypatch.context() as patched:
        patched.setattr(AsyncPlaywrightDriver, "send_to", send_late)
        async with attach_context(session, context):
            assert await page.evaluate("[location.hostname, localStorage.length]") == ["stranger.localhost", 0]
    assert items(session, sites.origin("left")) == {"token": "T"}
    assert "restore_failed" in kinds(session)


def _listeners(target: Any) -> dict[str, int]:
    emitter = target._impl_obj
    return {event: number for event in emitter.event_names() if (number := len(emitter.listeners(event)))}


async def test_a_tab_that_is_closed_while_we_attach(sites: Sites, launch: Any) -> None:
    """Playwright refuses a script for all tabs when one of them closes meanwhile. The others get theirs anyway."""
    context = await (await launch()).new_context()
    page, closing = await context.new_page(), await context.new_page()
    add = context.add_init_script

    async def add_while_a_tab_closes(source: str) -> Any:
        context.add_init_script = add
        await closing.close()
        raise Error("Target page, context or browser has been closed")

    context.add_init_script = add_while_a_tab_closes
    session = reused(storing(sites.origin("attached"), token="T"))
    async with attach_context(session, context):
        await page.goto(sites.url("attached", "/inner"))
        assert await shown(page) == "in"
        await page.evaluate("localStorage.clear()")
        await page.goto(sites.url("elsewhere", "/blank"))
        await page.goto(sites.url("attached", "/inner"))
        assert await shown(page) == "out"
    assert session.problems == []
