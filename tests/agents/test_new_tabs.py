"""Tabs that come and go: a new one waits for the restore, one that is faster is followed, one that was closed holds up nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from session_reuse import BrowserSession, ProblemKind
from session_reuse._browser.drivers.connection import CdpConnection, CdpError
from session_reuse._browser.drivers.devtools import DevToolsDriver
from session_reuse._browser.flow import run_async
from session_reuse._browser.tabs import Target, frame_of
from tests.browsers.patience import set_limit
from tests.harness.polling import until

ORIGIN = "https://shop.example"


class FakeBrowser:
    """The browser's side of a websocket: it does what the test calls, and nothing else."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, str], int] = {}
        self._messages: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, text: str) -> None:
        """Take a command."""
        command = json.loads(text)
        self.sent[command["method"], command.get("sessionId", "")] = command["id"]

    def __aiter__(self) -> FakeBrowser:
        return self

    async def __anext__(self) -> str:
        return await self._messages.get()

    async def close(self) -> None:
        """End."""

    def emit(self, method: str, params: dict[str, Any], cdp_session_id: str = "") -> None:
        """Send an event."""
        self._messages.put_nowait(json.dumps({"method": method, "params": params, "sessionId": cdp_session_id}))

    def has(self, method: str, cdp_session_id: str = "s") -> bool:
        """Return whether a command has arrived."""
        return (method, cdp_session_id) in self.sent

    async def answer(self, method: str, cdp_session_id: str = "s", **answer: Any) -> None:
        """Answer a command once it has arrived: with `result` or `error`."""
        await until(lambda: self.has(method, cdp_session_id), message=f"{method} was not sent")
        self._messages.put_nowait(json.dumps({"id": self.sent[method, cdp_session_id], **answer}))


@asynccontextmanager
async def following(
    browser: FakeBrowser, session: BrowserSession, engine: object, *, is_own: bool
) -> AsyncIterator[DevToolsDriver]:
    """Follow the tabs of a browser with a new profile."""
    driver = DevToolsDriver(browser, session, of_target=None, is_own=is_own)
    driver.engine = engine  # type: ignore[assignment]
    begun = asyncio.create_task(run_async(driver.follow(is_new_profile=True)))
    await browser.answer("Target.setAutoAttach", "", result={})
    await begun
    yield driver
    await asyncio.gather(*driver.cancel_tasks(), return_exceptions=True)
    await driver.connection.close()


def open_tab(browser: FakeBrowser, *, is_paused: bool) -> None:
    """Open a tab, as the DevTools session `s`."""
    target = {"targetId": "t", "type": "page"}
    browser.emit(
        "Target.attachedToTarget", {"sessionId": "s", "targetInfo": target, "waitingForDebugger": is_paused}
    )  # fmt: skip


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_tab_that_cannot_be_loaded_again_is_followed(is_own: bool) -> None:
    """A busy browser does not answer in time: the tab is adopted, and the events that have waited are applied."""
    followed: list[str] = []

    def fail(*_: object) -> Any:
        raise CdpError("the payload could not be filled in 4 s")

    def adopt(target: Target, tree: Any) -> None:
        target.tab.frames["f"] = frame_of(tree["frame"], target, 0.0)
        followed.append("adopted")

    follower = SimpleNamespace(
        opened=lambda _: None,
        adopt=adopt,
        evaluate=fail,
        on_event=lambda _, method, __: followed.append(method),
    )
    scripts = SimpleNamespace(sections=lambda _: {"localStorage"}, started=())
    restorer = SimpleNamespace(scripts=scripts, fill=fail)
    browser, session = FakeBrowser(), BrowserSession("x")
    async with following(
        browser, session, SimpleNamespace(follower=follower, restorer=restorer), is_own=is_own
    ):  # fmt: skip
        open_tab(browser, is_paused=True)
        browser.emit("Page.loadEventFired", {}, "s")
        frame = {"id": "f", "loaderId": "l", "url": ORIGIN, "securityOrigin": ORIGIN}
        await browser.answer("Page.getFrameTree", result={"frameTree": {"frame": frame}})
        if is_own:
            await browser.answer("DOMStorage.clear", error={"message": "the browser is busy"})
        await until(lambda: followed == ["adopted", "Page.loadEventFired"])
        browser.emit("Page.frameNavigated", {}, "s")
        await until(lambda: followed[2:] == ["Page.frameNavigated"])
        if is_own:
            await until(lambda: browser.has("Page.navigate"))
    assert [problem.kind for problem in session.problems] == [ProblemKind.RESTORE_FAILED] * is_own


@pytest.mark.parametrize("is_paused", [True, False])
@pytest.mark.parametrize("is_answered", [True, False])
async def test_documents_of_a_new_tab_wait_for_its_scripts(
    monkeypatch: pytest.MonkeyPatch, is_answered: bool, is_paused: bool
) -> None:
    """A tab is paused until it has taken the scripts, or for a time limit. The documents of one that cannot be are held."""
    set_limit(monkeypatch, "INIT_SCRIPT", 30.0 if is_answered else 0.05)
    browser, engine = FakeBrowser(), SimpleNamespace(follower=SimpleNamespace(opened=lambda _: None))
    async with following(browser, BrowserSession("x"), engine, is_own=False) as driver:
        await driver.add_script("0")
        open_tab(browser, is_paused=is_paused)
        await browser.answer("Target.setAutoAttach", result={})
        assert browser.has("Fetch.enable") is not is_paused
        if is_answered:
            await round_trip(browser, driver.connection)
            assert not browser.has("Runtime.runIfWaitingForDebugger")
            await browser.answer("Page.addScriptToEvaluateOnNewDocument", result={})
        await until(lambda: browser.has("Runtime.runIfWaitingForDebugger"))
        await round_trip(browser, driver.connection)
        assert browser.has("Fetch.disable") is not is_paused


async def round_trip(browser: FakeBrowser, connection: CdpConnection) -> None:
    """Wait until both sides have taken what the other has sent before."""
    browser.sent.pop(("Browser.getVersion", ""), None)
    answer = asyncio.create_task(connection.send("Browser.getVersion"))
    await browser.answer("Browser.getVersion", "", result={})
    await answer


async def test_a_command_to_a_tab_that_is_gone_fails_at_once() -> None:
    """The browser answers nothing that a closed tab was still to answer. Other sessions are not concerned."""
    browser = FakeBrowser()
    connection = CdpConnection(browser, lambda *_: None)
    other = connection.post("Runtime.evaluate", cdp_session_id="other")
    browser.emit("Target.detachedFromTarget", {"sessionId": "gone"})
    with pytest.raises(CdpError, match="the tab is gone"):
        await connection.send("Runtime.evaluate", cdp_session_id="gone", timeout=30)
    assert not other.done()
    await connection.close()
