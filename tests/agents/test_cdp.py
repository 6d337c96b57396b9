"""`open_chromium` and `attach_cdp`: a login comes back in any Chromium, however agent, browser and connection end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from base64 import b64encode
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import async_playwright
from websockets.asyncio.server import serve

from session_reuse import BrowserSession, ProblemKind, blocking, reusable_session
from session_reuse.browsers._attachment import Attachment
from session_reuse.browsers._chromium_process import ChromiumProcess
from session_reuse.browsers._devtools_address import Address
from session_reuse.browsers.cdp import Chromium, attach_cdp, open_chromium, page_shows
from session_reuse.errors import AdapterError, ConfigurationError, LifecycleError
from session_reuse.outcome import Outcome, SaveOutcome
from session_reuse.testing import memory_manager, state_with_cookie
from tests.agents.runs import processes_with
from tests.agents.tab import log_in, new_tab, words
from tests.harness.fault_proxy import Fault, FaultProxy
from tests.harness.pages import PageHandler, serving
from tests.harness.polling import until, wait_until
from tests.harness.servers import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.clients.keeper import StubKeeper
    from tests.clients.site import Site

pytestmark = pytest.mark.browser


def kinds(session: BrowserSession) -> set[ProblemKind]:
    """Return the kinds of the problems of a session."""
    return {problem.kind for problem in session.problems}


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[ChromiumProcess]:
    """A browser that others have started."""
    process = ChromiumProcess()
    try:
        yield process
    finally:
        process.stop()


async def test_an_agent_of_playwright_goes_back_between_sites(site: Site) -> None:
    """A page that comes back out of Chromium's own cache has no load event, for which Playwright waits."""
    async with open_chromium(BrowserSession("x")) as chromium, async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(chromium.cdp_url)
        page = await browser.contexts[0].new_page()
        for host in ("shop", "mail"):
            await page.goto(site.url("/blank", host=host))
        await page.go_back(timeout=20_000)
        assert page.url == site.url("/blank", host="shop")


async def test_a_login_comes_back_in_new_tabs_and_popups(keeper: StubKeeper, site: Site) -> None:
    """Cookie, storage and database are there before a client connects. Nothing of the browser stays behind."""
    session = keeper.enter()
    async with open_chromium(session) as chromium:
        async with new_tab(chromium.websocket_url) as tab:
            await tab.log_in(site.url())
        assert chromium.process is not None
        assert chromium.cdp_url == f"http://127.0.0.1:{chromium.port}"
        await until(lambda: keeper.saves, message="no checkpoint while the agent works")
    assert chromium.process.returncode == -signal.SIGKILL
    await keeper.leave(session)

    session = keeper.enter()
    check = page_shows(site.url(), "signed IN as alice", timeout=60)
    async with open_chromium(session, verify=check) as chromium, new_tab(chromium.websocket_url) as tab:
        assert await tab.goto(site.url()) == site.EVERYWHERE
        await tab.evaluate(f"open({site.url()!r}), 0")

        async def both() -> bool:
            targets = (await tab.send("Target.getTargets"))["targetInfos"]
            return [each["title"] for each in targets].count(site.EVERYWHERE) == 2

        await until(both, message="the popup is not logged in")
    assert site.logins == 1


async def test_the_first_tab_is_logged_in_though_it_is_used_at_once(logged_in: StubKeeper, site: Site) -> None:
    """The start does not wait for its renderer, so its document waits for the restore."""
    async with open_chromium(logged_in.enter()) as chromium:
        (first,) = await asyncio.to_thread(pages_of, chromium.cdp_url)
        async with new_tab(chromium.websocket_url, targetId=first) as tab:
            assert await tab.goto(site.url()) == site.EVERYWHERE


def pages_of(address: str) -> list[str]:
    """Return the ids of the open tabs."""
    with urllib.request.urlopen(f"{address}/json/list") as answer:
        return [each["id"] for each in json.load(answer) if each["type"] == "page"]


