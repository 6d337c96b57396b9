"""A process that uses sessions like an agent host would. Started by tests as `python -m tests.sharing.worker TASK JSON`.

Each task prints one line of JSON for each thing a test waits for. Must never print anything else.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import Any

from session_reuse import SessionManager, reusable_session

SETTINGS = {
    "registry": None, "connect_timeout": 5.0, "attempt_timeout": 2.0, "restore_timeout": 10.0, "save_timeout": 10.0,
    "close_timeout": 20.0,
}  # fmt: skip
"""Patience for machines under load: these tests are about what happens, not about how soon."""


def say(**what: Any) -> None:
    """Tell the test something."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def told() -> str:
    """Wait for a line from the test."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def crowd(url: str, fingerprint: str, tasks: int, rounds: int) -> None:
    """Add items of this process's own in shared mode, and count up one number in exclusive mode, side by side."""
    outcomes: Counter[str] = Counter()

    async def share(manager: SessionManager, task: int) -> None:
        for number in range(rounds):
            async with reusable_session(fingerprint, f"agent-{task}", manager=manager) as session:
                session.data[f"{os.getpid()}-{task}-{number}"] = number
            outcomes[f"shared {session.save_outcome}"] += 1

    async def count(manager: SessionManager, task: int) -> None:
        for _ in range(rounds):
            visit = reusable_session(
                f"{fingerprint}/counter", f"agent-{task}", manager=manager, exclusive=True, wait=90
            )
            async with visit as session:
                session.data["count"] = session.data.get("count", 0) + 1
            outcomes[f"exclusive {session.save_outcome}"] += 1

    async with SessionManager(url, **SETTINGS) as manager:
        say(ready=True)
        await told()
        await asyncio.gather(*(job(manager, task) for job in (share, count) for task in range(tasks)))
    say(outcomes=outcomes)


async def hold(url: str, fingerprint: str, value: str, lease_ttl: float) -> None:
    """Hold the lease until told to leave, change something, and say what became of it."""
    async with SessionManager(url, **SETTINGS, lease_ttl=lease_ttl) as manager:
        async with reusable_session(fingerprint, "holder", manager=manager, exclusive=True) as session:
            say(outcome=session.outcome)
            await told()
            session.data["by"] = value
        say(saved=session.save_outcome)


async def reuse(url: str, fingerprint: str, enters: int, max_uses: int) -> None:
    """Enter again and again, counting uses, and say how often a stored session was reused."""
    reused = 0
    async with SessionManager(url, **SETTINGS) as manager:
        say(ready=True)
        await told()
        for _ in range(enters):
            async with reusable_session(fingerprint, manager=manager, max_uses=max_uses) as session:
                reused += session.reused
                session.discard()
    say(reused=reused)


async def clean(url: str, interval: float) -> None:
    """Clean up until told to stop, and say each fingerprint that has expired."""
    settings = SETTINGS | {"cleanup_interval": interval, "on_expired": lambda name: say(expired=name)}
    async with SessionManager(url, **settings) as manager:
        job = asyncio.create_task(manager.cleanup())
        say(ready=True)
        await told()
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run({"crowd": crowd, "hold": hold, "reuse": reuse, "clean": clean}[sys.argv[1]](**json.loads(sys.argv[2])))
