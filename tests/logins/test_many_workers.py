"""Many processes on few identities, half of them killed: never two on one, and each is served."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from session_reuse import SessionManager
from tests.harness.servers import RedisServer
from tests.logins.pool_workers import LOG, POOL, is_killed

WORKERS, MEMBERS = 24, 8


def test_half_of_the_workers_are_killed_and_each_is_served(redis_server: RedisServer) -> None:
    """No identity goes to a second worker before the first has ended, and what the living saved is there."""

    async def add() -> None:
        async with SessionManager(redis_server.url, registry=None) as manager:
            await manager.pool(POOL).add(*(f"user-{number}" for number in range(MEMBERS)))

    asyncio.run(add())
    command = [sys.executable, "-m", "tests.logins.pool_workers", redis_server.url, str(WORKERS)]
    subprocess.run(command, check=True, timeout=240)
    with redis_server.client() as client:
        lines = [line.decode().split() for line in client.lrange(LOG, 0, -1)]
    holders: dict[str, str] = {}
    for what, fingerprint, number in lines:
        if what == "start":
            assert fingerprint not in holders, f"{number} got {fingerprint} of {holders[fingerprint]}"
            holders[fingerprint] = number
        else:
            assert holders.pop(fingerprint) == number
    assert sorted(int(number) for what, _, number in lines if what == "start") == list(range(WORKERS))
    assert len({fingerprint for _, fingerprint, _ in lines}) == MEMBERS
    assert asyncio.run(saved(redis_server.url)) == {number for number in range(WORKERS) if not is_killed(number)}


async def saved(url: str) -> set[int]:
    """Return the numbers of the workers whose notes are stored."""
    found: set[int] = set()
    async with SessionManager(url, registry=None) as manager:
        for number in range(MEMBERS):
            session = await manager.restore(f"{POOL}/user-{number}")
            found |= {int(each) for each in session.data} if session is not None else set()
    return found
