"""A browser behind a gateway, as clouds rent them: a path, a token in the query, a header."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from session_reuse.browsers._chromium_process import ChromiumProcess
from session_reuse.browsers.cdp import attach_cdp
from session_reuse.errors import AdapterError
from tests.agents.tab import new_tab
from tests.harness.polling import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from websockets.asyncio.connection import Connection
    from websockets.http11 import Request, Response

    from tests.clients.keeper import StubKeeper
    from tests.clients.site import Site

pytestmark = pytest.mark.browser
PATH = "/session/7/devtools?token=secret"
HEADERS = {"X-Api-Key": "key"}


@asynccontextmanager
async def gateway(upstream: Callable[[], str], asked: list[str] | None = None) -> AsyncIterator[str]:
    """Pass on what comes with the path, the token and the header, and answer 401 to the rest. Yield the address.

    Args:
        upstream: returns the browser's address.
        asked: gets the commands.
    """
    asked = [] if asked is None else asked

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        is_right = request.path == PATH and request.headers.get("X-Api-Key") == HEADERS["X-Api-Key"]
        return None if is_right else connection.respond(401, "no key\n")

    async def pass_on(ours: ServerConnection) -> None:
        async with connect(upstream(), max_size=None) as theirs, asyncio.TaskGroup() as both:
            both.create_task(copy(ours, theirs, asked))
            both.create_task(copy(theirs, ours, []))

    async with serve(pass_on, "127.0.0.1", 0, process_request=refuse, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}{PATH}"


async def copy(source: Connection, target: Connection, methods: list[str]) -> None:
    """Pass messages on until one side ends, and note their methods."""
    try:
        async for message in source:
            methods.append(json.loads(message).get("method", ""))
            await target.send(message)
    except ConnectionClosed:
        pass
    finally:
        await target.close()


async def test_a_login_comes_back_through_a_gateway(logged_in: StubKeeper, site: Site) -> None:
    """Each of our connections brings path, token and headers. Other clients get the address as it was given."""
    process = ChromiumProcess()
    try:
        browser = await process.websocket()
        async with gateway(lambda: browser) as address:
            session = logged_in.enter()
            async with attach_cdp(session, address, headers=HEADERS) as chromium:
                assert chromium.cdp_url == address
                async with new_tab(browser) as tab:
                    assert await tab.goto(site.url()) == site.EVERYWHERE
                    await tab.evaluate("localStorage.setItem('through', 'yes')")
            await logged_in.leave(session)
            assert logged_in.stored is not None
            (origin,) = logged_in.stored["origins"]
            assert {"name": "through", "value": "yes"} in origin["localStorage"]
    finally:
        await asyncio.to_thread(process.stop)


async def test_another_browser_behind_the_same_address_is_restored(logged_in: StubKeeper, site: Site) -> None:
    """It is empty, and not a browser in which everybody has logged out."""
    processes = [ChromiumProcess(), ChromiumProcess()]
    try:
        browsers = [await process.websocket() for process in processes]
        asked: list[str] = []
        async with gateway(lambda: browsers[0], asked) as address:
            session = logged_in.enter()
            async with attach_cdp(session, address, headers=HEADERS):
                async with new_tab(browsers[0]) as tab:
                    assert await tab.goto(site.url()) == site.EVERYWHERE
                del browsers[0], asked[:]
                await asyncio.to_thread(processes[0].stop)
                await until(lambda: _is_watched(asked), message="the other browser was restored")
                async with new_tab(browsers[0]) as tab:
                    assert await tab.goto(site.url()) == site.EVERYWHERE
            await logged_in.leave(session)
        assert logged_in.stored is not None
        assert logged_in.stored["cookies"]
    finally:
        for process in processes:
            await asyncio.to_thread(process.stop)


def _is_watched(asked: list[str]) -> bool:
    """Return whether all tabs are followed, and the cookies were looked at since."""
    return "Target.setAutoAttach" in asked and "Storage.getCookies" in asked[asked.index("Target.setAutoAttach") :]


@pytest.mark.parametrize("headers", [None, {"X-Api-Key": "stolen"}])
async def test_a_gateway_that_refuses_us_is_named_without_the_token(
    logged_in: StubKeeper, headers: dict[str, str] | None
) -> None:
    """The message says what the gateway answered. The token and the key are in none."""
    async with gateway(lambda: "ws://127.0.0.1:1/") as address:
        with pytest.raises(AdapterError) as caught:
            async with attach_cdp(logged_in.enter(), address, headers=headers):
                pass
    assert "401" in str(caught.value)
    assert "secret" not in repr(caught.value)
    assert "stolen" not in repr(caught.value)
