"""Documents from a HAR file, databases that workers write, and what is too large: none of them costs a login."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from session_reuse import ProblemKind
from session_reuse.browsers.playwright import open_context
from tests.browsers.visits import fresh, items, kinds, next_session, reused, shown, storing, visited

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


async def test_a_document_from_a_har_file_is_filled_and_followed(sites: Sites, browser: Any, tmp_path: Path) -> None:
    """The server is not asked. The page finds the login, and what it stores then is saved."""
    url, har = sites.url("recorded", "/inner"), tmp_path / "site.har"
    async with await browser.new_context(record_har_path=har) as recording:
        assert await visited(recording, url) == "out"
    asked = sites.hits["recorded", "/inner"]
    session = reused(storing(sites.origin("recorded"), token="T"))
    async with open_context(session, browser) as context:
        await context.route_from_har(har)
        page = await context.new_page()
        await page.goto(url)
        assert await shown(page) == "in"
        await page.evaluate("localStorage.setItem('later', 'L')")
    assert sites.hits["recorded", "/inner"] == asked
    assert items(session, sites.origin("recorded")) == {"token": "T", "later": "L"}
    assert session.problems == []


@pytest.mark.parametrize("kind", ["dedicated", "shared", "service"])
async def test_a_database_that_a_worker_writes_is_saved(kind: str, sites: Sites, browser: Any) -> None:
    """The page itself opens no database."""
    session, host = fresh(), f"by-{kind}-worker"
    async with open_context(session, browser) as context:
        assert await visited(context, sites.url(host, f"/working/{kind}")) == "in"
    async with open_context(next_session(session), browser) as context:
        assert await visited(context, sites.url(host, "/idb-plain")) == "in"


async def test_a_large_database_costs_a_small_one_of_its_origin_nothing(sites: Sites, browser: Any) -> None:
    """Small ones come first, and the limit is an option. What is left out is reported by its name."""
    session = fresh()
    async with open_context(session, browser, database_limit=100_000) as context:
        page = await context.new_page()
        await page.goto(sites.url("sizes", "/idb-plain/login"))
        assert await shown(page) == "in"
        await page.evaluate(
            """new Promise((done) => { const request = indexedDB.open('a-cache', 1);
              request.onupgradeneeded = () => request.result.createObjectStore('pages').put('x'.repeat(200_000), 1);
              request.onsuccess = () => { request.result.close(); done(); }; })"""
        )
    (lost,) = [problem for problem in session.problems if problem.kind == ProblemKind.LOST]
    assert "a-cache" in str(lost)
    async with open_context(next_session(session), browser) as context:
        assert await visited(context, sites.url("sizes", "/idb-plain")) == "in"


@pytest.mark.parametrize(("limit", "early"), [(20_000, []), (2_000, [ProblemKind.RESTORED_EARLY])])
async def test_what_is_larger_than_the_limit_of_the_init_script_is_restored_early(
    limit: int, early: list[ProblemKind], sites: Sites, browser: Any
) -> None:
    """Either way the first page is logged in. The option moves the limit."""
    host = f"limit-{limit}"
    session = reused(storing(sites.origin(host), token="T", large="x" * 5_000))
    async with open_context(session, browser, preload_limit=limit) as context:
        assert await visited(context, sites.url(host, "/inner")) == "in"
    assert kinds(session) == early
