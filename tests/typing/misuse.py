"""Never run. Each line marked `wrong` is an error that type checkers find, and no other line is one."""

from __future__ import annotations

from session_reuse import BrowserSession, SessionManager, blocking, persist_session, reusable_session


@persist_session("shop/{account}")
async def checkout(account: str, amount: int = 1) -> float:
    """An asynchronous entry function."""
    return amount * 1.0


@persist_session(fingerprint=lambda account: account)
def plain(account: str) -> int:
    """A plain entry function."""
    return len(account)


async def call() -> None:
    """Callers see the function's own parameters."""
    await checkout(1)  # wrong
    await checkout("x", amount="2")  # wrong
    await checkout("x", colour="red")  # wrong
    await reusable_session("a")  # wrong


def call_plain() -> None:
    """Synchronous code."""
    plain(b"x")  # wrong
    persist_session(on_busy="never")  # wrong
    with reusable_session("a"):  # wrong
        pass
    SessionManager(tll=60)  # wrong, unseen by ty
    SessionManager(ttl="60")  # wrong
    blocking.SessionManager(lanes=2.0)  # wrong
    BrowserSession("a").storage_state["cookie"]  # wrong
    BrowserSession("a").storage_state = "{}"  # wrong
