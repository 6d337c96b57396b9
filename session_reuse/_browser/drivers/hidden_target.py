"""A DevTools session with a hidden target, over Playwright's session with the browser, which opens none of its own to it."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from session_reuse._browser.driver import EventHandler, Params
    from session_reuse._browser.drivers.playwright import PlaywrightDriver
    from session_reuse._browser.flow import Flow


class HiddenTarget:
    """What Playwright's `CDPSession` is to a page, for both APIs.

    Args:
        driver: of the session with the browser.
        browser_cdp: that session, ours alone. The target ends with it.
        on_event: called with this, a method and parameters.

    Attributes:
        session_id: set when the target is attached.
    """

    def __init__(self, driver: PlaywrightDriver, browser_cdp: Any, on_event: EventHandler) -> None:
        self.session_id = ""
        self._driver = driver
        self._browser_cdp = browser_cdp
        self._on_event = on_event
        self._numbers = itertools.count(1)
        self._replies: dict[int, Params] = {}
        browser_cdp.on("Target.receivedMessageFromTarget", self._received)

    def send(self, method: str, params: Params, limit: float) -> Flow[Params]:
        """Send a command and return its result.

        Raises:
            TimeoutError: not answered within `limit` seconds.
        """
        number = next(self._numbers)
        message = json.dumps({"id": number, "method": method, "params": params})
        wrapped = {"sessionId": self.session_id, "message": message}
        yield self._driver.send(self._browser_cdp, "Target.sendMessageToTarget", wrapped, limit)
        deadline = time.monotonic() + limit
        while number not in self._replies:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{method} was not answered")
            yield self._driver.pause(self._browser_cdp)
        answer = self._replies.pop(number)
        if "error" in answer:
            raise self._driver.errors[0](f"{method}: {answer['error'].get('message')}")
        result: Params = answer["result"]
        return result

    def _received(self, event: Params) -> None:
        message = json.loads(event["message"])
        if "id" in message:
            self._replies[message["id"]] = message
        else:
            self._on_event(self, message["method"], message.get("params", {}))

    def detach(self) -> Any:
        """End the session, and the target with it, as a step."""
        return self._browser_cdp.detach()
