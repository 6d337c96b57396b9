"""`session-reuse login`: a scripted person logs in with a second factor, and the next agent is logged in."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pyotp
import pytest
import pytest_asyncio

from session_reuse import SessionManager, StoreUnavailableError, reusable_session
from session_reuse.browsers._chromium_process import ChromiumProcess
from session_reuse.browsers._manual_login import Until
from session_reuse.browsers.http_clients import open_httpx_async
from session_reuse.cli.commands.login import print_result
from session_reuse.cli.output import Output
from session_reuse.testing import Fault, FaultyStore, MemoryStore, memory_manager, state_with_cookie
from tests.cli.conftest import CommandLine
from tests.harness.pages import PageHandler, serving
from tests.harness.servers import RedisServer

pytestmark = pytest.mark.browser
NAME, CODE = "127.0.0.1/alice", "492039"
LIMIT = 90


class Site(PageHandler):
    """An account behind a password and a one-time code."""

    def respond(self) -> None:
        """Serve the pages."""
        path, asked = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        cookies = self.headers.get("Cookie", "")
        if path == "/password" and asked.get("password") == ["right"]:
            self.page("<form action=/code><input name=code></form>", "first=passed; HttpOnly")
        elif path == "/code" and asked.get("code") == [CODE] and "first=passed" in cookies:
            self.page(
                "<script>localStorage.setItem('device', 'known'); location = '/account'</script>", "sid=in; HttpOnly"
            )
        elif path == "/account" and "sid=in" in cookies:
            self.answer("<h1 id=hello>Hello Alice</h1>")
        else:
            self.answer("<form action=/password><input name=password type=password></form>")

    def page(self, body: str, cookie: str) -> None:
        """Send a page with a cookie."""
        self.answer(body, headers={"Set-Cookie": f"{cookie}; Path=/; Max-Age=86400"})


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    """The site."""
    with serving(Site) as port:
        yield f"http://127.0.0.1:{port}/account"


@pytest_asyncio.fixture(loop_scope="module")
async def cdp_url() -> AsyncIterator[str]:
    """A browser of the person."""
    process = ChromiumProcess(headless=True)
    try:
        yield f"http://{urlsplit(await process.websocket()).netloc}"
    finally:
        process.stop()


def command(server: RedisServer, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start the command."""
    line = [sys.executable, "-m", "session_reuse", "login", *words, "--url", server.url, "--json"]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, text=True, stdin=stdin, stdout=pipe, stderr=pipe)


async def page_of(browser: Any, url: str) -> Any:
    """Return the tab that the command has opened."""
    async with asyncio.timeout(LIMIT):
        while True:
            for page in browser.contexts[0].pages:
                if page.url.startswith(url):
                    return page
            await asyncio.sleep(0.05)


