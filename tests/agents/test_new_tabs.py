"""Tabs that come and go: a new one waits for the restore, one that is faster is followed, one that is gone holds up nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from session_reuse._browser import limits
from session_reuse._browser.drivers.connection import CdpConnection, CdpError
from session_reuse._browser.drivers.devtools import DevToolsDriver, _Attached
from session_reuse._browser.flow import run_async
from session_reuse._browser.tabs import Tab, Target
from session_reuse._browser_session import BrowserSession
from session_reuse._problem import ProblemKind
from tests.harness.polling import until

ORIGIN = "https://shop.example"


class SilentTransport:
    """A websocket to a browser that answers nothing."""

    async def send(self, text: str) -> None:
        """Take a command."""

    def __aiter__(self) -> SilentTransport:
        return self

    async def __anext__(self) -> str:
        await asyncio.Event().wait()
        raise StopAsyncIteration

    async def close(self) -> None:
        """End."""


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_tab_that_cannot_be_loaded_again_is_followed(monkeypatch: pytest.MonkeyPatch, is_own: bool) -> None:
    """A busy browser does not answer in time: the tab is adopted, and the events that have waited are applied."""
    session = BrowserSession("x")
    driver = DevToolsDriver(
        SilentTransport(), session, of_target=None, is_own=is_own, pauses_tabs=True, on_stir=lambda: None
    )
    followed: list[Any] = []

    def fail(*_: Any) -> Any:
        raise CdpError("Page.navigate was not answered in 4 s")

    tree: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    tree.set_result({"frameTree": {"frame": {"id": "f", "loaderId": "l", "url": ORIGIN, "securityOrigin": ORIGIN}}})
    posted: list[str] = []
    monkeypatch.setattr(driver.connection, "post", lambda method, *_, **__: posted.append(method) or tree)
    monkeypatch.setattr(driver, "_start_over", fail)
    monkeypatch.setattr(driver, "_fill_and_reload", fail)
    follower = SimpleNamespace(
        adopt=lambda *_: followed.append("adopted"), on_event=lambda *each: followed.append(each[1])
    )
    scripts = SimpleNamespace(sections=lambda _: {"localStorage"})
    monkeypatch.setattr(
        driver, "engine", SimpleNamespace(follower=follower, restorer=SimpleNamespace(scripts=scripts)), raising=False
    )
    attached = _Attached(Target("s", Tab("t")))
    assert attached.waiting is not None
    attached.waiting.append(("Page.loadEventFired", {}))
    try:
        await run_async(driver._adopt(attached, is_new_tab=True))
    except CdpError:
        assert not is_own
    assert followed == ["adopted", "Page.loadEventFired"]
    assert attached.waiting is None
    if is_own:
        assert posted[-1] == "Page.navigate"
        assert [problem.kind for problem in session.problems] == [ProblemKind.RESTORE_FAILED]
    await driver.connection.close()


@pytest.mark.parametrize("is_paused", [True, False])
@pytest.mark.parametrize("is_answered", [True, False])
async def test_documents_of_a_new_tab_wait_for_its_scripts(
    monkeypatch: pytest.MonkeyPatch, is_answered: bool, is_paused: bool
) -> None:
    """A tab is paused until it has taken the scripts, or for a time limit. The documents of one that cannot be are held."""
    monkeypatch.setattr(limits, "INIT_SCRIPT", 30.0 if is_answered else 0.05)
    driver = DevToolsDriver(
        SilentTransport(), BrowserSession("x"), of_target=None, is_own=False, pauses_tabs=True, on_stir=lambda: None
    )
    driver._is_starting = False
    driver.engine = SimpleNamespace(follower=SimpleNamespace(opened=lambda _: None))  # type: ignore[assignment]
    answers: dict[str, asyncio.Future[Any]] = {}

    def post(method: str, *_: Any, **__: Any) -> asyncio.Future[Any]:
        return answers.setdefault(method, asyncio.get_running_loop().create_future())

    monkeypatch.setattr(driver.connection, "post", post)
    await driver.add_script("0")
    target = {"targetId": "t", "type": "page"}
    event = {"sessionId": "s", "targetInfo": target, "waitingForDebugger": is_paused}
    driver._on_event("Target.attachedToTarget", event, "")
    assert ("Fetch.enable" in answers) is not is_paused
    answers["Target.setAutoAttach"].set_result({})
    await asyncio.sleep(0)
    assert "Runtime.runIfWaitingForDebugger" not in answers
    if is_answered:
        answers["Page.addScriptToEvaluateOnNewDocument"].set_result({})
    await until(lambda: "Runtime.runIfWaitingForDebugger" in answers, timeout=10)
    assert ("Fetch.disable" in answers) is not is_paused
    await asyncio.gather(*driver.cancel_tasks(), return_exceptions=True)
    await driver.connection.close()


async def test_a_command_to_a_tab_that_is_gone_fails_at_once() -> None:
    """The browser answers nothing that a closed tab was still to answer; other sessions are not concerned."""

    class ClosingTransport(SilentTransport):
        is_told = False

        async def __anext__(self) -> str:
            if self.is_told:
                return await super().__anext__()
            self.is_told = True
            return '{"method": "Target.detachedFromTarget", "params": {"sessionId": "gone"}}'

    connection = CdpConnection(ClosingTransport(), lambda *_: None)
    other = connection.post("Runtime.evaluate", cdp_session_id="other")
    with pytest.raises(CdpError, match="the tab is gone"):
        await connection.send("Runtime.evaluate", cdp_session_id="gone", timeout=30)
    assert not other.done()
    await connection.close()
