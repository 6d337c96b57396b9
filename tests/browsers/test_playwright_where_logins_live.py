"""Wherever a site keeps a login, the next agent has it, in a browser process that has never seen the site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from session_reuse.browsers.playwright import open_context
from tests.browsers.visits import PLACES, Place, entry, fresh, next_session, shown, visited

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_a_login_survives_the_browser(place: Place, sites: Sites, browser: Any, launch: Any) -> None:
    """A login made by one agent is there for the next, in a fresh browser process."""
    login, check = place.urls(sites)
    session = fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(login)
        await page.wait_for_url(lambda url: "login" not in url or "framed" in url)
        assert await shown(page) == "in"
    following = next_session(session)
    async with open_context(following, await launch()) as context:
        assert await visited(context, check) == "in"
    assert (session.problems, following.problems) == ([], [])


async def test_a_login_survives_many_agents(sites: Sites, browser: Any) -> None:
    """A state that is only passed on stays what it is, database copies included."""
    session = fresh()
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url("many", "/idb-rich/login")) == "in"
    first = entry(session, sites.origin("many"))
    for _ in range(2):
        session = next_session(session)
        async with open_context(session, browser) as context:
            assert await visited(context, sites.url("many", "/idb-rich")) == "in"
    assert entry(session, sites.origin("many")) == first


async def test_opfs_is_carried_when_asked_for(sites: Sites, browser: Any) -> None:
    """With `opfs=True` the files of an origin come back; without it they are not touched."""
    write = (
        "async () => { const root = await navigator.storage.getDirectory();"
        "const file = await (await root.getFileHandle('f', { create: true })).createWritable();"
        "await file.write('kept'); await file.close(); }"
    )
    read = (
        "async () => { const root = await navigator.storage.getDirectory();"
        "return (await (await root.getFileHandle('f')).getFile()).text(); }"
    )
    session = fresh()
    async with open_context(session, browser, opfs=True) as context:
        page = await context.new_page()
        await page.goto(sites.url("files", "/blank"))
        await page.evaluate(write)
    following = next_session(session)
    async with open_context(following, browser, opfs=True) as context:
        page = await context.new_page()
        await page.goto(sites.url("files", "/blank"))
        assert await page.evaluate(read) == "kept"
