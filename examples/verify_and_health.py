# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Check that a restored login still works, and mark it as bad for all agents if it does not."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

from session_reuse import BrowserSession, SessionManager, reusable_session

NAME = "verified-bank.example/alice"
valid_tickets: set[str] = set()
"""The tickets that the bank's server still accepts."""


def ticket_of(session: BrowserSession) -> str | None:
    """Return the value of the login cookie."""
    found = (cookie["value"] for cookie in session.storage_state["cookies"] if cookie["name"] == "ticket")
    return next(found, None)


def log_in(session: BrowserSession) -> None:
    """Replace the ticket by a new one."""
    ticket = secrets.token_hex(8)
    valid_tickets.add(ticket)
    session.storage_state["cookies"] = [
        {"name": "ticket", "value": ticket, "domain": "verified-bank.example", "path": "/", "expires": -1}
    ]


async def still_logged_in(session: BrowserSession) -> bool:
    """Check the ticket. A real check would open a page that needs a login."""
    return ticket_of(session) in valid_tickets


async def visit(manager: SessionManager, text: str, *, log_in_if_needed: bool = True) -> None:
    """Enter with a check, which runs again before the save."""
    async with reusable_session(NAME, manager=manager, verify=still_logged_in) as session:
        if not session.reused and log_in_if_needed:
            log_in(session)
    print(f"{text:34} enter {session.outcome:11} leave {session.save_outcome}")


async def main() -> None:
    """Log in, lose the login, log in again, and mark a login as bad."""
    async with SessionManager() as manager:
        await manager.evict(NAME, "a clean start for the example")
        await visit(manager, "first visit:")
        await visit(manager, "second visit:")
        valid_tickets.clear()
        await visit(manager, "the bank ended it, no new login:", log_in_if_needed=False)
        await visit(manager, "with a new login:")

        for _ in range(3):
            async with reusable_session(NAME, manager=manager) as session:
                session.mark_bad("the page asks for a captcha")
        await visit(manager, "marked bad three times:")

        await asyncio.sleep(0.01)
        async with reusable_session(NAME, manager=manager, max_age=timedelta(milliseconds=1)) as session:
            print(f"{'older than max_age:':34} enter {session.outcome}")
            session.discard()


asyncio.run(main())