def test_blocking_code_has_the_same(site: Site) -> None:
    """The same names serve `with`. A checkpoint saves while the agent works."""
    session = blocking.BrowserSession("site/alice")
    with open_chromium(session, checkpoint_after=0.1) as chromium:
        log_in(chromium.websocket_url, site.url())
        wait_until(lambda: session.storage_state["cookies"], message="nothing was seen of the login")
    assert chromium.process is not None
    assert chromium.process.returncode is not None
    again = blocking.BrowserSession("site/alice", storage_state=session.storage_state)
    with open_chromium(again, checkpoint_after=None) as chromium:
        assert words(chromium.websocket_url, site.url()) == site.EVERYWHERE
    assert kinds(again) <= {ProblemKind.RESTORE_FAILED}  # a busy machine: the tab was faster, and was loaded once more


def test_a_checkpoint_under_way_at_the_end_is_no_failed_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint in its thread still reaches the browser while the end waits for it."""
    saving, leaving = threading.Event(), threading.Event()
    finish = Attachment.finish

    class Slow(blocking.BrowserSession):
        def checkpoint(self) -> SaveOutcome:  # type: ignore[override]
            saving.set()
            leaving.wait(20)
            self.capture_here()
            return SaveOutcome.SAVED

    async def finish_slowly(attachment: Attachment) -> None:
        leaving.set()
        await finish(attachment)

    monkeypatch.setattr(Attachment, "finish", finish_slowly)
    session = Slow("site/alice")
    with open_chromium(session, checkpoint_after=0.1) as chromium:
        set_cookie = [{"name": "sid", "value": "1", "url": "http://shop.localhost/"}]
        asyncio.run(send_to(chromium.websocket_url, "Storage.setCookies", cookies=set_cookie))
        assert saving.wait(20)
    assert ProblemKind.CAPTURE_FAILED not in kinds(session)


async def send_to(websocket_url: str, method: str, **params: Any) -> None:
    """Send one command to a browser."""
    async with new_tab(websocket_url) as tab:
        await tab.send(method, **params)


def test_a_check_that_exits_ends_the_enter_at_once() -> None:
    """`sys.exit` in a check of a blocking session comes out, and the browser is ended."""
    origin = {"origin": "http://shop.localhost", "localStorage": [{"name": "a", "value": "1"}]}
    session = blocking.BrowserSession("site/alice", storage_state={"origins": [origin]})
    seen: list[Chromium] = []

    def check(chromium: Chromium) -> bool:
        seen.append(chromium)
        sys.exit(3)

    with pytest.raises(SystemExit), open_chromium(session, verify=check):
        pass
    assert seen[0].process is not None
    assert seen[0].process.returncode is not None


async def test_the_wrong_kind_of_with_says_what_to_write(chromium: ChromiumProcess) -> None:
    """A blocking session in `async with`, and the other way round, name the right one. So does a second enter."""
    with pytest.raises(LifecycleError, match="write `with` here"):
        async with open_chromium(blocking.BrowserSession("x")):
            pass
    with pytest.raises(LifecycleError, match="write `async with` here"), open_chromium(BrowserSession("x")):
        pass
    bound = attach_cdp(BrowserSession("x"), await chromium.websocket())
    async with bound:
        pass
    with pytest.raises(LifecycleError, match="entered once"):
        async with bound:
            pass


async def test_a_login_that_the_check_refuses_is_not_given_to_the_agent(logged_in: StubKeeper, site: Site) -> None:
    """The agent gets a clean browser, and the session says `unverified`."""
    session = logged_in.enter()
    async with open_chromium(session, verify=page_shows(site.url(), "Signed in as bob", timeout=2)) as chromium:
        assert session.outcome is Outcome.UNVERIFIED
        async with new_tab(chromium.websocket_url) as tab:
            assert await tab.goto(site.url()) == site.LOGGED_OUT


async def test_a_check_of_a_site_that_is_away_leaves_the_login(logged_in: StubKeeper, site: Site) -> None:
    """It proves nothing: the agent gets what is stored, and hears of it."""
    session = logged_in.enter()
    check = page_shows(f"http://away.localhost:{free_port()}/", "Signed in as alice", timeout=10)
    async with open_chromium(session, verify=check) as chromium:
        assert session.outcome is Outcome.REUSED
        assert kinds(session) == {ProblemKind.VERIFY_FAILED}
        async with new_tab(chromium.websocket_url) as tab:
            assert await tab.goto(site.url()) == "done cookie local session database"


async def test_a_client_with_a_context_of_its_own_is_reported(logged_in: StubKeeper, site: Site) -> None:
    """A client that isolates itself does not see the login. The session says why."""
    session = logged_in.enter()
    async with open_chromium(session) as chromium, new_tab(chromium.websocket_url) as tab:
        context = (await tab.send("Target.createBrowserContext"))["browserContextId"]
        async with new_tab(chromium.websocket_url, browserContextId=context) as isolated:
            assert await isolated.goto(site.url()) == site.LOGGED_OUT
            await until(lambda: session.problems)
    assert kinds(session) == {ProblemKind.OTHER_CONTEXT}


async def test_a_browser_that_is_killed_costs_nothing_that_was_seen(keeper: StubKeeper, site: Site) -> None:
    """The last state seen is captured, the session says so, and the profile is removed."""
    session = keeper.enter()
    async with open_chromium(session, checkpoint_after=None) as chromium:
        async with new_tab(chromium.websocket_url) as tab:
            await tab.log_in(site.url())
            state = await tab.send("Storage.getCookies")
            assert state["cookies"]
        await asyncio.sleep(0)
        await until(lambda: _seen(keeper, session))
        assert chromium.process is not None
        os.kill(chromium.process.pid, signal.SIGKILL)
    assert [cookie["name"] for cookie in session.storage_state["cookies"]] == ["sid"]
    assert ProblemKind.BROWSER_GONE in kinds(session)


async def _seen(keeper: StubKeeper, session: BrowserSession) -> bool:
    """Return whether what is saved now has the cookie."""
    await keeper.checkpoint(session)
    return bool(keeper.stored and keeper.stored["cookies"] and keeper.stored["origins"])


async def test_only_the_chosen_context_of_a_shared_browser_is_used(
    logged_in: StubKeeper, site: Site, chromium: ChromiumProcess
) -> None:
    """A tab names the context. The browser's own context gets nothing and gives nothing."""
    websocket = await chromium.websocket()
    async with new_tab(websocket) as tab:
        context = (await tab.send("Target.createBrowserContext"))["browserContextId"]
        made = await tab.send("Target.createTarget", url="about:blank", browserContextId=context)
        session = logged_in.enter()
        async with attach_cdp(session, websocket, target_id=made["targetId"]) as attached:
            assert attached.process is None
            assert await tab.goto(site.url()) == site.LOGGED_OUT
            async with new_tab(websocket, targetId=made["targetId"]) as chosen:
                assert await chosen.goto(site.url()) == site.EVERYWHERE
                await chosen.evaluate("localStorage.setItem('token', 'changed')")
            await tab.evaluate("localStorage.setItem('token', 'not ours')")
    (origin,) = session.storage_state["origins"]
    assert {"name": "token", "value": "changed"} in origin["localStorage"]
    assert await tab_is_alive(websocket)


