"""Sessions with their own parts in one browser context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from session_reuse import BrowserSession, reusable_session
from session_reuse.browsers.cdp import attach_cdp, open_chromium
from session_reuse.browsers.playwright import attach_context, open_context
from session_reuse.errors import LifecycleError
from session_reuse.testing import MemoryStore, memory_manager
from tests.browsers.visits import visited
from tests.logins.states import sites_of, there

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def test_two_sessions_attached_to_one_context_keep_each_its_own(sites: Sites, browser: Any) -> None:
    """Mail and shop are logged in side by side, and neither session stores the other's login."""
    memory = MemoryStore()
    async with memory_manager(memory) as manager:
        for local, cookie in (("/local/login", "/cookie/login?kind=persistent"), ("/local", "/cookie")):
            context = await browser.new_context()
            async with (
                reusable_session("shop", manager=manager, allowed_domains=["shop.localhost"]) as shop,
                reusable_session("mail", manager=manager, allowed_domains=["*.mail.localhost"]) as mail,
                attach_context(shop, context),
                attach_context(mail, context),
            ):
                for name in ("shop", "www.mail"):
                    assert await visited(context, sites.url(name, local)) == "in"
                    assert await visited(context, sites.url(name, cookie)) == "in"
            await context.close()
    assert sites_of(there(memory, "shop")) == {"shop.localhost"}
    assert sites_of(there(memory, "mail")) == {"www.mail.localhost"}


async def test_two_logins_are_not_mixed_in_one_context(sites: Sites, browser: Any) -> None:
    """The second one is refused before any of it is there, whichever way it comes. The first one is saved as it was."""
    memory = MemoryStore()
    async with memory_manager(memory) as manager:
        async with (
            reusable_session("alice", manager=manager) as alice,
            reusable_session("bob", manager=manager) as bob,
            open_context(alice, browser) as context,
        ):
            assert await visited(context, sites.url("shop", "/local/login")) == "in"
            bob.storage_state["cookies"] = [{"name": "sid", "value": "bob", "domain": "shop.localhost", "path": "/"}]
            with pytest.raises(LifecycleError, match="'alice' is in this browser context"):
                async with attach_context(bob, context):
                    pass
            assert await context.cookies() == []
        assert sites_of(there(memory, "alice")) == {"shop.localhost"}


async def test_two_logins_are_not_mixed_in_one_browser() -> None:
    """The same over an address: also when the first one has left, nothing of it is captured."""
    alice, bob = BrowserSession("alice"), BrowserSession("bob")
    async with open_chromium(alice, headless=True) as chromium:
        with pytest.raises(LifecycleError, match="'alice' is in this browser context"):
            async with attach_cdp(bob, chromium.cdp_url):
                pass
        async with attach_cdp(BrowserSession("alice"), chromium.cdp_url):
            pass
    assert [each.kind for each in bob.problems] == ["capture_failed"]


async def test_a_lent_login_works_in_a_browser_and_the_rest_stays(sites: Sites, browser: Any) -> None:
    """The borrower is logged in at one site and out at the other, whose login is still there afterwards."""
    memory = MemoryStore()
    async with memory_manager(memory) as manager:
        async with reusable_session("all", manager=manager) as session, open_context(session, browser) as context:
            for name in ("shop", "mail"):
                assert await visited(context, sites.url(name, "/local/login")) == "in"
        before = [each for each in there(memory, "all").storage_state["origins"] if "//mail." in each["origin"]]
        async with (
            reusable_session("all", manager=manager, allowed_domains=["shop.localhost"]) as session,
            open_context(session, browser) as context,
        ):
            assert await visited(context, sites.url("shop", "/local")) == "in"
            assert await visited(context, sites.url("mail", "/local")) == "out"
            assert await visited(context, sites.url("evil", "/local/login")) == "in"
        origins = there(memory, "all").storage_state["origins"]
        assert [each for each in origins if "//mail." in each["origin"]] == before
        assert not [each for each in origins if "//evil." in each["origin"]]
