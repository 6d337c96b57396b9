"""No script of a page can tell that its storage was restored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse.browsers.playwright import open_context
from tests.browsers.visits import kinds, reused, storing

if TYPE_CHECKING:
    from session_reuse import BrowserSession
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

RECORDS = 500
"""So many that a document which goes on at once is left before they are there."""


def _session(origin: str) -> BrowserSession:
    state = storing(origin, token="T")
    records = [{"key": number, "value": {"user": "alice"}} for number in range(RECORDS)]
    store = {"name": "users", "autoIncrement": False, "keyPath": None, "indexes": [], "records": records}
    session_storage = [{"name": "ticket", "value": "K"}]
    databases = [{"name": "auth", "version": 3, "stores": [store]}]
    state["origins"][0] |= {"sessionStorage": session_storage, "indexedDB": databases}
    return reused(state)


async def _seen(page: Any) -> dict[str, Any]:
    """Return what `/watching` has seen. Nothing is evaluated in the page's own world."""
    seen = json.loads(str(await page.locator("html").get_attribute("data-seen")))
    assert {"token"} <= set(seen["keys"]) <= {"ticket", "token"}
    return seen


async def _settled(page: Any) -> dict[str, Any]:
    await page.locator("html[data-seen]").wait_for(state="attached")
    seen = await _seen(page)
    assert (set(seen["stores"]), seen["records"]) == ({"users"}, RECORDS)
    assert set(seen["databases"]) <= {"auth"}
    return seen


async def test_a_page_sees_what_it_has_stored_and_nothing_else(sites: Sites, browser: Any) -> None:
    """Its window, events, keys, databases, natives and timeline are those of a browser without us."""
    url, session = sites.url("watched", "/watching"), _session(sites.origin("watched"))
    async with await browser.new_context() as plain:
        page = await plain.new_page()
        await page.goto(sites.url("watched", "/blank"))
        expected = await page.evaluate("Object.getOwnPropertyNames(window).sort()")
    async with open_context(session, browser) as context:
        messages: list[str] = []
        context.on("console", lambda message: messages.append(message.text))
        page, other = await context.new_page(), await context.new_page()
        for each in (page, other):
            await each.goto(url)
            seen = await _settled(each)
            assert (seen["events"], seen["calls"]) == ([], [])
            assert set(expected) >= set(seen["names"]) - {"seen"}
            assert set(seen["entries"]) == {"navigation", "visibility-state"}
        assert (await _seen(page))["events"] == []
        assert [each for each in messages if "404" not in each] == []
    assert kinds(session) == []


async def test_a_document_that_goes_on_at_once_finds_no_note_of_ours(sites: Sites, browser: Any) -> None:
    """The handlers that run when it is left see its own keys only. The next document finds its database at once."""
    session = _session(sites.origin("leaving"))
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("leaving", "/watching?leaving"), wait_until="commit")
        await page.wait_for_url("**/watching")
        seen = await _settled(page)
        assert (seen["events"], seen["calls"]) == ([], [])
        (left,) = await context.cookies()
        assert set(left["value"].split()) == {"ticket"}
    assert kinds(session) == []


async def test_frames_of_one_origin_see_nothing_of_each_other_s_restore(sites: Sites, browser: Any) -> None:
    """They share a sessionStorage, whose events reach the other one."""
    session = _session(sites.origin("a.around"))
    add = "(url) => Object.assign(document.body.appendChild(document.createElement('iframe')), { src: url })"
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(sites.url("around", "/blank"))
        frames = []
        for _ in range(2):
            added = await page.evaluate_handle(add, sites.url("a.around", "/watching"))
            frames.append(await added.as_element().content_frame())
        for frame in frames:
            seen = await _settled(frame)
            assert (seen["events"], seen["calls"]) == ([], [])
    assert kinds(session) == []
