# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Wrap a block of agent code. Run this twice: the second run starts logged in.

Without SESSION_REUSE_URL, the session is kept in a private Redis of your user. You install nothing else.
"""

from __future__ import annotations

import asyncio
import secrets

from session_reuse import BrowserSession, reusable_session


def log_in(session: BrowserSession) -> None:
    """Stand in for the slow part: the form, the second factor, the captcha."""
    session.storage_state["cookies"].append(
        {"name": "sid", "value": secrets.token_hex(8), "domain": "wrap-a-block.example", "path": "/", "expires": -1}
    )


async def main() -> None:
    """Enter, work, leave."""
    async with reusable_session("wrap-a-block.example/alice", agent_id="agent-7") as session:
        print(f"reused={session.reused} outcome={session.outcome}")
        if not session.reused:
            print("logging in, which takes a while ...")
            log_in(session)
        session.data["visits"] = session.data.get("visits", 0) + 1
        print(f"visit number {session.data['visits']}")
    print(f"left: {session.save_outcome}")


asyncio.run(main())