async def tab_is_alive(websocket: str) -> bool:
    """Return whether a browser still answers."""
    async with new_tab(websocket) as tab:
        return bool(await tab.evaluate("true"))


async def test_databases_that_a_browser_has_already_are_captured(site: Site, chromium: ChromiumProcess) -> None:
    """A login that was made before the session was attached, and that its pages only read, is whole."""
    websocket, session = await chromium.websocket(), BrowserSession("x")
    async with new_tab(websocket) as tab:
        await tab.log_in(site.url())
        await tab.evaluate("location.href = 'about:blank'")
        async with attach_cdp(session, websocket):
            assert await tab.goto(site.url()) == site.EVERYWHERE
    (origin,) = session.storage_state["origins"]
    assert [database["name"] for database in origin["indexedDBRich"]] == ["app"]


async def test_a_dropped_connection_is_opened_again(
    logged_in: StubKeeper, site: Site, chromium: ChromiumProcess
) -> None:
    """What happens in the browser after the network came back is captured too."""
    websocket = await chromium.websocket()
    port = int(websocket.split(":")[2].partition("/")[0])
    async with FaultProxy(("127.0.0.1", port)) as proxy:
        session = logged_in.enter()
        async with attach_cdp(session, f"127.0.0.1:{proxy.port}"), new_tab(websocket) as tab:
            assert await tab.goto(site.url()) == site.EVERYWHERE
            await proxy.switch(Fault.REFUSE)
            await tab.evaluate("localStorage.setItem('token', 'while away')")
            await proxy.switch(Fault.OK)
            await until(lambda: _token(logged_in, session, "while away"), interval=0.2)
        assert ProblemKind.BROWSER_GONE not in kinds(session)


