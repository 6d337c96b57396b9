"""Wherever a site keeps a login, the next agent has it, in a browser process that has never seen the site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from session_reuse.browsers.playwright import open_context
from tests.browsers.visits import LAUNCH, PLACES, Place, entry, fresh, next_session, shown, visited

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Playwright

    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def another_browser(playwright: Playwright) -> AsyncIterator[Browser]:
    """A second browser. Each site is new to it."""
    launched = await playwright.chromium.launch(**LAUNCH)
    yield launched
    await launched.close()


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_a_login_survives_the_browser(place: Place, sites: Sites, browser: Any, another_browser: Any) -> None:
    """A login made by one agent is there for the next, in another browser process."""
    login, check = place.urls(sites)
    session = fresh()
    async with open_context(session, browser) as context:
        page = await context.new_page()
        await page.goto(login)
        await page.wait_for_url(lambda url: "login" not in url or "framed" in url)
        assert await shown(page) == "in"
    following = next_session(session)
    async with open_context(following, another_browser) as context:
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
    """With `opfs=True` the files of an origin come back. Without it they are not touched."""
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


async def test_a_passkey_is_carried_when_asked_for(sites: Sites, browser: Any, launch: Any) -> None:
    """With `credentials=True` a passkey that a site has registered signs for the next agent, and counts on."""
    create = (
        "async () => { const made = await navigator.credentials.create({ publicKey: { challenge: new Uint8Array(16),"
        " rp: { name: 'shop' }, user: { id: new Uint8Array([7]), name: 'alice', displayName: 'Alice' },"
        " pubKeyCredParams: [{ type: 'public-key', alg: -7 }], authenticatorSelection: { residentKey: 'required' } } });"
        "const spki = made.response.getPublicKey(); return [made.id, btoa(String.fromCharCode(...new Uint8Array(spki)))]; }"
    )
    verify = (
        "async (spki) => { const { id, response } = await navigator.credentials.get({ publicKey: { challenge: new"
        " Uint8Array(16) } }); const bytes = Uint8Array.from(atob(spki), (c) => c.charCodeAt(0));"
        "const name = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };"
        "const key = await crypto.subtle.importKey('spki', bytes, name, false, ['verify']);"
        "const data = new Uint8Array(response.authenticatorData);"
        "const told = new Uint8Array(await crypto.subtle.digest('SHA-256', response.clientDataJSON));"
        # the signature comes in DER: two integers of 32 bytes, or of 33 with a leading zero, or of fewer
        "const der = new Uint8Array(response.signature), raw = new Uint8Array(64); let at = 2;"
        "for (const end of [32, 64]) { const part = der.slice(at + 2, at + 2 + der[at + 1]).slice(-32);"
        " raw.set(part, end - part.length); at += 2 + der[at + 1]; }"
        "const isGood = await crypto.subtle.verify(name, key, raw, new Uint8Array([...data, ...told]));"
        "return [id, isGood, data[36]]; }"
    )
    session = fresh()
    async with open_context(session, browser, credentials=True) as context:
        await context.credentials.install()
        page = await context.new_page()
        await page.goto(sites.url("passkey", "/blank"))
        made, spki = await page.evaluate(create)
    for count in (1, 2):
        session = next_session(session)
        async with open_context(session, await launch(), credentials=True) as context:
            page = await context.new_page()
            await page.goto(sites.url("passkey", "/blank"))
            assert await page.evaluate(verify, spki) == [made, True, count]
        assert session.problems == []
    async with open_context(next_session(session), browser) as context:  # not asked for
        assert await context.credentials.get() == []
