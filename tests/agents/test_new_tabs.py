"""A tab that is faster than the restore is followed, whatever comes of loading it again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from session_reuse._browser.drivers.connection import CdpError
from session_reuse._browser.drivers.devtools import DevToolsDriver, _Attached
from session_reuse._browser.flow import run_async
from session_reuse._browser.tabs import Tab, Target
from session_reuse._browser_session import BrowserSession
from session_reuse._problem import ProblemKind

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