async def test_a_dropped_connection_is_opened_again_when_its_first_tab_was_closed(
    logged_in: StubKeeper, site: Site, chromium: ChromiumProcess
) -> None:
    """The tab that was named has led to its context, whose other tabs are still there."""
    websocket = await chromium.websocket()
    port = int(websocket.split(":")[2].partition("/")[0])
    async with FaultProxy(("127.0.0.1", port)) as proxy, new_tab(websocket) as tab:
        made = await tab.send("Target.createTarget", url="about:blank")
        session = logged_in.enter()
        async with attach_cdp(session, f"127.0.0.1:{proxy.port}", target_id=made["targetId"]):
            assert await tab.goto(site.url()) == site.EVERYWHERE
            await tab.send("Target.closeTarget", targetId=made["targetId"])
            await proxy.switch(Fault.REFUSE)
            await tab.evaluate("localStorage.setItem('token', 'while away')")
            await proxy.switch(Fault.OK)
            await until(lambda: _token(logged_in, session, "while away"), interval=0.2)


async def _token(keeper: StubKeeper, session: BrowserSession, value: str) -> bool:
    await keeper.checkpoint(session)
    return value in json.dumps(keeper.stored)


@pytest.mark.parametrize(
    ("given", "for_clients"),
    [
        (9222, "http://127.0.0.1:9222"),
        ("9222", "http://127.0.0.1:9222"),
        ("10.0.0.1:9222", "http://10.0.0.1:9222"),
        ("https://cloud.example/chrome?token=secret", "https://cloud.example/chrome?token=secret"),
        ("wss://cloud.example?token=secret", "wss://cloud.example?token=secret"),
        ("ws://127.0.0.1:9222/devtools/browser/1", "http://127.0.0.1:9222"),
    ],
)
def test_an_address_is_taken_in_every_form(given: str | int, for_clients: str) -> None:
    """Ports, hosts, URLs and websockets. A token is shown by nothing but the address for clients."""
    address = Address.of(given)
    assert address.for_clients == for_clients
    assert "secret" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    "given", ["", "ftp://x", "http://", "host:port", "ws://127.0.0.1:1/devtools/page/1", 0, "99999999"]
)
def test_what_is_no_address_of_a_browser_is_refused(given: str | int) -> None:
    """A slip is a ConfigurationError before anything is connected."""
    with pytest.raises(ConfigurationError, match=r"write a port|one page"):
        Address.of(given)