async def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Return exit code and first line of a command."""
    out, err = await asyncio.to_thread(process.communicate, None, LIMIT)
    assert out, err
    return process.returncode, json.loads(out.splitlines()[0])


async def logged_in_by_hand(
    playwright: Any, cdp_url: str, process: subprocess.Popen[str], start: str
) -> dict[str, Any]:
    """Log in by password and second factor in the tab of the command. Return the first line of the command, which ends by itself."""
    browser = await playwright.chromium.connect_over_cdp(cdp_url)
    page = await page_of(browser, start)
    for field, value in (("password", "right"), ("code", CODE)):
        await page.fill(f"input[name={field}]", value)
        await page.press(f"input[name={field}]", "Enter")
    code, told = await ended(process)
    await browser.close()
    assert (code, told["ended"], told["outcome"]) == (0, "until", "saved")
    return told


@pytest.mark.asyncio(loop_scope="module")
async def test_a_person_logs_in_and_the_next_agent_is_logged_in(
    playwright: Any, account: str, cdp_url: str, redis_server: RedisServer
) -> None:
    """By password and second factor. What was captured is told by site, without values."""
    process = command(redis_server, account, NAME, "--cdp-url", cdp_url, "--until-text", "hello alice")
    told = await logged_in_by_hand(playwright, cdp_url, process, account)
    assert told["sites"] == {"127.0.0.1": {"cookies": 2, "items": 1, "databases": 0}}
    async with (
        SessionManager(redis_server.url, registry=None) as manager,
        reusable_session(NAME, manager=manager) as session,
        open_httpx_async(session) as client,
    ):
        assert "Hello Alice" in (await client.get(account)).text


@pytest.mark.asyncio(loop_scope="module")
async def test_a_login_goes_on_from_what_is_stored_and_ends_by_enter(
    playwright: Any, account: str, cdp_url: str, redis_server: RedisServer
) -> None:
    """The person finds the first factor of an earlier day, gives the second one, and presses Enter in the terminal."""
    async with (
        SessionManager(redis_server.url, registry=None) as manager,
        reusable_session(NAME, manager=manager) as session,
    ):
        session.storage_state = state_with_cookie("first", "passed", "127.0.0.1")
    page = f"{account.removesuffix('account')}code?code={CODE}"
    ours, theirs = pty.openpty()
    try:
        process = command(redis_server, page, NAME, "--cdp-url", cdp_url, stdin=theirs)
        browser = await playwright.chromium.connect_over_cdp(cdp_url)
        await (await page_of(browser, account)).wait_for_selector("#hello")
        os.write(ours, b"\n")
        code, told = await ended(process)
        await browser.close()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (code, told["ended"], told["outcome"]) == (0, "enter", "saved")
    assert told["sites"] == {"127.0.0.1": {"cookies": 2, "items": 1, "databases": 0}}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_login_ends_at_a_page_with_such_a_url(
    playwright: Any, account: str, cdp_url: str, redis_server: RedisServer
) -> None:
    """The page that the person begins at has another one."""
    start = f"{account.removesuffix('account')}start"
    process = command(redis_server, start, NAME, "--cdp-url", cdp_url, "--until-url", "http://*/account")
    await logged_in_by_hand(playwright, cdp_url, process, start)


@pytest.fixture(scope="module")
def administration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The administration of Django, behind a password and a time-based code."""
    database = str(tmp_path_factory.mktemp("django") / "database")
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.logins.django_site", database]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address, "the site has not started"
        yield f"{address}/admin/"
        server.terminate()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_person_logs_in_to_the_administration_of_django(
    playwright: Any, administration: str, cdp_url: str, redis_server: RedisServer
) -> None:
    """With the code of a phone, in an application that was not made for this test. The next agent is logged in."""
    process = command(redis_server, administration, NAME, "--cdp-url", cdp_url, "--until-text", "site administration")
    browser = await playwright.chromium.connect_over_cdp(cdp_url)
    page = await page_of(browser, administration)
    await page.fill("[name=username]", "alice")
    await page.fill("[name=password]", "right")
    await page.press("[name=password]", "Enter")
    await page.select_option("[name=otp_device]", index=1)
    await page.fill("[name=password]", "right")
    await page.fill("[name=otp_token]", pyotp.TOTP(base64.b32encode(b"12345678901234567890").decode()).now())
    await page.press("[name=otp_token]", "Enter")
    code, told = await ended(process)
    await browser.close()
    assert (code, told["ended"], told["outcome"]) == (0, "until", "saved")
    async with (
        SessionManager(redis_server.url, registry=None) as manager,
        reusable_session(NAME, manager=manager) as session,
        open_httpx_async(session) as client,
    ):
        shown = (await client.get(administration)).text
    assert "Site administration" in shown
    assert "Log out" in shown


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("until", [[], ["--until-selector", "#hello"]])
async def test_a_person_who_leaves_before_the_login_replaces_nothing(
    playwright: Any, account: str, cdp_url: str, redis_server: RedisServer, until: list[str]
) -> None:
    """The good login stays, and the exit code says that there is no new one."""
    async with (
        SessionManager(redis_server.url, registry=None) as manager,
        reusable_session(NAME, manager=manager) as session,
    ):
        session.storage_state = state_with_cookie(value="good", domain="elsewhere.example")
    process = command(redis_server, account, NAME, "--cdp-url", cdp_url, *until)
    browser = await playwright.chromium.connect_over_cdp(cdp_url)
    page = await page_of(browser, account)
    await page.fill("input[name=password]", "right")
    await page.press("input[name=password]", "Enter")
    await page.wait_for_selector("input[name=code]")
    await page.wait_for_timeout(3000)  # the default of `checkpoint_after` is 2 s: one would be due
    if not until:
        await page.context.clear_cookies()  # else the first factor counts as a login: the person may have ended there
    await page.close()
    code, told = await ended(process)
    await browser.close()
    assert (code, told["ended"], told["outcome"]) == (1, "closed", "skipped")
    async with SessionManager(redis_server.url, registry=None) as manager:
        stored = await manager.restore(NAME)
    assert stored is not None
    assert [each["value"] for each in stored.storage_state["cookies"]] == ["good"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("ended_by", ["a wrong selector", "SIGINT"])
async def test_a_login_that_is_cut_off_stores_nothing(
    ended_by: str, playwright: Any, account: str, cdp_url: str, redis_server: RedisServer
) -> None:
    """A selector that is none ends the command at once, with the reason. Ctrl-C ends it too."""
    selector = "a[" if ended_by == "a wrong selector" else "#hello"
    process = command(
        redis_server, f"{account}?{quote(ended_by)}", NAME, "--cdp-url", cdp_url, "--until-selector", selector
    )
    if ended_by == "SIGINT":
        browser = await playwright.chromium.connect_over_cdp(cdp_url)
        page = await page_of(browser, f"{account}?{quote(ended_by)}")
        await page.fill("input[name=password]", "right")
        await page.press("input[name=password]", "Enter")
        await page.wait_for_selector("input[name=code]")
        process.send_signal(signal.SIGINT)
        await browser.close()
    out, err = await asyncio.to_thread(process.communicate, None, LIMIT)
    assert process.returncode == (2 if ended_by == "a wrong selector" else 130), err
    assert ("no CSS selector" in out) is (ended_by == "a wrong selector")
    async with SessionManager(redis_server.url, registry=None) as manager:
        assert await manager.restore(NAME) is None


@pytest.mark.parametrize(
    ("page", "until", "remedy"),
    [
        ("shop.example/account", [], "must begin with http"),
        ("http://shop.example:99999/", [], "its port is none"),
        ("http://shop.example/", ["--until-text", ""], "must not be empty"),
        ("http://shop.example/", ["--until-url", ""], "must not be empty"),
        ("http://shop.example/", ["--until-selector", ""], "must not be empty"),
    ],
)
def test_what_would_wait_for_ever_or_end_at_once_is_refused(
    page: str, until: list[str], remedy: str, cli: CommandLine
) -> None:
    """A URL without a scheme opened an empty page. Each page has the empty text."""
    answer = cli("login", page, NAME, "--cdp-url", "http://127.0.0.1:1", *until)
    assert (answer.code, remedy in answer.err) == (2, True), answer.err


def test_no_browser_opens_for_a_store_that_is_away(cli: CommandLine) -> None:
    """The command ends before a browser opens. The login was lost at its end, as one that the person had left."""
    answer = cli("login", "http://127.0.0.1:1/", NAME, "--cdp-url", "http://127.0.0.1:1", url="redis://127.0.0.1:1")
    assert (answer.code, "doctor" in answer.err) == (3, True), answer.err


@pytest.mark.asyncio(loop_scope="module")
async def test_a_login_that_the_store_did_not_get_is_not_the_fault_of_the_person() -> None:
    """The store goes away while the person logs in."""
    way = FaultyStore(MemoryStore())
    async with (
        memory_manager(way, close_timeout=0.1) as manager,
        reusable_session(NAME, manager=manager) as session,
    ):
        session.storage_state = state_with_cookie()
        session.mark_good()
        way.fail = Fault.UNAVAILABLE
    with pytest.raises(StoreUnavailableError, match="log in again"):
        await print_result(Output(), session, "enter")


def test_a_pattern_of_urls_has_one_special_character() -> None:
    """Brackets are part of URLs: `[::1]` and `item[]=1`."""
    assert Until("http://[::1]:*/me?a[]=1", None, None).holds("http://[::1]:80/me?a[]=1", "", has_element=False)
    assert not Until("http://a/*", None, None).holds("https://a/", "", has_element=False)


def test_without_a_display_it_says_how(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser elsewhere, by its address."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    answer = cli("login", "http://127.0.0.1:1/", NAME)
    assert answer.code == 2
    assert "--cdp-url" in answer.err
