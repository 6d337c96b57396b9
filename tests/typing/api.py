"""Never run: what type checkers must make of the public interface."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, assert_type

from playwright.async_api import Browser

from session_reuse import (
    BrowserSession,
    Cookie,
    OriginState,
    Outcome,
    SaveOutcome,
    SessionManager,
    StorageState,
    blocking,
    injected,
    persist_session,
    reusable_session,
)


async def use() -> None:
    """The context manager, asynchronous."""
    async with SessionManager("redis://127.0.0.1", ttl=60.0) as manager:
        async with reusable_session("a", agent_id="b", manager=manager, exclusive=True, wait=1) as session:
            assert_type(session, BrowserSession)
            assert_type(session.outcome, Outcome)
            assert_type(await session.checkpoint(), SaveOutcome)
            assert_type(session.data, dict[str, Any])
        assert_type(await manager.restore("a"), BrowserSession | None)
        assert_type(await manager.save(session), SaveOutcome)
        assert_type(session.export(), bytes)


async def state(session: BrowserSession, browser: Browser) -> None:
    """A stored state has names and types, and goes to Playwright and comes from it without a cast."""
    assert_type(session.storage_state, StorageState)
    assert_type(session.storage_state["cookies"], list[Cookie])
    assert_type(session.storage_state["origins"], list[OriginState])
    assert_type(session.storage_state["cookies"][0]["value"], str)
    context = await browser.new_context(storage_state=session.to_playwright())
    session.storage_state = await context.storage_state()
    session.storage_state = {"cookies": [{"name": "sid", "value": "x", "domain": "shop.example"}], "origins": []}
    BrowserSession("a", storage_state=await context.storage_state())


async def settings() -> None:
    """Settings have names and types, and durations may be `timedelta`s."""
    SessionManager(ttl=timedelta(days=1), encryption_keys=["a" * 64], spool_dir="/tmp/spool", registry=None)
    blocking.SessionManager("redis://127.0.0.1", max_uses=None, on_expired=print, restore_timeout=1)


def use_blocking() -> None:
    """The context manager, synchronous."""
    with blocking.reusable_session("a") as session:
        assert_type(session.checkpoint(), SaveOutcome)


@persist_session("shop/{account}")
async def checkout(account: str, amount: int = 1) -> float:
    """An asynchronous entry function."""
    return amount * 1.0


@persist_session(fingerprint=lambda account: account)
def plain(account: str) -> int:
    """A plain entry function."""
    return len(account)


assert_type(plain("x"), int)


class Shop:
    """Entry points that are methods, one of them with the session in the middle."""

    @persist_session("shop/{account}", exclusive=True, wait=5)
    async def visit(self, account: str, *, session: BrowserSession = injected()) -> str:
        """Use the session without a check for None."""
        assert_type(session, BrowserSession)
        return session.fingerprint

    @persist_session("shop/{account}")
    def look(self, account: str, session: blocking.BrowserSession = injected(), page: int = 1) -> int:
        """Use the blocking twin."""
        assert_type(session.checkpoint(), SaveOutcome)
        return page


@persist_session("shop/{account}")
async def optional(account: str, *, session: BrowserSession | None = injected()) -> str:
    """Keep working with the default None of older code."""
    return account if session is None else session.fingerprint


coroutine: Callable[..., Coroutine[Any, Any, float]] = checkout


async def call() -> None:
    """Callers see the function's own parameters."""
    assert_type(await checkout("x", amount=2), float)
    assert_type(await Shop().visit("x"), str)
    assert_type(Shop().look("x"), int)
    assert_type(await optional("x"), str)


SessionManager(ttl=timedelta(hours=1), registry=None, encryption_keys=["0" * 64], spool_dir="spool")
blocking.SessionManager("redis://127.0.0.1", strict=True)
