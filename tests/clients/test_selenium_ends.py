"""Selenium: whatever ends a `with`, nothing stays behind, and the body's own exception comes out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from selenium.common import WebDriverException

from session_reuse import blocking
from session_reuse.browsers import selenium as adapter
from session_reuse.browsers._attachment import Attachment
from session_reuse.errors import LifecycleError
from session_reuse.testing import MemoryStore
from tests.harness.probes import captures_of

if TYPE_CHECKING:
    from session_reuse import BrowserSession


class DeadDriver:
    """A driver whose browser was killed."""

    def __init__(self) -> None:
        self.capabilities = {"browserName": "chrome", "goog:chromeOptions": {"debuggerAddress": "127.0.0.1:1"}}

    @property
    def current_window_handle(self) -> str:
        """The window, which is closed."""
        raise WebDriverException("no such window")

    def close(self) -> None:
        """Fail, as there is no browser."""
        raise WebDriverException("no such window")

    def quit(self) -> None:
        """Fail, as drivers of a grid do."""
        raise WebDriverException("invalid session id")


def threads() -> int:
    """Return how many threads of ours run."""
    return sum(thread.name == "session_reuse.cdp" for thread in threading.enumerate())


def test_the_bodys_own_exception_outlives_a_quit_that_fails(session: BrowserSession) -> None:
    """A driver that is dead at the end takes nothing from the agent's exception."""
    make: Any = DeadDriver
    with pytest.raises(ZeroDivisionError), adapter.open_driver(session, make):
        raise ZeroDivisionError
    assert not threads()


@pytest.mark.parametrize("step", ["start", "finish"])
def test_an_interrupt_leaves_no_hooks_and_no_thread(
    session: BrowserSession, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C at the restore or the last capture releases the driver, which works as before."""

    async def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Attachment, step, interrupted)
    driver: Any = DeadDriver()
    with pytest.raises(KeyboardInterrupt), adapter.attach_driver(session, driver):
        pass
    assert vars(driver).keys() == {"capabilities"}
    assert not captures_of(session)
    assert not threads()


def test_a_session_that_was_left_takes_no_driver() -> None:
    """What a driver would store in a blocking session after its `with` would never be saved."""
    with (
        blocking.SessionManager(MemoryStore(), registry=None) as manager,
        blocking.reusable_session("site/alice", manager=manager) as session,
    ):
        pass
    driver: Any = DeadDriver()
    with pytest.raises(LifecycleError), adapter.attach_driver(session, driver):
        pass
    with pytest.raises(LifecycleError):
        session.bind_capture(lambda: session.storage_state)
