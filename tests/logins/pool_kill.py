"""Many processes that each use a member of a pool once. Half of them are killed with -9 in the middle.

python -m tests.logins.pool_kill --workers 200 --identities 20

It prints one line of numbers, and ends with 1 if two workers had one member at a time, if a worker was not served within the
bound, or if what a living worker saved is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import sys
from contextlib import ExitStack
from typing import Any

import redis

from session_reuse import SessionManager, reusable_session
from tests.harness.servers import RedisServer

POOL = "shop.example"
LOG = "log of the workers"
USE = 0.1
LEASE_TTL = 8.0
"""Seconds. A holder that gets no processor for longer than this loses its lease rightly."""
SLACK = 2.0
"""Seconds of a turn in which the next worker finds out that a member is free, on a machine with few processors."""


def is_killed(number: int) -> bool:
    """Return whether this worker is one of those that are killed."""
    return number % 2 == 1


async def work(url: str, number: int) -> None:
    """Use a member, and write down when."""
    log = redis.Redis.from_url(url)

    def note(what: str, fingerprint: str) -> None:
        seconds, micros = log.time()
        log.rpush(LOG, f"{what} {fingerprint} {number} {seconds + micros / 1e6}")

    async with SessionManager(
        url, registry=None, lease_ttl=LEASE_TTL, restore_timeout=10.0, attempt_timeout=5.0
    ) as manager:  # fmt: skip
        note("wait", POOL)
        async with reusable_session(pool=POOL, manager=manager, wait=3600) as session:
            note("start", session.fingerprint)
            session.data[str(number)] = True
            await asyncio.sleep(USE)
            note("end", session.fingerprint)
            if is_killed(number):
                os.kill(os.getpid(), signal.SIGKILL)


async def add(url: str, identities: int) -> None:
    """Make the pool."""
    async with SessionManager(url, registry=None) as manager:
        await manager.pool(POOL).add(*(f"user-{number}" for number in range(identities)))


async def saved(url: str, identities: int) -> set[int]:
    """Return the numbers of the workers whose notes are stored."""
    found: set[int] = set()
    async with SessionManager(url, registry=None) as manager:
        for number in range(identities):
            session = await manager.restore(f"{POOL}/user-{number}")
            found |= {int(each) for each in session.data} if session is not None else set()
    return found


def start(url: str, workers: int) -> None:
    """Start the workers, all of them at once, and wait for their end."""
    children = []
    for number in range(workers):
        child = os.fork()
        if child == 0:
            asyncio.run(work(url, number))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def numbers_of(url: str, workers: int, identities: int) -> dict[str, Any]:
    """Return what has become of the workers."""
    with redis.Redis.from_url(url) as client:
        lines = [line.decode().split() for line in client.lrange(LOG, 0, -1)]
    at = {(what, int(number)): float(time) for what, _, number, time in lines}
    served = [number for number in range(workers) if ("start", number) in at]
    holders: set[str] = set()
    twice = 0
    for what, fingerprint, *_ in lines:
        if what == "start":
            twice += fingerprint in holders
            holders.add(fingerprint)
        elif what == "end":
            holders.discard(fingerprint)
    longest_use = max((at["end", number] - at["start", number] for number in served), default=0.0)
    return {
        "workers": workers,
        "identities": identities,
        "killed": sum(map(is_killed, served)),
        "served": len(served),
        "two_on_one": twice,
        "not_saved": len({number for number in served if not is_killed(number)} - asyncio.run(saved(url, identities))),
        "longest_wait": round(max((at["start", number] - at["wait", number] for number in served), default=0.0), 2),
        "bound": round(math.ceil(workers / identities) * (longest_use + LEASE_TTL + SLACK), 2),
    }


def is_good(numbers: dict[str, Any]) -> bool:
    """Return whether no worker was wronged."""
    return (
        numbers["served"] == numbers["workers"]
        and not numbers["two_on_one"]
        and not numbers["not_saved"]
        and numbers["longest_wait"] <= numbers["bound"]
    )


def main() -> int:
    """Run the workers, and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--identities", type=int, default=20)
    parser.add_argument("--url", help="the store; a server of its own if not given")
    given = parser.parse_args()
    with ExitStack() as stack:
        url = given.url or stack.enter_context(RedisServer()).url
        asyncio.run(add(url, given.identities))
        start(url, given.workers)
        numbers = numbers_of(url, given.workers, given.identities)
    sys.stdout.write(json.dumps(numbers) + "\n")
    return 0 if is_good(numbers) else 1


if __name__ == "__main__":
    sys.exit(main())