@asynccontextmanager
async def saying(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Give each connection the same answer. Yield the port, and what is asked."""
    asked: list[bytes] = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(4096))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\nwelcome", b"\x00\xff"])
async def test_a_port_of_something_else_is_named(answer: bytes) -> None:
    """A mail server, a proxy that says nothing: an `AdapterError`, as for any address without a browser."""
    async with saying(answer) as (port, _):
        with pytest.raises(AdapterError, match=rf"http://127\.0\.0\.1:{port}"):
            await Address.of(port).websocket()


async def test_a_password_in_an_address_is_sent_and_not_shown() -> None:
    """Gateways take it as HTTP does. It is no part of the host."""
    async with saying(b"HTTP/1.1 401 Unauthorized\r\n\r\n") as (port, asked):
        with pytest.raises(AdapterError, match="401") as caught:
            await Address.of(f"http://user:se%23cret@127.0.0.1:{port}").websocket()
    assert "cret" not in str(caught.value)
    assert f"Authorization: Basic {b64encode(b'user:se#cret').decode()}".encode() in asked[0]


@asynccontextmanager
async def answering(answers: dict[str, Any]) -> AsyncIterator[str]:
    """Serve a websocket that answers DevTools commands with given results, and others with an error."""

    async def serve_commands(socket: Any) -> None:
        async for text in socket:
            command = json.loads(text)
            result = (
                {"result": answers[command["method"]]} if command["method"] in answers else {"error": {"message": "no"}}
            )
            await socket.send(json.dumps({"id": command["id"], **result}))

    async with serve(serve_commands, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/secret"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"Browser.getVersion": {"product": "Firefox/115.0"}}, "Firefox"),
        ({"Browser.getVersion": {"product": "HeadlessChrome/96.0.1"}}, "too old"),
        ({"Browser.getVersion": {"product": "Chrome/156.0"}}, "cannot be used"),
        ({}, "cannot be used"),
    ],
)
async def test_a_browser_that_cannot_be_used_says_why(answers: dict[str, Any], message: str) -> None:
    """Firefox, an old Chromium, and what is no browser at all are named. The address's path is not shown."""
    async with answering(answers) as address:
        with pytest.raises(AdapterError, match=message) as raised:
            async with attach_cdp(BrowserSession("x"), address):
                pass
    assert "secret" not in str(raised.value)


class _Refusing(PageHandler):
    """Answers with the status that the path names. 200 comes with a body that is no JSON."""

    def respond(self) -> None:
        self.answer("hello", status=int(self.path.split("/")[1]))


@pytest.mark.parametrize(
    ("path", "message"),
    [("/404", "Firefox has none"), ("/403", "token"), ("/200", "no DevTools address"), (None, "no browser answers")],
)
async def test_an_address_without_a_browser_names_the_remedy(path: str | None, message: str) -> None:
    """No one there, another server there, a token that is refused: each has its own message."""
    with serving(_Refusing) as port:
        address = f"http://127.0.0.1:{port}{path}" if path else f"http://127.0.0.1:{free_port()}"
        with pytest.raises(AdapterError, match=message):
            async with attach_cdp(BrowserSession("x"), address):
                pass


async def test_a_chromium_that_does_not_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends at once, and one that is not there: the reason is told, the folder is removed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho the reason >&2\nexit 7\n")
    program.chmod(0o755)
    with pytest.raises(AdapterError, match="code 7 at its start: the reason"):
        async with open_chromium(BrowserSession("x"), executable=program):
            pass
    program.write_text("#!/nowhere/at-all\n")
    with pytest.raises(AdapterError, match="cannot be started"):
        async with open_chromium(BrowserSession("x"), executable=program):
            pass
    assert os.listdir(tmp_path) == ["program"]


async def test_a_browser_that_was_not_opened_stores_nothing() -> None:
    """Nothing was seen of it. The next agent would find an empty session in place of none."""
    async with memory_manager() as manager:
        with pytest.raises(AdapterError):
            async with (
                reusable_session("shop.example/alice", manager=manager) as session,
                attach_cdp(session, free_port()),
            ):
                pass
        assert session.save_outcome is SaveOutcome.SKIPPED
        assert await manager.restore("shop.example/alice") is None


async def test_a_browser_that_was_not_opened_costs_no_login_of_before() -> None:
    """An agent that tries a second browser has still logged in with the first one."""
    async with memory_manager() as manager:
        async with reusable_session("shop.example/alice", manager=manager) as session:
            session.storage_state = state_with_cookie()
            with pytest.raises(AdapterError):
                async with attach_cdp(session, free_port()):
                    pass
        assert session.save_outcome is SaveOutcome.SAVED


def test_a_browser_that_was_not_opened_is_a_failed_capture_in_blocking_code() -> None:
    """So its exit saves nothing either."""
    session = blocking.BrowserSession("shop.example/alice")
    with pytest.raises(AdapterError), attach_cdp(session, free_port()):
        pass
    assert kinds(session) == {ProblemKind.CAPTURE_FAILED}


def test_a_full_disk_is_named(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile has no room: the message says which folder, and what to set."""
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(AdapterError, match=r"is full"), open_chromium(blocking.BrowserSession("x")):
        pass
    assert list(small_disk.iterdir()) == []


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path, as those for temporary files have."""
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp") as folder:
        yield Path(folder)


def test_a_killed_process_leaves_no_browser_and_no_folder(short_folder: Path) -> None:
    """`kill -9` of the process that has opened the browser ends the browser, and removes its profile."""
    program = (
        "import time\nfrom session_reuse.blocking import BrowserSession\n"
        "from session_reuse.browsers.cdp import open_chromium\n"
        "with open_chromium(BrowserSession('x')) as chromium:\n    print(chromium.process.pid, flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(short_folder)}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline())
        assert processes_with(str(short_folder))
        process.kill()
    wait_until(lambda: not processes_with(str(short_folder)), message="the browser lives on")
    wait_until(lambda: not list(short_folder.iterdir()), message="the profile is still there")
