"""Many processes that each use a member of a pool once. Half of them are killed with -9 in the middle.

python -m tests.logins.pool_workers URL WORKERS
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import redis

from session_reuse import SessionManager, reusable_session

POOL = "shop.example"
LOG = "log of the workers"
USE = 0.1
LEASE_TTL = 8.0  # a holder that gets no processor for longer than this loses its lease rightly


def is_killed(number: int) -> bool:
    """Return whether this worker is one of those that are killed."""
    return number % 2 == 1


async def work(url: str, number: int) -> None:
    """Use a member, and write down when."""
    log = redis.Redis.from_url(url)
    async with (
        SessionManager(url, registry=None, lease_ttl=LEASE_TTL, restore_timeout=10.0, attempt_timeout=5.0) as manager,
        reusable_session(pool=POOL, manager=manager, wait=300) as session,
    ):
        log.rpush(LOG, f"start {session.fingerprint} {number}")
        session.data[str(number)] = True
        await asyncio.sleep(USE)
        log.rpush(LOG, f"end {session.fingerprint} {number}")
        if is_killed(number):
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Start the workers, all of them at once, and wait for their end."""
    url, workers = sys.argv[1], int(sys.argv[2])
    children = []
    for number in range(workers):
        child = os.fork()
        if child == 0:
            asyncio.run(work(url, number))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
