"""A browser with `allowed_domains` reaches no other host, whatever a page tries."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest
from playwright.async_api import Error

from session_reuse import reusable_session
from session_reuse.browsers.cdp import open_chromium
from session_reuse.browsers.chromium import confinement_arguments
from session_reuse.testing import MemoryStore, memory_manager
from tests.logins.hostile import WAYS, Collector, hostile_site
from tests.logins.states import MAIL, cookie, origin, there

POPUPS = ["--disable-popup-blocking"]


async def visit(playwright: Any, chromium: Any, url: str, collector: Collector, limit: float) -> str:
    """Open the shop until the collector has seen every way, or for so long. Return whether the shop knows us."""
    browser = await playwright.chromium.connect_over_cdp(chromium.cdp_url)
    context = browser.contexts[0]
    page = await context.new_page()
    await page.goto(url, wait_until="commit")
    await page.wait_for_function("['in', 'out'].includes(document.title)")
    title = await page.title()
    # A tab of its own: Chromium 156 crashes one whose popups a debugger meets while they open.
    popups = await context.new_page()
    with contextlib.suppress(Error):
        await popups.goto(f"{url}popups", wait_until="commit")
    give_up = time.monotonic() + limit
    while time.monotonic() < give_up and not collector.seen >= set(WAYS):
        await asyncio.sleep(0.05)
    await browser.close()
    return str(title)


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_a_hostile_page_reaches_nothing_and_is_logged_in(playwright: Any) -> None:
    """The same page gets out in every way from a browser that is not confined."""
    memory = MemoryStore()
    with hostile_site() as (url, collector):
        async with memory_manager(memory) as manager:
            async with reusable_session("alice", manager=manager) as session:
                session.storage_state = {
                    "cookies": [cookie("shop.localhost", "in"), cookie(MAIL)], "origins": [origin(f"https://{MAIL}")],
                }  # fmt: skip
            before = json.dumps(there(memory, "alice").storage_state["cookies"][1:])
            began = time.monotonic()
            async with (
                reusable_session("alice", manager=manager, save="never") as session,
                open_chromium(session, arguments=POPUPS) as free,
            ):
                assert await visit(playwright, free, url, collector, 60) == "in"
            assert collector.seen >= set(WAYS), set(WAYS) - collector.seen
            took = time.monotonic() - began
            collector.seen.clear()
            async with (
                reusable_session("alice", manager=manager, allowed_domains=["shop.localhost"]) as session,
                open_chromium(session, arguments=POPUPS) as confined,
            ):
                assert await visit(playwright, confined, url, collector, took) == "in"
            assert collector.seen == set()
        stored = there(memory, "alice").storage_state
        assert json.dumps([each for each in stored["cookies"] if each["domain"] == MAIL]) == before
        assert [each["origin"] for each in stored["origins"] if MAIL in each["origin"]] == [f"https://{MAIL}"]


def test_the_flags_name_each_host() -> None:
    """A star excludes the host itself too. Without domains nothing is confined."""
    rules = confinement_arguments(["shop.example", "*.pay.example", "::1"])[0]
    assert rules == (
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE shop.example , EXCLUDE *.pay.example , EXCLUDE pay.example"
        " , EXCLUDE [::1]"
    )
    assert confinement_arguments(None) == []
