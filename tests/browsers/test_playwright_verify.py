"""A restored login is looked at before the agent relies on it, in the setting it was made in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse.browsers.checks import selector_present, text_present, url_matches
from session_reuse.browsers.playwright import open_context
from session_reuse.errors import AdapterError
from session_reuse.outcome import Outcome
from tests.browsers.visits import fresh, items, kinds, next_session, reused, shown, storing, visited

if TYPE_CHECKING:
    from tests.browsers.sites import Sites

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(("token", "outcome"), [("T", Outcome.REUSED), ("", Outcome.UNVERIFIED)])
async def test_ready_made_checks(token: str, outcome: Outcome, sites: Sites, browser: Any) -> None:
    """Each check accepts a live login, and a dead one leads to a clean context."""
    url = sites.url("checked", "/inner")
    state, patience = ("in", 60) if token else ("never", 0.5)
    for check in (
        url_matches(url, re.compile("inner$" if token else "account")),
        selector_present(url, f"html[data-login={state}]", timeout=patience),
        text_present(sites.url("checked", "/form"), "go" if token else "Welcome", timeout=patience),
    ):
        session = reused(storing(sites.origin("checked"), token="T"))
        async with open_context(session, browser, verify=check) as context:
            assert context.pages == []
            assert await visited(context, url) == ("in" if token else "out")
        assert session.outcome is outcome


async def test_a_site_in_trouble_proves_nothing(browser: Any) -> None:
    """Its page is neither that of a dead login nor of a live one. A probe that raises leaves the login as it is."""
    url, page = "http://trouble.localhost/503", await browser.new_page()
    await page.route("**/*", lambda route: route.fulfill(status=503, body="Down", content_type="text/html"))
    for check in (
        url_matches(url, "503$"),
        selector_present(url, "html[data-login=in]", timeout=0.2),
        text_present(url, "Welcome", timeout=0.2),
    ):
        with pytest.raises(AdapterError, match="answered 503"):
            await check(page)
    assert await text_present(url, "Down")(page)
    await page.context.close()


async def test_a_text_may_stand_in_a_hidden_place_first(browser: Any) -> None:
    """Sites have a second menu for small screens."""
    page = await browser.new_page()
    body = "<nav hidden>Sign out</nav><nav>Sign out</nav>"
    await page.route("**/*", lambda route: route.fulfill(body=body, content_type="text/html"))
    assert await text_present("http://menus.localhost/", "Sign out", timeout=5)(page)
    await page.context.close()


@pytest.mark.parametrize(
    ("verify", "problems"),
    [
        (lambda _: 1 / 0, ["ZeroDivisionError"]),
        (lambda page: selector_present(page.url, "a[")(page), ["Error"]),
        (lambda _: False, []),
    ],
)
async def test_a_check_that_fails_or_raises(verify: Any, problems: list[str], sites: Sites, browser: Any) -> None:
    """No answer is a no: the agent starts clean, and hears of it. A check that raises is a problem of the session."""
    session = reused(storing(sites.origin("raises"), token="T"))
    async with open_context(session, browser, verify=verify) as context:
        assert await visited(context, sites.url("raises", "/inner")) == "out"
    assert session.outcome is Outcome.UNVERIFIED
    assert session.storage_state["origins"] == []
    assert [each.where for each in session.problems if each.kind == "verify_failed"] == problems


async def test_a_refusal_without_a_page_is_a_no(browser: Any) -> None:
    """Chromium shows an error page of its own for an empty 401, and Playwright raises: the site has answered all the same."""
    url, page = "http://refused.localhost/401", await browser.new_page()
    await page.route("**/*", lambda route: route.fulfill(status=401))
    for check in (
        url_matches(url, "401$"),
        selector_present(url, "a", timeout=20.0),
        text_present(url, "Hi", timeout=20.0),
    ):
        assert not await check(page)
    await page.context.close()


@pytest.mark.parametrize("trouble", ["answered 503", "cannot be reached"])
async def test_a_check_of_a_site_in_trouble_leaves_the_login(trouble: str, sites: Sites, browser: Any) -> None:
    """The agent keeps what is restored, with the sessionStorage of the checked page, and hears that nothing was proved."""
    url = sites.url("away", "/inner")

    async def check(page: Any) -> Any:
        if trouble == "answered 503":
            await page.route("**/inner", lambda route: route.fulfill(status=503, content_type="text/html"))
        else:
            await page.route("**/inner", lambda route: route.abort("connectionrefused"))
        return await selector_present(url, "html[data-login=in]", timeout=20.0)(page)

    state = storing(sites.origin("away"), token="T")
    state["origins"][0]["sessionStorage"] = [{"name": "token", "value": "T\0\ud800ü"}]
    session = reused(state)
    async with open_context(session, browser, verify=check) as context:
        assert context.pages == []
        assert await visited(context, sites.url("away", "/session")) == "in"
        assert await visited(context, url) == "in"
    assert session.outcome is Outcome.REUSED
    (problem,) = [each for each in session.problems if each.kind == "verify_failed"]
    assert trouble in problem.reason
    assert url not in problem.reason


async def test_a_check_does_not_use_up_what_was_restored(sites: Sites, browser: Any) -> None:
    """The sessionStorage and the rotated token of the checked page are there for the agent's own first page."""
    sites.refresh_tokens["looked"] = "r1"
    state = storing(sites.origin("looked"), refresh="r1")
    state["origins"][0]["sessionStorage"] = [{"name": "token", "value": "T\0\ud800ü"}]
    session = reused(state)
    check = selector_present(sites.url("looked", "/rotating"), "html[data-login=in]", timeout=60)
    async with open_context(session, browser, verify=check) as context:
        assert await visited(context, sites.url("looked", "/session")) == "in"
        assert await visited(context, sites.url("looked", "/rotating")) == "in"
    assert items(session, sites.origin("looked")) == {"refresh": sites.refresh_tokens["looked"]}


