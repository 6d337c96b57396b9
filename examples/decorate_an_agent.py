# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Decorate the entry function of an agent. Names are templates over its arguments, and plain functions work as well."""

from __future__ import annotations

import asyncio

from session_reuse import BrowserSession, blocking, injected, persist_session


@persist_session(fingerprint="decorated-shop.example/{account}", agent_id="{agent}")
async def checkout(account: str, agent: str, *, session: BrowserSession = injected()) -> str:
    """Buy something. The decorator passes `session`."""
    greeting = "welcome back" if session.reused else "please log in"
    session.data["orders"] = session.data.get("orders", 0) + 1
    return f"{account} via {agent}: {greeting}, order number {session.data['orders']}"


@persist_session(fingerprint=lambda account: f"decorated-bank.example/{account}")
def balance(account: str, *, session: blocking.BrowserSession = injected()) -> str:
    """Read the balance, in synchronous code."""
    session.data["looked"] = session.data.get("looked", 0) + 1
    return f"{account}: looked {session.data['looked']} times, reused={session.reused}"


async def main() -> None:
    """Run two agents with different accounts at once, then the first one again."""
    for line in await asyncio.gather(checkout("alice", "agent-1"), checkout("bob", "agent-2")):
        print(line)
    print(await checkout("alice", "agent-1"))


asyncio.run(main())
print(balance("carol"))
print(balance("carol"))
