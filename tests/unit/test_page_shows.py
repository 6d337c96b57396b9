"""The check `page_shows` and a login by hand, over a browser of the test's own."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from session_reuse import BrowserSession
from session_reuse.browsers import _manual_login, cdp
from session_reuse.browsers._manual_login import ManualLogin, Until
from session_reuse.browsers.cdp import Chromium, page_shows
from session_reuse.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Callable

CHROMIUM = Chromium("http://127.0.0.1:1", "ws://127.0.0.1:1/devtools/browser/x")
PAGE = {
    "targetId": "t",
    "sessionId": "s",
    "targetInfos": [{"targetId": "t", "type": "page"}],
    "result": {"value": ["complete", "http://shop.test/me", "Alice", 200]},
}
REFUSED = {"message": "Inspected target navigated or closed"}


class Browser:
    """A transport that answers each command as the test wants.

    Args:
        answer: called with the method. Returns the members of the answer, or None for no answer.
    """

    def __init__(self, answer: Callable[[str], dict[str, Any] | None]) -> None:
        self._answer = answer
        self._answers: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, message: str) -> None:
        """Answer a command."""
        command = json.loads(message)
        members = self._answer(command["method"])
        if members is not None:
            self._answers.put_nowait(json.dumps({"id": command["id"], **members}))

    def __aiter__(self) -> Browser:
        return self

    async def __anext__(self) -> str:
        return await self._answers.get()

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_page_between_two_documents_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site that sends its visitor on by script has not ended the login: the browser refuses a look meanwhile."""
    looks: list[str] = []

    def answer(method: str) -> dict[str, Any]:
        looks.extend(["look"] * (method == "Runtime.evaluate"))
        return {"error": REFUSED} if method == "Runtime.evaluate" and len(looks) == 1 else {"result": PAGE}

    monkeypatch.setattr(cdp, "open_websocket", _opened(answer))
    assert await page_shows("http://shop.test/", "alice")(CHROMIUM)
    assert len(looks) == 2


@pytest.mark.parametrize("url", ["http://shop.test", "http://Shop.test:80/", "http://shop.test/"])
async def test_a_page_is_right_however_its_url_is_written(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser adds the slash of a bare host, and removes the port of the scheme. That is no way to a login form."""
    page = {**PAGE, "result": {"value": ["complete", "http://shop.test/", "", 200]}}
    monkeypatch.setattr(cdp, "open_websocket", _opened(lambda _: {"result": page}))
    assert await page_shows(url, timeout=1)(CHROMIUM)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_site_in_trouble_proves_nothing(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe would take its page for a dead login, or for a live one. A page that shows the text is the right one."""
    page = {**PAGE, "result": {"value": ["complete", "http://shop.test/me", "Alice", status]}}
    monkeypatch.setattr(cdp, "open_websocket", _opened(lambda _: {"result": page}))
    for text in (None, "Bob"):
        with pytest.raises(AdapterError, match=f"shop.test answered {status}"):
            await page_shows("http://shop.test/me", text, timeout=0.3)(CHROMIUM)
    assert await page_shows("http://shop.test/me", "alice", timeout=0.3)(CHROMIUM)


async def test_a_refusal_without_a_page_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chromium shows an error page of its own for an empty 401. For an empty 503 too, which proves nothing."""
    for status in (401, 503):
        result = {"value": ["complete", "chrome-error://chromewebdata/", "HTTP ERROR", status]}
        page = {**PAGE, "errorText": "net::ERR_HTTP_RESPONSE_CODE_FAILURE", "result": result}
        monkeypatch.setattr(cdp, "open_websocket", _opened(lambda _, page=page: {"result": page}))
        check = page_shows("http://shop.test/me", timeout=0.2)(CHROMIUM)
        if status == 401:
            assert not await check
        else:
            with pytest.raises(AdapterError, match="answered 503"):
                await check


async def test_a_site_that_does_not_answer_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs before its first byte, which says nothing about the login. A page without the text does."""
    monkeypatch.setattr(cdp, "open_websocket", _opened(lambda m: None if m == "Page.navigate" else {"result": PAGE}))
    with pytest.raises(AdapterError, match="did not answer in time"):
        await page_shows("http://shop.test/", "Alice", timeout=0.1)(CHROMIUM)
    monkeypatch.setattr(cdp, "open_websocket", _opened(lambda _: {"result": PAGE}))
    assert not await page_shows("http://shop.test/", "Bob", timeout=0.1)(CHROMIUM)


@pytest.mark.parametrize("work", ["check", "login"])
async def test_a_cancellation_outlives_an_error_of_the_browser(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while a check or a login by hand gives its tab back does not take the place of the cancellation."""
    looking = asyncio.Event()

    def answer(method: str) -> dict[str, Any] | None:
        if method == "Runtime.evaluate":
            looking.set()
            return None
        is_end = method in ("Target.closeTarget", "Target.detachFromTarget")
        return {"error": REFUSED} if is_end else {"result": PAGE}

    monkeypatch.setattr(_manual_login if work == "login" else cdp, "open_websocket", _opened(answer))
    login = ManualLogin(BrowserSession("x"), CHROMIUM, Until(None, "alice", None))
    login_or_check = {
        "login": lambda: login.run("http://shop.test/", asyncio.Event()),
        "check": lambda: page_shows("http://shop.test/", "alice")(CHROMIUM),
    }
    task: asyncio.Task[object] = asyncio.create_task(login_or_check[work]())
    await looking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _opened(answer: Callable[[str], dict[str, Any] | None]) -> Callable[[str], Any]:
    async def open_websocket(_url: str) -> Browser:
        return Browser(answer)

    return open_websocket