@pytest.mark.parametrize("indexed_db", [True, False])
async def test_a_check_over_several_origins_gives_all_back(indexed_db: bool, sites: Sites, browser: Any) -> None:
    """A check that goes through a chain of redirects leaves the sessionStorage of each origin to the agent's tab."""
    idp = storing(sites.origin("idp"), idp="I")["origins"][0]
    idp["sessionStorage"] = [{"name": "ticket", "value": "K"}]
    entries = [
        *storing(sites.origin("app"), app="old")["origins"],
        *storing(sites.origin("hub"), tenant="t")["origins"],
    ]

    async def check(page: Any) -> bool:
        await page.goto(sites.url("app", "/sso/app"))
        return await shown(page) == "in"

    session = reused({"cookies": [], "origins": [*entries, idp]})
    async with open_context(session, browser, verify=check, indexed_db=indexed_db) as context:
        assert session.outcome is Outcome.REUSED
        page = await context.new_page()
        await page.goto(sites.url("idp", "/blank"))
        assert await page.evaluate("sessionStorage.ticket") == "K"


async def test_a_session_without_a_state_is_not_checked(browser: Any) -> None:
    """A fresh agent has no login that could be checked."""
    session = fresh()
    async with open_context(session, browser, verify=lambda page: False):
        pass
    assert session.outcome is Outcome.MISSING


async def test_the_environment_is_recorded_restored_and_compared(sites: Sites, browser: Any) -> None:
    """User agent, locale, timezone and viewport come back when asked for, and a change is reported otherwise."""
    settings = {
        "user_agent": "Agent/1",
        "locale": "de-DE",
        "timezone_id": "Europe/Berlin",
        "viewport": {"width": 900, "height": 700},
    }
    session = fresh()
    async with open_context(session, browser, **settings) as context:
        await visited(context, sites.url("setting", "/inner"))
    session = next_session(session)
    async with open_context(session, browser, restore_environment=True) as context:
        page = await context.new_page()
        await page.goto(sites.url("setting", "/inner"))
        seen = "[navigator.userAgent, navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone, innerWidth]"
        assert await page.evaluate(seen) == ["Agent/1", "de-DE", "Europe/Berlin", 900]
    assert session.problems == []
    session = next_session(session)
    async with open_context(session, browser, user_agent="Agent/1", locale="de-DE") as context:
        await visited(context, sites.url("setting", "/inner"))
    assert sorted(problem.detail for problem in session.problems) == ["timezone", "viewport"]
    assert set(kinds(session)) == {"environment_changed"}
