"""A cancellation that a library has swallowed is raised again, one that the application has handled is not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from session_reuse._cancellation import SwallowedCancellation
from session_reuse._cleanup import notifications
from session_reuse._store.redis.listing import keys_like
from tests.harness.stored import KEYS


async def swallow() -> None:
    """Wait, and go on when cancelled, as `asyncio.wait_for` of Python 3.11 does when the answer comes just then."""
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        return


async def cancelled(work: Any) -> asyncio.Task[Any]:
    """Return a task that was cancelled while it waited."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    return task


async def test_a_swallowed_cancellation_is_raised_again() -> None:
    """The task ends as cancelled instead of going on."""

    async def work() -> None:
        cancellation = SwallowedCancellation()
        await swallow()
        cancellation.raise_again()

    assert (await cancelled(work())).cancelled()


async def test_an_earlier_cancellation_is_none_of_ours() -> None:
    """An application that caught its cancellation goes on to use us."""

    async def work() -> str:
        await swallow()
        cancellation = SwallowedCancellation()
        await asyncio.sleep(0)
        cancellation.raise_again()
        return "went on"

    assert (await cancelled(work())).result() == "went on"


async def test_a_listing_ends_when_it_is_cancelled_although_the_client_swallows_it() -> None:
    """Ctrl-C during a long list: the client returns a page as if nothing had happened."""
    pages = 0

    async def execute_command(*_: object) -> tuple[int, list[bytes]]:
        nonlocal pages
        pages += 1
        await swallow()
        return 17, [b"browser:session:a"]

    async def primaries() -> list[Any]:
        return [SimpleNamespace(execute_command=execute_command)]

    async def walk() -> None:
        async for _ in keys_like(SimpleNamespace(primaries=primaries), "browser:session:*", timeout=60):  # type: ignore[arg-type]
            pass

    assert (await cancelled(walk())).cancelled()
    assert pages == 1


class SwallowingPubSub:
    """A subscription whose wait for a message swallows a cancellation."""

    def __init__(self, _: Any) -> None:
        self.waits = 0

    async def subscribe(self, *_: str) -> None:
        """Do nothing."""

    async def get_message(self, *, timeout: float) -> None:
        """Wait, and swallow the first cancellation."""
        del timeout
        self.waits += 1
        await (swallow() if self.waits == 1 else asyncio.sleep(30))

    async def aclose(self) -> None:
        """Do nothing."""


async def test_listening_for_expired_sessions_ends_with_a_swallowed_cancellation(monkeypatch: Any) -> None:
    """A manager that is closed at the wrong moment does not wait for its clean-up job forever."""
    monkeypatch.setattr(notifications, "PubSub", SwallowingPubSub)
    pool = SimpleNamespace(connection_kwargs={})
    store: Any = SimpleNamespace(
        client=SimpleNamespace(connection_pool=pool), topology=SimpleNamespace(servers=no_servers), keys=KEYS
    )
    listener = notifications.Notifications(
        store=store, configure=False, on_hint=print, on_gap=lambda: None, on_trouble=lambda *_: None
    )
    task = asyncio.ensure_future(listener.run(1.0))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.done()


async def no_servers() -> list[Any]:
    """Return no server to check."""
    return []
