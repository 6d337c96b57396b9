# /// script
# requires-python = ">=3.11"
# dependencies = ["session-reuse[embedded]"]
# ///
"""Use one login with several agents at once, and keep the changes of each. Or use it with one agent at a time."""

from __future__ import annotations

import asyncio

from session_reuse import SaveOutcome, reusable_session

NAME = "shared-mail.example/team"


async def agent(name: str, all_in: asyncio.Barrier) -> SaveOutcome | None:
    """Use the shared login together with the other agents."""
    async with reusable_session(NAME, agent_id=name) as session:
        await all_in.wait()
        session.data[f"read by {name}"] = True
        session.storage_state["cookies"].append(
            {"name": f"seen-{name}", "value": "1", "domain": "shared-mail.example", "path": "/", "expires": -1}
        )
    return session.save_outcome


async def main() -> None:
    """Share the login, print its content, and take turns."""
    all_in = asyncio.Barrier(3)
    outcomes = await asyncio.gather(*(agent(name, all_in) for name in ("ann", "ben", "cem")))
    print("three agents left:", ", ".join(sorted(map(str, outcomes))))

    async with reusable_session(NAME) as session:
        print("notes of all:    ", ", ".join(sorted(session.data)))
        print("cookies of all:  ", ", ".join(sorted(cookie["name"] for cookie in session.storage_state["cookies"])))
        session.discard()

    async with (
        reusable_session(NAME, "ann", exclusive=True) as first,
        reusable_session(NAME, "ben", exclusive=True) as second,
    ):
        print(f"taking turns:     ann {first.outcome}, ben {second.outcome}")


asyncio.run(main())
